"""What is refused says what to do, and that can be done."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import APGD
from atent_keras.attacks import DLR
from atent_keras.attacks import PGD
from atent_keras.attacks import AutoAttack
from atent_keras.threat_models import Linf
from conftest import assert_repeats

NORM = Linf(0.1)
layers = keras.layers


def dense(end, classes=3):
    inputs = keras.Input((4,))
    last = layers.Dense(classes, activation=end)
    return keras.Model(inputs, last(layers.Dense(5, "relu")(inputs)))


def sequential(*end):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), *end])


def subclassed():
    plain = dense("softmax")
    return ak.ATENTModel(plain.inputs, plain.outputs)


def compiled(activation, units, kind):
    """As whoever trained it left it: its loss takes probabilities."""
    model = dense(activation, units)
    model.compile(loss=f"{kind}crossentropy")
    return model


NETWORKS = {
    "Dense": lambda: dense("softmax"),
    "Dense, sigmoid": lambda: dense("sigmoid", 1),
    "Softmax": lambda: sequential(layers.Softmax()),
    "Activation": lambda: sequential(
        layers.Activation("softmax", dtype="float32")
    ),
    "ATENTModel": subclassed,
    "compiled": lambda: compiled("softmax", 3, "sparse_categorical_"),
    "compiled, sigmoid": lambda: compiled("sigmoid", 1, "binary_"),
}


@pytest.fixture
def data():
    x = np.random.default_rng(0).uniform(size=(12, 4)).astype("float32")
    return x, np.arange(12) % 2


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_line_in_the_error_gives_the_logits(kind, data):
    x, y = data
    model = NETWORKS[kind]()
    before = model(x).numpy()
    said = []
    attacks = [AutoAttack(NORM, verbose=0), PGD(NORM), PGD(NORM, loss=DLR())]
    if model.compiled:  # whose own loss, of probabilities, PGD takes
        attacks.remove(PGD(NORM))
    for attack in attacks:
        with pytest.raises(ValueError, match="expects logits.* probab") as info:
            attack(model, x, y)
        said.append(str(info.value))
    # There is no loss of probabilities where no loss can be chosen.
    losses = [
        "BinaryCrossentropy()" in s or "from_logits=False" in s for s in said
    ]
    assert losses == [attack == PGD(NORM) for attack in attacks]
    lines = {re.findall("`(logits = .*?)`", one)[0] for one in said}
    assert len(lines) == 1
    names = {"keras": keras, "model": model}
    exec(lines.pop(), names)
    logits = names["logits"]
    np.testing.assert_array_equal(model(x), before)
    found = logits(x).numpy()
    squashed = tf.sigmoid(found) if kind.endswith("sigmoid") else None
    squashed = tf.nn.softmax(found) if squashed is None else squashed
    np.testing.assert_allclose(squashed, before, rtol=1e-5)
    assert found.min() < 0
    APGD(NORM, 2)(logits, x, y)
    report = ak.evaluate_robustness(
        logits, (x, y), {"PGD": PGD(NORM)}, checks=None, verbose=0
    )
    answers = before[:, 0] > 0.5 if found.shape[1] == 1 else before.argmax(1)
    assert report.clean_accuracy == np.mean(answers == y)


class Own(keras.Model):
    """Its last layer is not what it ends in."""

    def __init__(self):
        super().__init__()
        self.last = layers.Dense(3, activation="softmax")
        self.first = layers.Dense(4, activation="sigmoid")

    def call(self, x):
        return self.last(self.first(x))


def test_whose_line_nobody_knows_is_told_in_words(data):
    model = NETWORKS["Dense"]()
    wrapped = keras.Sequential([keras.Input((4,)), model])
    for network in (lambda x: model(x), wrapped, Own()):
        for attack in (AutoAttack(NORM, verbose=0), PGD(NORM, loss=DLR())):
            with pytest.raises(ValueError, match="return what goes into its"):
                attack(network, *data)
    # No loss was chosen for a function, and none can be compiled.
    with pytest.raises(ValueError, match="into its softmax or sigmoid$"):
        PGD(NORM)(lambda x: model(x), *data)


def test_the_other_loss_of_the_error_will_do(data):
    x, y = data
    attack = PGD(NORM, num_steps=2)
    for kind, loss in (
        (
            "Dense",
            keras.losses.SparseCategoricalCrossentropy(from_logits=False),
        ),
        ("Dense, sigmoid", keras.losses.BinaryCrossentropy()),
    ):
        model = NETWORKS[kind]()
        expected = PGD(NORM, num_steps=2, loss=loss)(model, x, y, seed=0)
        model.compile(loss=loss)
        assert_repeats(attack(model, x, y, seed=0), expected)
    single = dense(None, 1)
    categorical = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.raises(
        ValueError, match="single output. Give .*, or use `keras.*Binary"
    ):
        PGD(NORM, loss=categorical)(single, x, y)
    PGD(NORM, num_steps=2, loss=keras.losses.BinaryCrossentropy(True))(
        single, x, y
    )


def test_several_probabilities_at_once_are_none_of_logits(data):
    """Sigmoids do not sum to 1; the compiled loss says that they are."""
    x = data[0]
    y = np.eye(3)[np.arange(12) % 3]
    model = dense("sigmoid")
    model.compile(loss="binary_crossentropy")
    with pytest.raises(ValueError, match="APGD-T expects .* probabilities"):
        ak.attacks.APGDT(NORM, 2)(model, x, y)


@pytest.mark.parametrize("loss", [ak.losses.TRADESLoss, ak.losses.MARTLoss])
def test_a_loss_that_takes_no_other_is_not_told_to(loss, data):
    attack = PGD(NORM, num_steps=2)
    for loss in (
        loss(attack),
        ak.losses.AdversarialWeightPerturbation(loss(attack), 0.01),
    ):
        for classes, words in ((3, r"outputs\[0\]\)`"), (1, "class, too")):
            plain = dense("softmax" if classes > 1 else None, classes)
            model = ak.RobustModel(plain.inputs, plain.outputs)
            model.compile("sgd", loss=loss)
            with pytest.raises(ValueError, match=f"{words}$"):
                model.train_on_batch(*data)
