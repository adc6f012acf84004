import numpy as np
import pytest
import tensorflow as tf

from atent_keras.attacks.noise import as_seed
from atent_keras.attacks.noise import normal_noise

SHAPES = [(40, 8, 8, 1), (40, 5, 3, 1), (40, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("graph", [False, True])
def test_a_row_does_not_depend_on_its_batch(shape, dtype, graph):
    x = tf.zeros(shape, dtype)

    def draw(x, first):
        return normal_noise(as_seed(3), x, first)(2)

    if graph:
        draw = tf.function(draw)
    whole = draw(x, 0)
    for first, last in ((0, 7), (7, 32), (39, 40)):
        np.testing.assert_array_equal(
            draw(x[first:last], first), whole[first:last]
        )


def test_noise_is_standard_normal_and_new_at_every_step_and_seed():
    x = tf.zeros((500, 100))
    draws = [
        np.ravel(normal_noise(as_seed(seed), x)(k))
        for seed in (0, 1)
        for k in (0, 1)
    ]
    count = draws[0].size
    for draw in draws:
        assert abs(draw.mean()) < 4.5 / np.sqrt(count)
        assert abs(draw.std() - 1) < 4.5 / np.sqrt(2 * count)
    correlations = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlations).max() < 4.5 / np.sqrt(count)


def test_seed_none_is_fresh_in_every_call_even_of_a_graph():
    draw = tf.function(lambda: as_seed(None))
    assert not np.array_equal(draw(), draw())
    assert not np.array_equal(as_seed(None), as_seed(None))


@pytest.mark.parametrize("seed", ["7", True, [1, 2, 3]])
def test_bad_seed(seed):
    with pytest.raises(
        (TypeError, ValueError), match="`seed` must .* Received"
    ):
        as_seed(seed)


def test_rows_can_be_picked_near_and_far():
    """From a range that is drawn whole, and one by one where few are far."""
    x = tf.zeros((3000, 5))
    whole = normal_noise(as_seed(3), x)(2)
    for places in ([0, 1, 2], [7, 9, 30], [0, 1500, 2999], [2999]):
        picked = normal_noise(as_seed(3), x[: len(places)], places)
        np.testing.assert_array_equal(picked(2), tf.gather(whole, places))
        # Of another shape than the examples', too.
        many = normal_noise(as_seed(3), x)(2, [3, 2])
        np.testing.assert_array_equal(
            picked(2, [3, 2]), tf.gather(many, places)
        )
