import numpy as np
import pytest
import tensorflow as tf

from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.attacks.sgld import langevin_step
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

WIDE = {"bounds": (-1e6, 1e6)}


def no_noise(k):
    raise AssertionError(f"noise was drawn for step {k}")


def test_langevin_step_by_hand():
    x_adv = langevin_step(
        np.array([1.0, 2.0]),
        np.array([0.5, -0.5]),
        np.array([1.0, -3.0]),
        0.08,
        0.1,
    )
    # 0.1 * sqrt(2 * 0.08) = 0.04
    np.testing.assert_allclose(x_adv, [1.54, 1.38], rtol=1e-12)


@pytest.mark.parametrize("threat_model", [Linf(9.0, **WIDE), L2(9e9, **WIDE)])
def test_noise_has_the_temperature_that_the_settings_say(threat_model):
    sampler = SGLD(threat_model, 0.01, noise_scale=0.3, projection="none")
    x = tf.zeros((100, 400), tf.float64)
    noise = tf.random.stateless_normal(x.shape, (0, 1), dtype=tf.float64)
    x_adv = sampler.step(x, x, tf.zeros_like(x), 1, lambda k: noise)
    std = 0.3 * np.sqrt(2 * 0.01)
    standard_error = std / np.sqrt(2 * x.shape.num_elements())
    measured = np.std(x_adv)
    assert abs(measured - std) < 4.5 * standard_error
    # The test is sharp enough to notice a lost factor.
    assert abs(measured - 2 / 3 * std) > 4.5 * standard_error
    assert abs(measured - 1.5 * std) > 4.5 * standard_error


@pytest.mark.parametrize("step_size, noise_scale", [(0.1, 1.0), (0.5, 0.3)])
def test_stationary_variance_on_a_quadratic_loss(step_size, noise_scale):
    """The loss -λ/2 x² makes an Ornstein-Uhlenbeck chain of known variance.

    For x ← (1 - hλ) x + s·sqrt(2h)·N(0, 1), the variance v solves
    v = (1 - hλ)² v + 2hs², so v = s² / (λ (1 - hλ/2)).
    """
    rate, chains, burn_in, steps = 1.5, 4000, 200, 100
    sampler = SGLD(
        Linf(1e6, **WIDE),
        step_size,
        num_steps=burn_in + steps,
        noise_scale=noise_scale,
        drift="gradient",
        projection="none",
        random_start=False,
    )
    x = tf.zeros((chains, 1), tf.float64)

    def noise(k):
        return tf.random.stateless_normal(
            x.shape, tf.stack([5, k]), dtype=tf.float64
        )

    @tf.function
    def run():
        def gradient(x_adv, state):
            return -rate * x_adv, state

        x_adv, _ = sampler.climb(
            x, x, gradient, noise, steps=range(1, burn_in + 1)
        )

        def gradient_and_square(x_adv, total):
            return -rate * x_adv, total + tf.reduce_mean(x_adv**2)

        return sampler.climb(
            x,
            x_adv,
            gradient_and_square,
            noise,
            tf.zeros((), tf.float64),
            range(burn_in + 1, burn_in + steps + 1),
        )[1]

    variance = run() / steps
    expected = noise_scale**2 / (rate * (1 - step_size * rate / 2))
    # Draws a step apart correlate by 1 - hλ: count the independent ones.
    memory = abs(1 - step_size * rate)
    effective = chains * steps * (1 - memory**2) / (1 + memory**2)
    assert abs(variance / expected - 1) < 4.5 * np.sqrt(2 / effective)


@pytest.mark.parametrize("threat_model", [Linf(0.1), L2(0.5)])
def test_without_noise_it_steps_like_pgd(threat_model):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.uniform(size=(4, 6, 6, 1)))
    gradient = tf.constant(rng.normal(size=x.shape))
    sgld = SGLD(threat_model, 0.03, noise_scale=0.0)
    pgd = PGD(threat_model, step_size=0.03)
    np.testing.assert_array_equal(
        sgld.step(x, x, gradient, 1, no_noise),
        pgd.step(x, x, gradient, 1, no_noise),
    )


def test_gamma_pulls_towards_the_clean_image():
    x, x_adv = tf.constant([[0.5]]), tf.constant([[0.9]])
    zero = tf.zeros_like(x)
    steepest = SGLD(L2(1.0), 0.1, gamma=0.25, noise_scale=0.0)
    # 0.9 + 0.25 * (0.5 - 0.9): the pull is not multiplied by the step.
    np.testing.assert_allclose(
        steepest.step(x, x_adv, zero, 1, no_noise), [[0.8]]
    )
    for threat_model in (L2(1.0), Linf(1.0)):
        paper = SGLD(
            threat_model, 0.1, gamma=0.25, noise_scale=0.0, drift="gradient"
        )
        # 0.9 + 0.1 * 0.25 * (0.5 - 0.9)
        np.testing.assert_allclose(
            paper.step(x, x_adv, zero, 1, no_noise), [[0.89]], rtol=1e-6
        )


@pytest.mark.parametrize(
    "projection, expected",
    [
        ("every_step", [0.6, 0.6]),
        ("last_step", [0.8, 0.6]),
        ("none", [0.8, 0.8]),
    ],
)
def test_projection(projection, expected):
    sampler = SGLD(
        Linf(0.1), 0.3, num_steps=2, noise_scale=0.0, projection=projection
    )
    x = tf.constant([[0.5]])
    for k, value in zip((1, 2), expected):
        x_adv = sampler.step(x, x, tf.ones_like(x), tf.constant(k), no_noise)
        np.testing.assert_allclose(x_adv, [[value]], rtol=1e-6)


def test_start_is_that_of_the_authors():
    x = tf.fill((2, 3), 0.5)
    noise = tf.constant([[1.0, -2.0, 0.5], [0.1, 0.2, -0.2]])
    start = SGLD(Linf(0.7), 0.1).start(x, lambda k: noise)
    np.testing.assert_allclose(start, 0.5 + 0.7 * np.sign(noise), rtol=1e-6)
    start = SGLD(L2(1.0), 0.1).start(x, lambda k: noise)
    longer = noise[0] / np.linalg.norm(noise[0])  # to the sphere
    np.testing.assert_allclose(start[0], 0.5 + longer, rtol=1e-6)
    np.testing.assert_allclose(start[1], 0.5 + noise[1], rtol=1e-6)
    still = SGLD(L2(1.0), 0.1, random_start=False).start(x, no_noise)
    np.testing.assert_array_equal(still, x)


@pytest.mark.parametrize(
    "setting, value",
    [
        ("step_size", 0),
        ("step_size", -1),
        ("step_size", np.nan),
        ("num_steps", 0),
        ("num_steps", 2.5),
        ("num_steps", True),
        ("gamma", -1),
        ("gamma", np.inf),
        ("noise_scale", -1e-3),
        ("noise_scale", np.nan),
    ],
)
def test_numbers_out_of_range(setting, value):
    settings = {"step_size": 0.1, setting: value}
    with pytest.raises(ValueError, match=f"`{setting}` must be .* Received"):
        SGLD(L2(1.0), **settings)


@pytest.mark.parametrize(
    "setting, valid",
    [
        ("projection", "'last_step', 'none'"),
        ("drift", "'steepest', 'gradient'"),
    ],
)
def test_unknown_names(setting, valid):
    with pytest.raises(ValueError, match=f"{valid}. Received: {setting}='up'"):
        SGLD(L2(1.0), 0.1, **{setting: "up"})


def test_gamma_needs_a_rule_that_knows_it():
    with pytest.raises(ValueError, match="`gamma` must be 0 with Linf"):
        SGLD(Linf(0.1), 0.1, gamma=0.05)


def test_threat_model_must_be_one():
    with pytest.raises(
        TypeError, match="`threat_model` must be .* Received: 0.1"
    ):
        SGLD(0.1, 0.1)
