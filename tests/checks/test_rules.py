"""Numbers that nothing can be computed with, by the arguments' own errors."""

import fractions
import re

import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras import attacks
from atent_keras.attacks import noise
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import small_loss
from conftest import small_network

PGD = attacks.PGD(Linf(0.1), 0.05, 2)
NUMBERS = {
    "step_size": lambda v: attacks.PGD(Linf(0.1), v),
    "gamma": lambda v: attacks.SGLD(L2(0.1), 0.1, gamma=v),
    "noise_scale": lambda v: attacks.SGLD(L2(0.1), 0.1, noise_scale=v),
    "p_init": lambda v: attacks.Square(Linf(0.1), p_init=v),
    "overshoot": lambda v: attacks.DeepFool(L2(0.1), overshoot=v),
    "learning_rate": lambda v: attacks.CarliniWagner(L2(1), learning_rate=v),
    "alpha": lambda v: small_loss(alpha=v),
    "beta": lambda v: ak.TRADESLoss(PGD, beta=v),
    "gamma of weights": lambda v: ak.AdversarialWeightPerturbation(
        ak.MARTLoss(PGD), v
    ),
    "epsilon": lambda v: ak.ATENTRegularizedLoss.from_preset(
        "mnist_l2", epsilon=v
    ),
    "sigma": lambda v: ak.SmoothedClassifier(np.argmax, v),
    "confidence": lambda v: ak.evaluate_robustness(
        np.argmax, [], {"PGD": PGD}, confidence=v
    ),
}
COUNTS = {
    "num_steps": lambda v: attacks.SGLD(Linf(0.1), 0.1, v),
    "restarts": lambda v: attacks.PGD(Linf(0.1), restarts=v),
    "num_queries": lambda v: attacks.Square(Linf(0.1), v),
    "loss_iterates": lambda v: small_loss(loss_iterates=v),
    "warmup_steps": lambda v: ak.AdversarialWeightPerturbation(
        ak.MARTLoss(PGD), 0.1, v
    ),
    "batch_size": lambda v: ak.SmoothedClassifier(np.argmax, 1, batch_size=v),
    "num_images": lambda v: ak.MaskingChecks(v),
}
SEEDS = {
    "evaluation": lambda v: ak.evaluate_robustness(
        np.argmax, [], {"PGD": PGD}, v
    ),
    "callback": lambda v: ak.callbacks.RobustAccuracy([], seed=v),
    "attack": noise.as_seed,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_beyond_what_is_computed_with(name):
    rule = f"`{name.split()[0]}` .*must.* Received: {name.split()[0]}="
    for value in (10**400, -(10**400), fractions.Fraction(10**400), 1e300):
        with pytest.raises(ValueError, match=rule + re.escape(repr(value))):
            NUMBERS[name](value)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_beyond_32_bits(name):
    for value in (10**400, 2**31, -(10**400)):
        rule = f"`{name}` must be .*integer.* Received: {name}={value}$"
        with pytest.raises(ValueError, match=rule):
            COUNTS[name](value)


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_beyond_64_bits(name):
    for value in (10**400, 2**63, -(2**63) - 1):
        rule = f"`seed` must be .*integer.* 64 bits. Received: seed={value}$"
        with pytest.raises(TypeError, match=rule):
            SEEDS[name](value)


def test_places_are_integers_of_32_bits():
    x = tf.zeros((2, 3))
    np.testing.assert_array_equal(
        noise.places(x, 2**31 - 2), 2**31 - np.array([2, 1])
    )
    for first in (10**400, 2**31, -1, 1.5, 1e300, [0, -1], "one"):
        with pytest.raises(ValueError, match="`first` must be an integer, or"):
            noise.places(x, first)


def test_samples_beyond_32_bits():
    smoothed = ak.SmoothedClassifier(small_network(), 0.1)
    x = np.zeros((1, 8, 8, 1), "float32")
    for ask in (smoothed.predict, smoothed.certify, smoothed.count):
        with pytest.raises(ValueError, match="`num_samples` must be an integ"):
            ask(x, 10**400)


def test_the_loss_of_a_large_radius_is_finite():
    for norm in (Linf(1e18), L2(1e18)):
        loss = small_loss(norm, loss=cross_entropy())
        x = np.random.default_rng(0).random((4, 8, 8, 1)).astype("float32")
        step = loss.value_and_gradients(small_network(), x, np.arange(4))
        assert np.isfinite(step.loss) and np.isfinite(step.x_adv).all()
