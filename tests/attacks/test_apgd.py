import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras.attacks import APGD
from atent_keras.attacks import APGDT
from atent_keras.attacks import DLR
from atent_keras.attacks import Margin
from atent_keras.attacks import auto_pgd
from atent_keras.attacks.noise import as_seed
from atent_keras.attacks.noise import normal_noise
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats

ZOOM = np.array([[9.0, 4.0, -7.0], [5.0, -11.0, 3.0], [-6.0, 8.0, 12.0]])


def bumps(x):
    """A hilly landscape between -3 and 3 over the unit cube."""
    return np.sin(x @ ZOOM).sum(axis=-1)


def bumps_gradient(x):
    return np.cos(x @ ZOOM) @ ZOOM.T


def never_fooled(x):
    """Logits of two classes, the lead of the first of which is 9 - bumps."""
    hills = tf.reduce_sum(tf.sin(tf.linalg.matmul(x, ZOOM)), axis=-1)
    return tf.stack([9 - hills, tf.zeros_like(hills)], axis=-1)


def algorithm_1(project, direction, x0, epsilon, num_steps):
    """The paper's Algorithm 1, for one example, line by line."""
    w = [0, 0.22]
    while w[-1] < 1:
        w.append(w[-1] + max(w[-1] - w[-2] - 0.03, 0.06))
    w = [int(np.ceil(round(p * num_steps, 9))) for p in w]
    eta = 2 * epsilon
    before, here = x0, project(x0 + eta * direction(bumps_gradient(x0)))
    rose = [bumps(here) > bumps(x0)]
    x_max = max(x0, here, key=bumps)
    at_check, halved, halvings = bumps(x0), False, []
    for k in range(1, num_steps):
        if k in w[1:]:
            last = w[w.index(k) - 1]
            first = sum(rose[last:k]) < 0.75 * (k - last)
            second = not halved and bumps(x_max) == at_check
            halved, at_check = first or second, bumps(x_max)
            if halved:
                eta, here = eta / 2, x_max
                halvings.append(k)
        z = project(here + eta * direction(bumps_gradient(here)))
        z = project(here + 0.75 * (z - here) + 0.25 * (here - before))
        rose.append(bumps(z) > bumps(here))
        before, here = here, z
        x_max = max(x_max, here, key=bumps)
    return x_max, halvings


def test_checkpoints_are_the_papers():
    assert auto_pgd.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert auto_pgd.checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]
    assert auto_pgd.checkpoints(1) == [1]


@pytest.mark.parametrize("norm", [Linf, L2])
def test_the_search_is_algorithm_1(norm):
    epsilon, num_steps = (0.4 if norm is Linf else 0.1), 100
    threat_model = norm(epsilon)
    x = np.random.default_rng(0).uniform(size=(20, 3))
    keras.config.set_floatx("float64")
    try:
        attack = APGD(threat_model, num_steps, loss=Margin())
        found = attack(never_fooled, x, np.zeros(20, int), seed=5).numpy()
    finally:
        keras.config.set_floatx("float32")
    seed = tf.random.experimental.stateless_fold_in(as_seed(5), 0)
    noise = normal_noise(seed, tf.constant(x))(0)
    starts = threat_model.clip(threat_model.random_start(x, noise)).numpy()
    halvings = []
    for x_i, start, found_i in zip(x, starts, found):

        def project(point):
            step = point - x_i
            if norm is Linf:
                step = np.clip(step, -epsilon, epsilon)
            else:
                step *= min(1, epsilon / max(np.linalg.norm(step), 1e-300))
            return np.clip(x_i + step, 0, 1)

        def direction(gradient):
            if norm is Linf:
                return np.sign(gradient)
            return gradient / np.linalg.norm(gradient)

        best, when = algorithm_1(project, direction, start, epsilon, num_steps)
        assert bumps(found_i) == pytest.approx(bumps(best), abs=1e-6)
        # On a hill's flat top it is rounding that rises and falls.
        np.testing.assert_allclose(found_i, best, atol=1e-4)
        halvings += when
    # The rule was put to the test: some halved, at each checkpoint, not all.
    assert set(halvings) == set(auto_pgd.checkpoints(num_steps))
    assert len(halvings) < 20 * 8


def search(rises, best_then, best, halved_then):
    def point(place, loss):
        return auto_pgd.Point(
            *map(tf.constant, ([[place]], [[-place]], [loss]))
        )

    return auto_pgd.Search(
        here=point(1.0, 0.5),
        before=tf.constant([[0.0]]),
        best=point(2.0, best),
        step_size=tf.constant([0.8]),
        rises=tf.constant([rises]),
        best_then=tf.constant([best_then]),
        halved_then=tf.constant([halved_then]),
    )


@pytest.mark.parametrize(
    "rises, best_then, best, halved_then, halves",
    [
        (14.0, 1.0, 2.0, False, True),  # under three quarters of 19 rose
        (15.0, 1.0, 2.0, False, False),
        (19.0, 2.0, 2.0, False, True),  # nothing gained, nothing done for it
        (19.0, 2.0, 2.0, True, False),  # nothing gained, but just halved
    ],
)
def test_when_a_step_is_halved(rises, best_then, best, halved_then, halves):
    before = search(rises, best_then, best, halved_then)
    after = auto_pgd.reconsider(before, 19.0)
    assert float(after.step_size[0]) == pytest.approx(0.4 if halves else 0.8)
    # It then goes on from the best point, with that point's gradient.
    expected = before.best if halves else before.here
    for actual, part in zip(after.here, expected):
        np.testing.assert_array_equal(actual, part)
    assert after.rises[0] == 0 and after.best_then[0] == best
    assert bool(after.halved_then[0]) is halves


def test_steps_by_hand():
    """The first step has no momentum; the second keeps a quarter of it."""
    x = tf.constant([[0.5, 0.5]])
    gradient = tf.constant([[1.0, -2.0]])
    for norm, unit in (
        (Linf(0.1), np.array([1, -1])),
        (L2(0.1), np.array([1, -2]) / np.sqrt(5)),
    ):
        attack = APGD(norm)
        start = auto_pgd.Point(x, gradient, tf.constant([0.0]))
        state = search(0.0, 0.0, 0.0, False)._replace(
            here=start, before=x, step_size=tf.constant([0.04])
        )
        first = attack.step(x, state, tf.constant(1))
        np.testing.assert_allclose(first, [0.5 + 0.04 * unit], rtol=1e-6)
        state = auto_pgd.update(
            state, auto_pgd.Point(first, gradient, tf.constant([1.0]))
        )
        second = attack.step(x, state, tf.constant(2))
        # 0.75 * 0.04 of the new step, 0.25 * 0.04 of the last one.
        np.testing.assert_allclose(second, [0.5 + 0.08 * unit], rtol=1e-6)


def three_classes(x):
    return tf.stack([2 + 0 * x[:, 0], 1 + 9 * x[:, 0], x[:, 1]], axis=-1)


def test_targets_are_tried_likeliest_first_each_on_what_stands():
    x = np.array([[0.0, 0.5], [0.0, 0.5]], "float32")
    seen = []

    class Spy(APGDT):
        def target(self, logits, labels, number):
            target = super().target(logits, labels, number)
            tf.py_function(
                lambda number, t: seen.append(
                    (int(number), t.numpy().tolist())
                ),
                [number, target],
                [],
            )
            return target

    # The first image has room to class 1, the second is held by its box.
    attack = Spy(Linf(0.2), num_steps=5, targets=2)
    x[1, 0] = -0.3
    with pytest.raises(ValueError, match="Images must lie within"):
        attack(three_classes, x, [0, 0])
    x[1] = 0.0
    x_adv = attack(lambda z: three_classes(z) * [1.0, 1.0, 1.0], x, [0, 0])
    assert seen[0] == (0, [1, 1])
    assert np.argmax(three_classes(x_adv), axis=-1).tolist() == [1, 1]
    # What is fooled by the first target is not tried on the second.
    assert len(seen) == 1


def test_fewer_classes_than_targets():
    x = np.full((4, 2), 0.1, "float32")
    few, y = APGDT(Linf(0.01), num_steps=5, targets=2), [0] * 4
    assert few.rounds(3) == 2 and APGDT(Linf(0.1), restarts=3).rounds(10) == 27
    with pytest.warns(UserWarning, match="tries all 2 .* Received: targets=9"):
        many = APGDT(Linf(0.01), num_steps=5)(three_classes, x, y, seed=0)
    assert_repeats(few(three_classes, x, y, seed=0), many)


def test_an_image_is_left_alone_once_it_is_fooled():
    """With another that stands in its chunk, and by itself."""
    x = np.array([[0.1, 0.0], [0.0, 0.0]], "float32")
    attack = APGD(Linf(0.1), 20)
    logits = lambda x: three_classes(x) * [1.0, 1.0, 0.0]  # noqa: E731
    both = attack(logits, x, [0, 0], seed=0)
    alone = attack(logits, x[:1], [0], seed=0)
    assert np.argmax(logits(both), axis=-1)[0] == 1
    assert_repeats(both[:1], alone)


def test_samples_average_a_network_that_draws():
    passes = tf.Variable(0)

    def noisy(x):
        passes.assign_add(1)
        clean = tf.stack([1 + 0 * x[:, 0], x[:, 0]], axis=-1)
        return clean + 0.5 * tf.random.normal(tf.shape(clean))

    x = np.full((64, 2), 0.5, "float32")
    APGD(Linf(0.0), 4, num_samples=3)(noisy, x, np.zeros(64, int))
    before = int(passes)
    fooled = []
    for samples in (1, 50):
        attack = APGD(Linf(0.0), 4, num_samples=samples)
        fooled.append(attack.round(noisy, *_round(x))[1])
    # Not fooled in truth: averages see it, single draws often don't.
    assert np.mean(fooled[0] < 0) > 0.3 and np.mean(fooled[1] < 0) < 0.05
    # Clean once, then the start and each of four steps with all samples.
    assert int(passes) - before <= 2 + 5 + 250 and int(passes) - before > 250


def _round(x):
    return (
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        tf.constant(x),
        tf.zeros(len(x), tf.int32),
        tf.constant(x),
        tf.fill([len(x)], np.inf),
        tf.constant(0),
        lambda number: normal_noise(as_seed(number), tf.constant(x)),
    )


def test_names():
    names = [
        attack.name
        for attack in (
            APGD(Linf(0.1)),
            APGD(Linf(0.1), loss=DLR()),
            APGDT(Linf(0.1)),
        )
    ]
    assert names == ["APGD-CE", "APGD-DLR", "APGD-T"]


@pytest.mark.parametrize("name", ["num_steps", "restarts", "num_samples"])
def test_counts_must_be_positive_integers(name):
    for kind in (APGD, APGDT):
        with pytest.raises(ValueError, match=f"`{name}` must be an integer"):
            kind(Linf(0.1), **{name: 0})
    with pytest.raises(ValueError, match="`targets` must be .* Received"):
        APGDT(Linf(0.1), targets=None)


def test_apgdt_leads_to_the_last_of_three_classes():
    """In the ball, the last class alone can win, and does on its corner.

    At 0.5 the logits are 1, 0.5 and 0; at 0.8 they are 1, 0.5 and 1.44.
    """
    inputs = keras.Input((2,))
    network = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    network.set_weights(
        [
            np.array([[0.0, 0.0, 2.4], [0.0, 0.0, 2.4]]),
            np.array([1.0, 0.5, -2.4]),
        ]
    )
    x = np.full((4, 2), 0.5, "float32")
    x_adv = APGDT(Linf(0.3), num_steps=10, targets=2)(network, x, [0] * 4)
    np.testing.assert_array_equal(np.argmax(network(x_adv), axis=1), 2)


def test_three_classes_fall_to_every_loss_alike():
    """Whoever follows a ratio of three logits leaves a quarter or so."""
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(600, 10)).astype("float32")
    y = np.argmax(x @ rng.normal(size=(10, 3)), axis=1)
    inputs = keras.Input((10,))
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    network.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=19,
    )
    network.fit(x, y, epochs=60, verbose=0)
    norm, left = Linf(0.4), []
    for attack in (
        APGD(norm, 20),
        APGD(norm, 20, loss=DLR()),
        APGDT(norm, 20, targets=2),
    ):
        x_adv = attack(network, x[:100], y[:100], seed=0)
        left.append(np.mean(np.argmax(network(x_adv), axis=1) == y[:100]))
    assert max(left) < 0.1
