import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import rivals
from conftest import assert_repeats
from conftest import cross_entropy
from conftest import largest_difference
from rivals import adversarial
from rivals import atent
from rivals import awp
from rivals import fast
from rivals import mart
from rivals import trades

INNER = [atent, adversarial, fast, trades, mart]


def steps(loss, network, count=2):
    """What a loss says of a network, and what it leaves of its state."""
    found = []
    for _ in range(count):
        step = loss.value_and_gradients(network, *rivals.data(1), seed=1)
        found += [step.loss, *step.gradients, step.x_adv, step.y_pred]
    return found + [np.asarray(v) for v in network.non_trainable_variables]


def network(like=None):
    normalize = keras.layers.BatchNormalization()
    network = rivals.network(normalize, keras.layers.Dropout(0.5, seed=1))
    if like is not None:
        network.set_weights(like.get_weights())
    return network


@pytest.mark.parametrize("inner", INNER)
def test_without_gamma_it_is_its_loss(inner):
    one = network()
    other = network(one)
    assert_repeats(steps(awp(inner(), 0.0), other), steps(inner(), one))


@pytest.mark.parametrize("inner", [atent, trades])
def test_warming_up_it_trains_as_its_loss_does(inner):
    def weights(loss, steps):
        with rivals.exactly():
            model = rivals.model_of(loss(), run_eagerly=True)
            rivals.fit(model, steps)
        return model.get_weights()

    def warm():
        return awp(inner(), 0.1, warmup_steps=3)

    assert largest_difference(weights(inner, 3), weights(warm, 3)) < 1e-9
    assert largest_difference(weights(inner, 4), weights(warm, 4)) > 1e-4


def test_without_an_optimizer_there_is_no_warm_up():
    one = network()
    other = network(one)
    cold = steps(awp(trades(), 0.1), one, 1)
    warm = steps(awp(trades(), 0.1, warmup_steps=3), other, 1)
    assert_repeats(warm, cold)


def test_loss_and_gradients_are_those_at_the_worse_weights():
    """The formula by hand; penalties do not choose the direction."""
    gamma = 0.05
    with rivals.exactly():
        x, y = rivals.data(1)
        plain = rivals.network(penalized=True)
        weight = np.linspace(0, 2, len(x))
        before = plain.get_weights()
        loss = awp(adversarial(), gamma)
        step = loss.value_and_gradients(plain, x, y, weight)
        with tf.GradientTape() as tape:
            proxy = cross_entropy()(y, plain(step.x_adv), weight)
        gradients = tape.gradient(proxy, plain.trainable_variables)
        for variable, gradient in zip(plain.trainable_variables, gradients):
            if len(variable.shape) > 1:
                length = gamma * np.linalg.norm(variable)
                length /= np.linalg.norm(gradient)
                variable.assign(variable + length * gradient)
        with tf.GradientTape() as tape:
            expected = cross_entropy()(y, plain(step.x_adv), weight)
            expected += sum(plain.losses)
        gradients = tape.gradient(expected, plain.trainable_variables)
        np.testing.assert_allclose(step.loss, expected, rtol=1e-9)
        assert largest_difference(step.gradients, gradients) < 1e-9
        # The points are those of the weights as they were.
        plain.set_weights(before)
        points = adversarial().value_and_gradients(plain, x, y).x_adv
        assert_repeats(points, step.x_adv)


def test_frozen_unused_and_zero_weights():
    inputs = keras.Input((6,))
    frozen = keras.layers.Dense(5, trainable=False)
    zero = keras.layers.Dense(3, kernel_initializer="zeros")
    plain = keras.Model(inputs, zero(frozen(inputs)))
    step = awp(trades()).value_and_gradients(plain, *rivals.data(1))
    assert [g.shape for g in step.gradients] == [(5, 3), (3,)]
    assert all(np.isfinite(g).all() for g in step.gradients)

    class Unused(keras.Model):
        def __init__(self):
            super().__init__()
            self.idle = keras.layers.Dense(3)
            self.idle.build((None, 2))

        def call(self, x):
            return plain(x)

    step = awp(trades()).value_and_gradients(Unused(), *rivals.data(1))
    assert [g is None for g in step.gradients].count(True) == 2


def test_a_network_without_kernels_is_refused():
    inputs = keras.Input((3,))
    normalize = keras.layers.BatchNormalization()
    plain = keras.Model(inputs, normalize(inputs))
    x, y = rivals.data(1)
    with pytest.raises(ValueError, match=r"two or more .* Received: .*\(3,\)"):
        awp(trades()).value_and_gradients(plain, x[:, :3], y)


@pytest.mark.parametrize("gamma", [-0.01, np.nan, np.inf, "0.01", None, True])
def test_gamma_must_be_in_range(gamma):
    with pytest.raises(ValueError, match="`gamma` must be .* Received: gamma="):
        awp(trades(), gamma)


@pytest.mark.parametrize("count", [-1, 1.5, None, True])
def test_warmup_steps_must_be_a_count(count):
    with pytest.raises(ValueError, match="`warmup_steps` must be .* Received"):
        awp(trades(), warmup_steps=count)


def test_it_is_around_another_robust_loss():
    for loss in (awp(trades()), cross_entropy(), "mse", None):
        with pytest.raises(TypeError, match="another robust loss.* Received"):
            ak.AdversarialWeightPerturbation(loss, 0.01)


def test_its_settings_are_those_of_its_loss():
    inner = mart(reduction="sum", radius_schedule=rivals.ramp())
    loss = awp(inner, 0.02, warmup_steps=7)
    assert loss.reduction == "sum" and loss.attack == inner.attack
    assert loss.threat_model == inner.threat_model
    assert loss.radius_schedule is inner.radius_schedule
    for name in ("loss", "gamma", "warmup_steps", "attack"):
        with pytest.raises(AttributeError):
            setattr(loss, name, None)
