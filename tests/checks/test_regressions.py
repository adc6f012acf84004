"""What a network without classes may be asked, and what it may not."""

import re

import keras
import numpy as np
import pytest

import atent_keras as ak
from atent_keras.attacks import APGD
from atent_keras.attacks import FAB
from atent_keras.attacks import PGD
from atent_keras.attacks import AutoAttack
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from evaluations import evaluate

BALL = Linf(0.1)
RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.8, (24, 6)).astype("float32")
NUMBERS = {
    "one in 0..1": RNG.uniform(size=24),
    "one": 3 * RNG.normal(size=(24, 1)),
    "whole": np.arange(-12.0, 12),
    "three in 0..1": RNG.uniform(size=(24, 3)),
    "three": RNG.normal(size=(24, 3)),
}
ROWS = np.eye(3)[np.arange(24) % 3]
CLASSES = {
    "binary": np.arange(24) % 2,
    "one-hot": ROWS,
    "signed": 2 * ROWS - 1,
    "smoothed": 0.9 * ROWS + 0.1 / 3,
    "sparse": np.arange(24) % 3,
}


def model(y, name, loss="mse"):
    several = y.ndim == 2 and y.shape[1] == 3 or name == "sparse"
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(3 if several else 1)(inputs)
    found = ak.RobustModel(inputs, outputs)
    found.compile("sgd", ak.AdversarialLoss(loss, PGD(BALL, num_steps=3)))
    return found


@pytest.mark.parametrize("name", NUMBERS)
def test_there_is_no_accuracy_of_a_regression(name):
    y = NUMBERS[name]
    network = model(y, name, "mae" if name == "three" else "mse")
    message = (
        "name classes, .* Received: numbers from .* regression .*`PGD` or "
        "`FGSM`.*`perturb`"
    )
    with pytest.raises(ValueError, match=message):
        evaluate(network, (X, y), {"PGD": PGD(BALL)})
    with pytest.raises(ValueError, match=message):
        ak.certify_robustness(
            ak.SmoothedClassifier(network, 0.1), (X, y), verbose=0
        )
    callback = ak.callbacks.RobustAccuracy((X, y))
    with pytest.raises(ValueError, match=message):
        network.fit(X, y, verbose=0, callbacks=[callback])
    several = AutoAttack(BALL, [PGD(BALL)], verbose=0)
    with pytest.raises(ValueError, match=message):
        several.evaluate(network, X, y)
    for attack in (APGD(BALL), FAB(BALL, num_steps=2)):
        with pytest.raises(ValueError, match=message):
            attack(network, X, y)


@pytest.mark.parametrize(
    "name, restarts", [*((name, 1) for name in NUMBERS), ("one", 3)]
)
def test_attacks_climb_the_distance_itself(name, restarts):
    """Of a linear network the farthest corner of the ball is known."""
    y = NUMBERS[name]
    network = model(y, name)
    attack = PGD(BALL, num_steps=10, restarts=restarts)
    found = attack(network, X, y, seed=0)
    named = PGD(BALL, num_steps=10, restarts=restarts, loss="mse")
    assert_repeats(named(network, X, y, seed=0), found)
    if restarts == 1:
        assert_repeats(
            network.perturb(X, y, seed=0),
            PGD(BALL, num_steps=3, loss="mse")(network, X, y, seed=0),
        )
    clean = network.evaluate(X, y, verbose=0)
    if network.output_shape[-1] == 1:
        weights, bias = (np.asarray(part) for part in network.get_weights())
        errors = (X @ weights + bias)[:, 0] - y.reshape(-1)
        farthest = np.abs(errors) + 0.1 * np.abs(weights).sum()
        reached = np.asarray(network(found))[:, 0] - y.reshape(-1)
        far = np.abs(errors) > 0.1 * np.abs(weights).sum()
        assert far.any()
        np.testing.assert_allclose(
            np.abs(reached)[far], farthest[far], rtol=1e-4
        )
    assert network.evaluate(found, y, verbose=0) > clean


@pytest.mark.parametrize("name", CLASSES)
def test_a_distance_may_be_one_of_classes(name):
    y = CLASSES[name]
    network = model(y, name)
    report = evaluate(network, (X, y), {"PGD": PGD(BALL, num_steps=3)})
    outputs = np.asarray(network(X))
    if name == "binary":
        right = (outputs[:, 0] > 0.5) == y
    else:
        labels = y if y.ndim == 1 else y.argmax(axis=1)
        right = outputs.argmax(axis=1) == labels
    assert report.clean_accuracy == right.mean()


@pytest.mark.parametrize("kind", ["function", "not compiled", "own loss"])
def test_numbers_are_no_classes_whatever_the_loss(kind):
    """Nobody said that they are: the message is not about a stand-in."""
    y = NUMBERS["one"]
    network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    if kind == "own loss":
        network.compile(loss=lambda y, z: keras.ops.mean((y - z) ** 2, axis=-1))
    called = network.__call__ if kind == "function" else network
    for attack in (PGD(BALL, num_steps=2), FAB(BALL, num_steps=2)):
        with pytest.raises(ValueError, match="Labels must name classes"):
            evaluate(called, (X, y), {"it": attack})


@pytest.mark.parametrize("loss", ["mse", "kl_divergence"])
@pytest.mark.parametrize(
    "units, shape, asked",
    [(3, (24,), "(batch, 3)"), (3, (24, 1), "(batch, 3)")]
    + [(3, (24, 2), "(batch, 3)"), (1, (24, 3), "(batch,)")],
)
def test_a_distance_wants_labels_like_the_outputs(loss, units, shape, asked):
    """TensorFlow would stretch some of them to the outputs' shape."""
    inputs = keras.Input((6,))
    network = ak.RobustModel(inputs, keras.layers.Dense(units)(inputs))
    attack = PGD(BALL, num_steps=2, loss=loss)
    network.compile("sgd", ak.AdversarialLoss(loss, attack))
    y = RNG.uniform(size=shape)
    message = re.escape(f"expects labels of shape {asked} for a network with ")
    message += f"{units} output.*labels of shape {re.escape(str(shape))}"
    for call in (network.fit, lambda x, y: attack(network, x, y)):
        with pytest.raises(ValueError, match=message):
            call(X, y)


def test_sparse_labels_are_whole():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network = model(CLASSES["sparse"], "sparse", loss)
    y = CLASSES["sparse"] / 2
    message = "labels that are whole numbers. Received: labels from 0.0 to 1.0"
    for call in (network.fit, network.perturb):
        with pytest.raises(ValueError, match=message):
            call(X, y)
    network.evaluate(X, 2 * y, verbose=0)
