"""Attacks on data that have no bounds, such as standardized tables."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import APGD
from atent_keras.attacks import APGDT
from atent_keras.attacks import FAB
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.attacks import AutoAttack
from atent_keras.attacks import CarliniWagner
from atent_keras.attacks import DeepFool
from atent_keras.attacks import Square
from atent_keras.attacks import UniformNoise
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

EPSILON = 0.7
WEIGHTS = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
# Far from 0..1, on either side of 0.
X = 30 * np.random.default_rng(1).normal(size=(20, 6)).astype("float32")
Y = (X @ WEIGHTS).argmax(axis=1)
# By what the lead of the true class grows with the point.
NORMAL = (WEIGHTS @ [1, -1])[None] * np.where(Y == 0, 1, -1)[:, None]
LEAD = (X * NORMAL).sum(axis=1)


@pytest.fixture(scope="module")
def network():
    inputs = keras.Input((6,))
    network = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    network.set_weights([WEIGHTS, np.zeros(2)])
    return network


def worst(norm):
    """The point of the ball where the true class leads by least."""
    if norm is Linf:
        return X - EPSILON * np.sign(NORMAL)
    return X - EPSILON * NORMAL / np.linalg.norm(NORMAL, axis=1)[:, None]


def distance(norm):
    """How far the boundary is."""
    return LEAD / np.linalg.norm(NORMAL, 1 if norm is Linf else 2, axis=1)


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize(
    "make",
    [
        FGSM,
        lambda ball: PGD(ball, num_steps=5, random_start=False),
        lambda ball: SGLD(ball, 1.0, noise_scale=0, random_start=False),
    ],
    ids=["FGSM", "PGD", "SGLD"],
)
def test_the_worst_point_of_a_linear_network(make, norm, network):
    attack = make(norm(EPSILON, bounds=None))
    loss = ak.attacks.Margin()
    attack = type(attack).from_config({**attack.get_config(), "loss": loss})
    found = attack(network, X, Y, seed=0)
    np.testing.assert_allclose(found, worst(norm), atol=2e-5)


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize("kind", [FAB, DeepFool])
def test_the_smallest_perturbation_of_a_linear_network(kind, norm, network):
    attack = {
        FAB: lambda ball: FAB(ball, targets=None, num_steps=50),
        DeepFool: lambda ball: DeepFool(ball, overshoot=1e-4),
    }[kind](norm(1e4, bounds=None))
    found = attack(network, X, Y, seed=0)
    length = norm(1.0).norm(tf.constant(found - X))
    np.testing.assert_allclose(length, distance(norm), rtol=6e-3)
    assert np.all(np.asarray(network(found)).argmax(axis=1) != Y)


def test_carlini_wagner_descends_by_the_data_themselves(network):
    attack = CarliniWagner(
        L2(1e4, bounds=None),
        num_steps=200,
        search_steps=4,
        learning_rate=0.3,
        initial_weight=10.0,
    )
    found = attack(network, X, Y)
    assert np.all(np.asarray(network(found)).argmax(axis=1) != Y)
    length = np.linalg.norm(found - X, axis=1)
    assert np.all(length >= distance(L2) * (1 - 1e-3))
    np.testing.assert_allclose(length, distance(L2), rtol=0.1, atol=0.3)


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize(
    "make",
    [
        lambda ball: APGD(ball, num_steps=20),
        lambda ball: APGDT(ball, num_steps=20, targets=1),
        lambda ball: FAB(ball, num_steps=10, targets=1),
        lambda ball: UniformNoise(ball, tries=100),
        lambda ball: AutoAttack(ball, [APGD(ball, 20)], verbose=0),
    ],
    ids=["APGD", "APGDT", "FAB", "UniformNoise", "AutoAttack"],
)
def test_the_ball_is_kept_and_nothing_else(make, norm, network):
    ball = norm(EPSILON, bounds=None)
    found = make(ball)(network, X, Y, seed=0)
    assert np.max(ball.norm(found - X)) <= EPSILON * (1 + 1e-5)
    fooled = np.asarray(network(found)).argmax(axis=1) != Y
    if not isinstance(make(ball), UniformNoise):
        np.testing.assert_array_equal(fooled, distance(norm) < EPSILON)
    assert np.max(np.abs(found)) > 30  # not brought into any box


@pytest.mark.parametrize("norm", [Linf, L2])
def test_square_starts_and_proposes_in_the_ball_alone(norm):
    inputs = keras.Input((6, 6, 1))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    x = 30 * np.random.default_rng(0).normal(size=(4, 6, 6, 1))
    ball = norm(EPSILON, bounds=None)
    found = Square(ball, num_queries=20)(
        keras.Model(inputs, outputs), x, np.zeros(4, int), seed=0
    )
    length = ball.norm(found - x.astype("float32"))
    assert np.max(length) <= EPSILON * (1 + 1e-4)
    assert np.min(length) > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value, network):
    x = np.where(np.arange(6) == 2, value, X)
    with pytest.raises(ValueError, match="must hold finite numbers. Received"):
        PGD(Linf(0.1, bounds=None))(network, x, Y)


def test_probabilities_are_told_from_logits(network):
    inputs = keras.Input((6,))
    squashed = keras.layers.Softmax()(network(inputs))
    attack = PGD(Linf(0.1, bounds=None))
    with pytest.raises(ValueError, match="outputs are probabilities"):
        attack(keras.Model(inputs, squashed), X, Y)
