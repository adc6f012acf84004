import numpy as np
import pytest
import tensorflow as tf

from atent_keras import presets
from atent_keras.attacks import gradients


def chain(sampler, network, x, noise):
    """The points of a chain, with the noise given, in float64."""

    def gradient(x_adv, state):
        found, *_ = gradients.at(
            network, x_adv, lambda logits: tf.reduce_logsumexp(logits, axis=1)
        )
        return found, state

    return sampler.climb(x, sampler.start(x, noise), gradient, noise)[0]


@pytest.mark.parametrize("drift", ["steepest", "gradient"])
@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_chain_is_the_same_in_other_units(name, drift):
    lower, upper = bounds = (-64.0, 192.0)
    rng = np.random.default_rng(0)
    weights = tf.constant(rng.normal(size=(20, 4)))
    x = tf.constant(rng.uniform(size=(3, 20)))
    draws = tf.constant(rng.normal(size=(100, *x.shape)))

    def network(x):
        return tf.matmul(tf.tanh(x), weights)

    def rescaled(x):
        return network((x - lower) / (upper - lower))

    settings = {"drift": drift}
    if drift == "gradient":
        settings["gamma"] = 0.5
    one = presets.sampler(name, **settings)
    if drift == "gradient":  # an override is in the bounds' units
        settings["gamma"] /= (upper - lower) ** 2
    other = presets.sampler(name, bounds=bounds, **settings)
    expected = chain(one, network, x, lambda k: tf.gather(draws, k))
    found = chain(
        other,
        rescaled,
        lower + (upper - lower) * x,
        lambda k: tf.gather(draws, k),
    )
    assert np.max(np.abs(expected - x)) > 0.02
    np.testing.assert_allclose(
        (found - lower) / (upper - lower), expected, rtol=0, atol=1e-9
    )


def test_settings_in_0_to_255_by_hand():
    linf = presets.sampler("mnist_linf", bounds=(0, 255))
    assert linf.threat_model.epsilon == pytest.approx(0.3 * 255)
    assert linf.step_size == pytest.approx(0.01 * 255)
    assert linf.noise_scale == pytest.approx(1e-4 * 255**0.5)
    two = presets.sampler("mnist_l2", bounds=(0, 255), epsilon=255.0)
    assert two.threat_model.epsilon == 255.0
    assert two.step_size == pytest.approx(2.5 * 255 / 40)
    assert two.gamma == 0.05  # which multiplies a way, without the step
    paper = presets.sampler("mnist_l2", bounds=(0, 255), drift="gradient")
    assert paper.step_size == pytest.approx(2.5 * 2.0 / 40 * 255**2)
    assert paper.noise_scale == 1e-2
    assert paper.gamma == pytest.approx(0.05 / 255**2)
    given = presets.sampler("mnist_l2", bounds=(0, 255), step_size=3.0)
    assert given.step_size == 3.0


def test_bounds_are_checked():
    with pytest.raises(ValueError, match="`bounds` must be .* Received"):
        presets.sampler("mnist_linf", bounds=(1, 0))
