import numpy as np
import pytest
import tensorflow as tf

from atent_keras.attacks import Square
from atent_keras.attacks import UniformNoise
from atent_keras.attacks import square_proposals as proposals
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import small_network


def test_the_papers_schedule():
    square = Square(Linf(0.1))
    at = (0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001)
    halvings = [round(np.log2(0.8 / square.share(query))) for query in at]
    assert halvings == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert square.share(4999) == 0.8 / 128
    rescaled = Square(Linf(0.1), rescale_schedule=True)
    assert rescaled.share(5) == 0.8 and rescaled.share(6) == 0.4
    assert rescaled.share(4001) == 0.8 / 512


def test_sides():
    sides = Square(Linf(0.1)).sides(28, 28)
    # round(28 * sqrt(share)), the first of them the start's, unused.
    assert len(sides) == 5000 and sides[1] == 25 and sides[12] == 18
    assert sides[-1] == 2 and Square(Linf(0.1)).sides(8, 8)[-1] == 1
    odd = Square(L2(1.0)).sides(28, 28)
    assert odd[1] == 25 and odd[12] == 19 and odd[-1] == 3
    assert np.all(odd % 2 == 1)
    assert Square(L2(1.0)).sides(8, 8)[1] == 7  # and no larger than the image


def test_sides_of_spans_and_cubes():
    """The same share of all pixels: 0.8, and 0.8 / 2, of 100 and of 8,000."""
    spans = Square(Linf(0.1)).sides(100)
    assert spans[1] == 80 and spans[12] == 40 and spans[-1] == 1
    cubes = Square(Linf(0.1)).sides(20, 20, 20)
    assert cubes[1] == 19 and cubes[12] == 15
    assert Square(Linf(0.1)).sides(4, 50, 50)[1] == 4  # no larger than any
    assert Square(L2(0.1)).sides(100)[1] == 81


def outputs(lead):
    """Logits of two classes, the first of which leads by `lead(x)`."""

    def network(x):
        return tf.stack([lead(x), 0 * lead(x)], axis=-1)

    return network


@pytest.mark.parametrize("norm", [Linf(0.1), L2(1.0)])
@pytest.mark.parametrize("num_queries", [1, 100, 137])
def test_no_image_is_asked_about_more_often_than_allowed(norm, num_queries):
    asked = tf.Variable(0)

    def network(x):
        asked.assign_add(tf.shape(x)[0])
        return outputs(lambda x: 1 + x[:, 0, 0, 0])(x)

    x = np.full((6, 5, 5, 1), 0.5, "float32")
    attack = Square(norm, num_queries)
    attack(network, x, [0] * 6, seed=0)
    probes = 3  # with which any network is looked at
    assert asked == 6 * num_queries + probes


@pytest.mark.parametrize("norm", [Linf(0.1), L2(1.0)])
def test_those_that_are_fooled_are_asked_no_more(norm):
    asked = tf.Variable(0)

    def network(x):
        asked.assign_add(tf.shape(x)[0])
        lead = tf.reduce_sum(x[:, :, 2], axis=[1, 2]) - 1
        return outputs(lambda x: lead)(x)

    # Two images in five have column 2 so dark that stripes can't save them.
    x = np.full((5, 5, 5, 1), 0.5, "float32")
    x[:2, :, 2] = 0.0
    x_adv = Square(norm, 250)(network, x, [0] * 5, seed=0)
    np.testing.assert_array_equal(
        np.argmax(network(x_adv), axis=-1)[:2], [1, 1]
    )
    # The first block goes on for the others' sake; the next two don't.
    assert asked <= 5 * 100 + 3 * 150 + 3 + 5


def test_stripes_and_squares_by_hand():
    x = tf.fill([1, 4, 3, 2], 0.5)
    signs = tf.constant([[[[1.0, -1], [-2, 3], [0.1, 0.1]]]])
    x_adv = proposals.stripes(Linf(0.1), x, signs)
    column = [[0.6, 0.4], [0.4, 0.6], [0.6, 0.6]]
    np.testing.assert_allclose(x_adv, [[column] * 4], rtol=1e-6)
    # Far left and far below: rows 2 and 3, columns 0 and 1.
    noise = tf.constant([[9.0, -9.0, -1.0, 1.0]])
    found = proposals.repainted(Linf(0.1), x, x_adv, tf.constant(2), noise)
    expected = np.array([[column] * 4])
    expected[0, 2:, :2] = [0.4, 0.6]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The box cuts colours.
    white = proposals.stripes(Linf(0.1), tf.ones_like(x), signs)
    assert np.max(white) == 1 and np.min(white) == np.float32(0.9)


def test_positions_are_uniform_and_fit():
    noise = tf.random.stateless_normal([60000], [0, 0])
    counts = np.bincount(proposals.positions(noise, tf.constant(3), 8))
    assert len(counts) == 6
    assert np.max(np.abs(counts - 1e4)) < 4.5 * np.sqrt(1e4 * 5 / 6)
    edges = proposals.positions(tf.constant([-50.0, 50.0]), tf.constant(3), 8)
    np.testing.assert_array_equal(edges, [0, 5])
    whole = proposals.positions(tf.constant([-1.0, 1.0]), tf.constant(8), 8)
    np.testing.assert_array_equal(whole, [0, 0])


@pytest.mark.parametrize("side", [3, 4, 5, 9])
def test_eta_is_the_papers(side):
    def pyramid(height, width):
        n = height // 2 if height > width else width // 2
        values = np.zeros((height, width))
        for r in range(height):
            for s in range(width):
                m = n - max(abs(r - height // 2), abs(s - width // 2))
                values[r, s] = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
        return values / np.linalg.norm(values)

    half = side // 2
    expected = np.vstack([pyramid(half, side), -pyramid(side - half, side)])
    window, turned = proposals.eta(side)
    np.testing.assert_allclose(window, expected / np.sqrt(2), rtol=1e-12)
    np.testing.assert_array_equal(turned, window.T)
    assert np.linalg.norm(window) == pytest.approx(1)


def test_tiles_fill_the_middle_and_the_ball():
    x = tf.fill([3, 12, 11, 2], 0.5)
    noise = tf.random.stateless_normal([3, 5, 5, 3], [1, 2])
    p = proposals.tiles(L2(0.5), x, noise) - x
    np.testing.assert_allclose(L2(1.0).norm(p), 0.5, rtol=1e-5)
    assert np.all(p[:, 0] == 0) and np.all(p[:, :, 10] == 0)
    tile, sign = p[0, 1:3, 0:2], np.sign(noise[0, 0, 0, 1:])
    window = proposals.eta(2)[int(noise[0, 0, 0, 0] > 0)]
    np.testing.assert_allclose(
        tile / np.linalg.norm(tile[..., 0], axis=(0, 1)),
        window[..., None] * sign,
        atol=1e-5,
    )


def test_a_move_by_hand():
    """From one window to another, with what was unused of the radius."""
    x = tf.fill([1, 6, 6, 1], 0.5)
    p = np.zeros((6, 6))
    p[1, 1], p[4, 4], p[0, 5] = 0.3, 0.4, 0.2
    x_adv = x + tf.constant(p.reshape(x.shape), tf.float32)
    window = tf.constant(proposals.eta(3), tf.float32)
    # To rows and columns 0..2 from rows and columns 3..5, upright, positive.
    noise = tf.constant([[-9.0, -9.0, 9.0, 9.0, -1.0, 1.0]])
    norm = L2(1.0, bounds=(-5.0, 5.0))
    found = proposals.moved(norm, x, x_adv, tf.constant(3), window, noise)
    found = (found - x).numpy()[0, :, :, 0]
    new = window[0].numpy() + p[:3, :3] / 0.3
    unused = 1 - 0.3**2 - 0.4**2 - 0.2**2
    new *= np.sqrt(0.3**2 + 0.4**2 + unused) / np.linalg.norm(new)
    expected = np.zeros((6, 6))
    expected[:3, :3], expected[0, 5] = new, 0.2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.linalg.norm(found) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("norm", [Linf(0.05), L2(0.5)])
def test_more_queries_only_lessen_the_lead(norm, digits):
    network = small_network()
    x = digits[0][:20]
    y = np.argmax(network(x), axis=-1)

    def leads(x):
        logits = network(x).numpy()
        own = logits[np.arange(20), y]
        logits[np.arange(20), y] = -np.inf
        return own - logits.max(axis=1)

    few, many = (
        leads(Square(norm, queries)(network, x, y, seed=0))
        for queries in (10, 150)
    )
    # The untrained network's leads are small: those not yet fooled sink.
    standing = few > 0
    assert np.all(many <= few + 1e-6) and np.all(many[standing] < few[standing])


def test_noise_is_a_floor_under_square(digits):
    network = small_network()
    x = digits[0][:100]
    y = np.argmax(network(x), axis=-1)

    def fooled(attack):
        x_adv = attack(network, x, y, seed=0)
        return np.argmax(network(x_adv), axis=-1) != y

    one, ten = (fooled(UniformNoise(Linf(0.05), tries)) for tries in (1, 10))
    assert np.all(ten >= one) and ten.sum() > one.sum()
    assert fooled(Square(Linf(0.05), 100)).sum() > ten.sum()
    with pytest.raises(ValueError, match="`tries` must be an integer"):
        UniformNoise(Linf(0.1), 0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_queries": 0}, "`num_queries` must be an integer"),
        ({"p_init": 0}, "`p_init` must be above 0"),
        ({"p_init": 1.5}, "`p_init` must be above 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=f"{message}.* Received"):
        Square(Linf(0.1), **settings)


def test_needs_images():
    for shape in ((2, 3), (2, 2, 2, 2, 2, 2)):
        x = np.zeros(shape)
        with pytest.raises(ValueError, match="`x` must be images .* Received"):
            Square(Linf(0.1))(outputs(lambda x: x[:, 0]), x, [0, 1])


SPACES = [(9,), (5, 4, 6)]


@pytest.mark.parametrize("space", SPACES, ids=["sequence", "volume"])
def test_spans_and_cubes_by_hand(space):
    axes = len(space)
    x = tf.fill([1, *space, 1], 0.5)
    # It begins at the second, and the second last, place that there is.
    noise = [0.0] * axes
    noise[0] = -9.0
    noise = tf.constant([[*noise, 1.0]])
    found = proposals.repainted(Linf(0.1), x, x, tf.constant(3), noise)
    painted = np.argwhere(found[0, ..., 0] > 0.55)
    assert len(painted) == 3**axes
    np.testing.assert_array_equal(painted.min(axis=0)[0], 0)
    np.testing.assert_array_equal(np.ptp(painted, axis=0), 2)
    signs = tf.random.stateless_normal(
        [1, *[1] * (axes - 1), space[-1], 1], [0, 0]
    )
    striped = proposals.stripes(Linf(0.1), x, signs) - x
    # Of one sign along all axes but the last.
    np.testing.assert_allclose(
        striped, 0.1 * np.broadcast_to(np.sign(signs), x.shape), rtol=1e-5
    )


def test_eta_of_spans_and_cubes():
    (span,) = proposals.eta(3, axes=1)
    # One level, and two: 1 / 2**2, and 1 more in the middle.
    fall = np.array([0.25, 1.25])
    fall /= np.linalg.norm(fall)
    np.testing.assert_allclose(span, np.array([1, *-fall]) / np.sqrt(2))
    cubes = proposals.eta(5, axes=3)
    assert cubes.shape == (3, 5, 5, 5)
    for axis, cube in enumerate(cubes):
        assert np.linalg.norm(cube) == pytest.approx(1)
        turned = np.moveaxis(cube, axis, 0)
        np.testing.assert_array_equal(turned, cubes[0])
        assert np.all(turned[:2] > 0) and np.all(turned[2:] < 0)


def test_orientations_are_uniform():
    noise = tf.random.stateless_normal([60000], [0, 1])
    for axes in (1, 2, 3):
        counts = np.bincount(proposals.orientation(noise, axes))
        assert len(counts) == axes
        slack = 4.5 * np.sqrt(6e4 * (axes - 1)) / axes
        assert np.max(np.abs(counts - 6e4 / axes)) <= slack
    # Of two, the sign alone decides.
    np.testing.assert_array_equal(proposals.orientation(noise, 2), noise > 0)


@pytest.mark.parametrize("space", SPACES, ids=["sequence", "volume"])
def test_a_move_of_spans_and_cubes_keeps_the_length(space):
    axes = len(space)
    x = tf.fill([4, *space, 2], 0.5)
    norm = L2(0.3)
    count = proposals.grid(x)[1]
    draw = [4, *[count] * axes, 3]
    start = proposals.tiles(norm, x, tf.random.stateless_normal(draw, [0, 2]))
    # All of the middle is tiled, and nothing else.
    across = count * proposals.grid(x)[0]
    middle = [
        slice((n - across) // 2, (n - across) // 2 + across) for n in space
    ]
    touched = np.any(start.numpy() != x, axis=-1)
    assert np.all(touched[(slice(None), *middle)])
    assert touched.sum() == 4 * across**axes
    noise = tf.random.stateless_normal([4, 2 * axes + 3], [0, 3])
    window = tf.constant(proposals.eta(3, axes), tf.float32)
    moved = proposals.moved(norm, x, start, tf.constant(3), window, noise)
    for found in (start, moved):
        np.testing.assert_allclose(norm.norm(found - x), 0.3, rtol=1e-5)
    assert np.all(tf.reduce_any(moved != start, axis=range(1, axes + 2)))


@pytest.mark.parametrize("norm", [Linf(0.1), L2(1.0)], ids=["l_inf", "l_2"])
@pytest.mark.parametrize("space", SPACES, ids=["sequence", "volume"])
def test_sequences_and_volumes_are_attacked(space, norm):
    """A network that looks at a corner is led astray there."""
    corner = (slice(None), *[slice(3)] * len(space))

    def network(x):
        lead = tf.reduce_mean(x[corner], axis=range(1, x.shape.rank)) - 0.48
        return outputs(lambda x: lead)(x)

    x = np.full((5, *space, 2), 0.5, "float32")
    x_adv = Square(norm, 200)(network, x, [0] * 5, seed=0)
    np.testing.assert_array_equal(np.argmax(network(x_adv), axis=1), 1)
    assert np.max(norm.norm(x_adv - x)) <= norm.epsilon * (1 + 1e-5)
