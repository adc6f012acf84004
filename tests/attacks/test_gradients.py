import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras import base_losses
from atent_keras.attacks import APGD
from atent_keras.attacks import APGDT
from atent_keras.attacks import DLR
from atent_keras.attacks import FAB
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.attacks import AutoAttack
from atent_keras.attacks import CarliniWagner
from atent_keras.attacks import DeepFool
from atent_keras.attacks import gradients
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import GPU
from conftest import assert_repeats
from conftest import cross_entropy

LINF, TWO = Linf(0.12), L2(0.7)


def dense_network(dtype, scale=1.0):
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Rescaling(scale, dtype=dtype)(inputs)
    x = layers.Flatten(dtype=dtype)(x)
    x = layers.Dense(32, activation="relu", dtype=dtype)(x)
    return keras.Model(inputs, layers.Dense(10, dtype=dtype)(x))


@pytest.fixture(scope="module")
def sure_weights(digits):
    """Weights of a network that is sure of most images."""
    keras.utils.set_random_seed(0)
    network = dense_network("float32")
    # An epoch at once: a step takes longer in Python than in TensorFlow.
    network.compile(
        keras.optimizers.Adam(0.01), cross_entropy(), steps_per_execution=32
    )
    network.fit(digits[0][:1000], digits[1][:1000], epochs=30, verbose=0)
    first, bias, last, last_bias = network.get_weights()
    return [first, bias, 2 * last, 2 * last_bias]


@pytest.fixture
def network(sure_weights):
    def build(dtype="float32", scale=1.0):
        network = dense_network(dtype, scale)
        network.set_weights(sure_weights)
        return network

    return build


@pytest.fixture
def images(digits):
    return digits[0][1000:1100], digits[1][1000:1100]


def right(network, x, y):
    return np.argmax(network(x), axis=1) == y


@pytest.mark.parametrize("floatx", ["float32", "float64"])
def test_the_scale_changes_nothing_else(floatx, images, network):
    keras.config.set_floatx(floatx)
    try:
        predict = network(floatx)
        x, y = tf.constant(images[0], floatx), tf.constant(images[1])

        def losses(logits):
            return base_losses.per_example(cross_entropy(), y, logits)

        found, values, outputs = gradients.at(predict, x, losses)
        with tf.GradientTape() as tape:
            tape.watch(x)
            expected = losses(predict(x))
        assert_repeats([values, outputs], [expected, predict(x)])
        gradient = tape.gradient(expected, x).numpy()
        # Below the smallest regular number, hardware rounds as it likes.
        tiny = 100 * np.finfo(floatx).tiny
        atol = 1e-5 if GPU else tiny
        np.testing.assert_allclose(found, gradient, rtol=0, atol=atol)
    finally:
        keras.config.set_floatx("float32")


def test_coupled_images_keep_their_share_of_the_way_back(images, network):
    """Behind the batch's statistics, through which all see each other."""
    x, y = tf.constant(images[0]), images[1]

    def predict(x):
        mean, variance = tf.nn.moments(x, [0])
        return network()((x - mean) / tf.sqrt(variance + 0.1))

    def losses(logits):  # the sure image's slopes are far from the others'
        return base_losses.per_example(cross_entropy(), y, logits)

    with tf.GradientTape() as tape:
        tape.watch(x)
        expected = losses(predict(x))
    assert tf.reduce_max(expected) > 1000 * tf.reduce_min(expected)
    expected = tape.gradient(expected, x)
    found, *_ = gradients.at(predict, x, losses, coupled=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    alone, *_ = gradients.at(predict, x, losses)
    assert np.max(np.abs(alone - expected)) > 0.1


@pytest.mark.parametrize("exponent", [-30, -3, 0, 12, 40])
def test_float16_holds_gradients_of_any_size(exponent):
    """Of a linear network they are known: the size times the weights."""
    weights = tf.constant([[1.0, -2.0], [0.5, 0.25]])
    size = 2.0**exponent

    def predict(x):
        x = tf.cast(x, tf.float16)
        return tf.matmul(x, tf.cast(weights, tf.float16))

    found, *_ = gradients.at(
        predict, tf.zeros((3, 2)), lambda outputs: 1.5 * size * outputs[:, 1]
    )
    np.testing.assert_array_equal(found, [[-3 * size, 0.375 * size]] * 3)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf, 1e-40])
def test_what_has_no_size_stays_what_it_is(slope):
    found, *_ = gradients.at(
        tf.identity, tf.zeros((1, 2)), lambda outputs: slope * outputs[:, 0]
    )
    np.testing.assert_allclose(found, [[slope, 0]], atol=1e-38)


def test_without_a_gradient_it_says_so():
    for predict in (tf.stop_gradient, tf.ones_like):
        with pytest.raises(base_losses.NoGradientError, match="must depend"):
            gradients.at(predict, tf.zeros((1, 2)), lambda y: y[:, 0])


@pytest.mark.parametrize(
    "attack",
    [
        PGD(LINF, num_steps=10),
        PGD(LINF, num_steps=10, loss=DLR()),
        FGSM(LINF),
        SGLD(TWO, 0.1, noise_scale=0.01),
        APGD(TWO, num_steps=10),
        APGDT(LINF, num_steps=10, targets=2),
        FAB(LINF, num_steps=10, targets=2),
        FAB(TWO, num_steps=10, targets=None),
        DeepFool(TWO, num_steps=10),
        CarliniWagner(TWO, 30, 3, 0.1, initial_weight=0.1),
        AutoAttack(LINF, [APGD(LINF, num_steps=10)], verbose=0),
    ],
    ids=repr,
)
def test_float16_is_fooled_as_float32_is(attack, images, network):
    left = []
    for dtype in ("float32", "mixed_float16"):
        model = network(dtype)
        x_adv = attack(model, *images, seed=0)
        left.append(np.sum(right(model, x_adv, images[1])))
    assert left[0] < np.sum(right(model, *images)) - 10
    # Of 100 images; how float16 is rounded is the processor's.
    assert abs(left[0] - left[1]) <= 5


@pytest.mark.parametrize(
    "attack",
    [
        SGLD(TWO, 0.05, noise_scale=0.0),
        CarliniWagner(TWO, 20, 2, 0.1, initial_weight=0.1),
        FAB(TWO, num_steps=5, targets=1),
        DeepFool(LINF, num_steps=5),
    ],
    ids=repr,
)
def test_attacks_know_no_units(attack, images, network):
    """In 0..256, a power of two, the numbers are the same but for it."""
    norm = attack.threat_model
    settings = attack.get_config()
    settings["threat_model"] = type(norm)(256 * norm.epsilon, (0, 256))
    if isinstance(attack, SGLD):
        settings["step_size"] *= 256
    other = type(attack)(**settings)
    x, y = images
    expected = attack(network(), x, y, seed=0)
    found = other(network(scale=1 / 256), 256 * x, y, seed=0)
    assert np.max(np.abs(expected - x)) > 0.05
    np.testing.assert_allclose(found / 256, expected, atol=1e-4)
