"""Attacks in rounds on a single logit, which is the pair `(0, z)`."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras.attacks import APGD
from atent_keras.attacks import APGDT
from atent_keras.attacks import DLR
from atent_keras.attacks import FAB
from atent_keras.attacks import PGD
from atent_keras.attacks import AutoAttack
from atent_keras.attacks import CarliniWagner
from atent_keras.attacks import DeepFool
from atent_keras.attacks import Square
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats

WEIGHTS = np.random.default_rng(1).normal(size=16).astype("float32")


def logit(x):
    return tf.linalg.matvec(tf.reshape(x - 0.5, [-1, 16]), WEIGHTS)[:, None]


def pair(x):
    return tf.concat([tf.zeros_like(logit(x)), logit(x)], axis=1)


# These run many times, a few steps each: compiling them would take longer.
logit.run_eagerly = pair.run_eagerly = True


def model(loss=None, activation=None):
    inputs = keras.Input((4, 4, 1))
    layer = keras.layers.Dense(1, activation=activation)
    network = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)))
    layer.set_weights([WEIGHTS[:, None], -WEIGHTS.sum(keepdims=True) / 2])
    network.compile(loss=loss, run_eagerly=True)
    return network


@pytest.fixture(scope="module")
def data():
    """Images well inside the box, and labels of which one of 20 is wrong."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.4, 0.6, size=(60, 4, 4, 1)).astype("float32")
    y = (logit(x)[:, 0].numpy() > 0).astype(int)
    y[::20] = 1 - y[::20]
    return x, y


def attacks(norm):
    return [
        APGD(norm, 10),
        APGD(norm, 10, loss=DLR()),
        APGDT(norm, 10, targets=1),
        FAB(norm, 10, targets=1),
        FAB(norm, 10, targets=None),
        Square(norm, 60),
        DeepFool(norm),
        PGD(norm, num_steps=5, loss=DLR()),
    ] + ([CarliniWagner(norm, 20, 2)] if isinstance(norm, L2) else [])


@pytest.mark.parametrize("norm", [Linf(0.02), L2(0.1)], ids=repr)
def test_a_single_logit_is_attacked_as_its_pair(norm, data):
    x, y = data
    fooled = 0
    for attack in attacks(norm):
        alone = attack(logit, x, y, seed=0)
        np.testing.assert_allclose(
            alone, attack(pair, x, y, seed=0), atol=2e-6, err_msg=repr(attack)
        )
        if attack.loss is None and not isinstance(attack, APGD):
            signed = attack(logit, x, 2 * y[:, None] - 1, seed=0)
            assert_repeats(signed, alone)
        fooled += np.sum((logit(alone)[:, 0].numpy() > 0) != y) > 3
    assert fooled == len(attacks(norm))


@pytest.mark.parametrize("norm", [Linf, L2])
def test_autoattack_on_a_single_logit_in_closed_form(norm, data):
    """Robust where the lead is more than the radius times the dual norm."""
    x, y = data
    dual = np.linalg.norm(WEIGHTS, 1 if norm is Linf else 2)
    distance = (2 * y - 1) * logit(x)[:, 0].numpy() / dual
    middle = np.sort(distance[distance > 0])[28:30]
    radius = float(middle.mean())
    assert radius < 0.4 and middle[1] - middle[0] > 1e-6
    threat_model = norm(radius)
    attack = AutoAttack(
        threat_model,
        [APGD(threat_model, 40), FAB(threat_model, 10, 1)],
        verbose=0,
    )
    hinge, binary = (
        model(loss)
        for loss in ("hinge", keras.losses.BinaryCrossentropy(from_logits=True))
    )
    for network, labels in (
        (lambda x: logit(x), y),
        (binary, y[:, None]),
        (hinge, 2 * y - 1),
    ):
        result = attack.evaluate(network, x, labels, seed=0)
        right = (logit(result.x_adv)[:, 0].numpy() > 0) == y
        np.testing.assert_array_equal(right, distance > radius)
        clean, *_, last = (stage.accuracy for stage in result.stages)
        assert (clean, last) == (0.95, np.mean(distance > radius))


@pytest.mark.parametrize(
    "network, labels, message",
    [
        (
            lambda: model("mse"),
            [0, 1],
            r"`logits = lambda x: model\(x\) - 0.5`",
        ),
        (lambda: model("hinge", "sigmoid"), [0, 1], "are probabilities"),
        (lambda: model("binary_crossentropy"), [0, 1], "are logits. Use a"),
        (lambda: logit, [0, 2], "be -1 and 1, or lie in 0..1.* from 0 to 2"),
        (lambda: logit, [[0, 1], [1, 0]], "Labels must have shape"),
    ],
    ids=["distance", "sigmoid", "contradiction", "labels", "one-hot"],
)
def test_what_is_no_logit_is_refused(network, labels, message, data):
    x, network = data[0][:2], network()
    norm = Linf(0.1)
    for attack in (
        AutoAttack(norm, verbose=0),
        AutoAttack(norm, [APGD(norm)], verbose=0),
        Square(norm),
    ):
        with pytest.raises(ValueError, match=message):
            attack(network, x, np.array(labels))


def test_the_only_wrong_class_is_one_target(data):
    with pytest.warns(UserWarning, match="tries all 1 .* of 2 classes"):
        APGDT(Linf(0.01), 2)(logit, *data, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        APGDT(Linf(0.01), 2, targets=1)(logit, *data, seed=0)
