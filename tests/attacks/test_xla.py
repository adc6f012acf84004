"""Attacks that XLA compiles, beside those that run as graphs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import noise as noise_lib

Linf, L2 = ak.threat_models.Linf, ak.threat_models.L2
LINF, L_2 = Linf(0.1), L2(0.5)
ATTACKS = {
    "PGD": ak.attacks.PGD(LINF, num_steps=5, restarts=2),
    "PGD in l_2": ak.attacks.PGD(L_2, num_steps=5),
    "SGLD": ak.attacks.SGLD(L_2, 0.2, num_steps=5, gamma=0.05),
    "APGD": ak.attacks.APGD(LINF, num_steps=10),
    "APGDT": ak.attacks.APGDT(L_2, num_steps=5, targets=2),
    "FAB": ak.attacks.FAB(LINF, num_steps=5, targets=2),
    "Square": ak.attacks.Square(LINF, num_queries=60),
    "Square in l_2": ak.attacks.Square(L_2, num_queries=60),
    "DeepFool": ak.attacks.DeepFool(L_2, num_steps=5),
    "CarliniWagner": ak.attacks.CarliniWagner(
        L_2, num_steps=10, search_steps=2
    ),
}


@pytest.fixture(scope="module")
def network(digits):
    """A dense network: XLA's loops over convolutions crawl on a CPU."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(digits[0][200:], digits[1][200:], epochs=3, verbose=0)
    return model


@pytest.fixture
def xla():
    ak.config.set_jit_compile(True)
    yield
    ak.config.set_jit_compile("auto")


@pytest.mark.parametrize("name", ATTACKS)
def test_xla_finds_what_the_graph_finds(name, network, digits, xla):
    """The draws are the same up to rounding, and so is what is fooled."""
    attack, (x, y) = ATTACKS[name], (part[:200] for part in digits)

    def fooled(batch_size):
        x_adv = attack(network, x, y, seed=1, batch_size=batch_size)
        assert np.max(attack.threat_model.norm(x_adv - x)) < 0.51 or (
            name in ("DeepFool", "CarliniWagner")
        )
        return np.argmax(network.predict(x_adv, verbose=0), axis=1) != y

    compiled = fooled(None)
    # As many as there are, in parts of which the last one is filled up.
    np.testing.assert_array_equal(fooled(120), compiled)
    ak.config.set_jit_compile(False)
    graph = fooled(None)
    assert 0.02 < graph.mean() < 1
    # An image on the edge may fall to either side.
    assert np.sum(compiled != graph) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", [(7, 0), (-3, 2**40 + 1)])
@pytest.mark.parametrize(
    "first", [3, [0, 1, 5, 6, 2000]], ids=["in a row", "anywhere"]
)
def test_xla_draws_the_same_numbers(first, seed, dtype):
    like = tf.zeros((5, 7, 3), dtype)

    def draw(seed, first, step, xla):
        own = noise_lib.fold_in(seed, step, xla)
        return noise_lib.normal_noise(own, like, first, xla)(step)

    for step in (tf.constant(2), tf.constant(2**33)):
        given = tf.constant(seed, tf.int64), tf.constant(first), step
        expected = draw(*given, False)
        compiled = tf.function(draw, autograph=False, jit_compile=True)
        tolerance = 5e-6 if dtype == "float32" else 1e-13
        for found in (draw(*given, True), compiled(*given, True)):
            np.testing.assert_allclose(found, expected, atol=tolerance)


def test_smoothing_counts_the_same(network, digits, xla):
    smoothed = ak.SmoothedClassifier(network, 0.25, batch_size=64)
    x = digits[0][:3]
    compiled = smoothed.count(x, 100, seed=2)
    ak.config.set_jit_compile(False)
    graph = smoothed.count(x, 100, seed=2)
    np.testing.assert_array_equal(compiled.sum(axis=1), 100)
    assert np.max(np.abs(compiled - graph)) <= 1
    assert np.any(graph.max(axis=1) < 60)


def test_a_report_is_the_same(network, digits, xla):
    data = [part[:50] for part in digits]
    attacks = {"PGD": ATTACKS["PGD"]}

    def report():
        return ak.evaluate_robustness(
            network, tuple(data), attacks, checks=None, verbose=0
        )

    compiled = report()
    ak.config.set_jit_compile(False)
    graph = report()
    assert compiled.clean_accuracy == graph.clean_accuracy
    assert compiled.robust_accuracy == pytest.approx(
        graph.robust_accuracy, abs=0.021
    )


class Odd(keras.layers.Layer):
    """A layer that XLA can't compile."""

    def call(self, x):
        same = tf.numpy_function(lambda array: array, [x], x.dtype)
        return tf.ensure_shape(same, x.shape)


def test_what_xla_can_not_compile_is_named(digits, xla):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(10)(Odd(name="mine")(x))
    model = keras.Model(inputs, x)
    attack = ak.attacks.Square(LINF, num_queries=2)
    with pytest.raises(ValueError, match="XLA can compile.*mine") as error:
        attack(model, digits[0][:4], digits[1][:4])
    assert "`atent_keras.config.set_jit_compile(False)`" in str(error.value)
    ak.config.set_jit_compile(False)
    attack(model, digits[0][:4], digits[1][:4])
