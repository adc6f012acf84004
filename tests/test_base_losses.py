import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras import base_losses
from atent_keras.attacks import APGD
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

FUNCTIONS = (
    "mse",
    "hinge",
    "squared_hinge",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    lambda y, y_pred: tf.reduce_mean((y - y_pred) ** 2, axis=-1),
)


@pytest.mark.parametrize("loss", FUNCTIONS)
def test_each_example_has_its_own_loss_as_in_keras(loss):
    """Labels (batch,) and outputs (batch, 1) are not all against all."""
    y, y_pred = tf.constant([0, 1, 1]), tf.constant([[0.2], [0.7], [0.4]])
    found = base_losses.per_example(base_losses.get(loss), y, y_pred)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    model.compile(loss=loss)
    for i in range(3):
        expected = model.test_on_batch(y_pred[i : i + 1], y[i : i + 1])
        np.testing.assert_allclose(found[i], expected, rtol=1e-5)
    column = base_losses.per_example(base_losses.get(loss), y[:, None], y_pred)
    np.testing.assert_array_equal(found, column)
    flat = base_losses.per_example(
        base_losses.get("mse"), y[:, None], y_pred[:, 0]
    )
    np.testing.assert_allclose(flat, [0.04, 0.09, 0.36], rtol=1e-5)


def points(count=60):
    """Points in the unit square, and which of the corners is nearer."""
    x = np.random.default_rng(0).random((count, 2)).astype("float32")
    return x, (x.sum(axis=1) > 1).astype(int)


def network(units=2, **settings):
    """Gives 4 (x_1 + x_2 - 1), with two outputs half of it, up and down."""
    inputs = keras.Input((2,))
    layer = keras.layers.Dense(units, name="out", **settings)
    model = keras.Model(inputs, layer(inputs))
    column = np.full((2, 1), 4.0)
    if units == 2:
        column = np.concatenate([-column, column], axis=1) / 2
    layer.set_weights([column, -column[0]])
    return model


@pytest.mark.parametrize(
    "container",
    [list, tuple, lambda losses: dict(zip(["out"], losses))],
    ids=["list", "tuple", "dict"],
)
def test_a_single_loss_may_be_in_a_container(container):
    x, y = points()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = network()
    model.compile(loss=container([loss]))
    assert base_losses.of_model(model, tf.constant(y)) is loss
    report = ak.evaluate_robustness(
        model, (x, y), {"FGSM": FGSM(Linf(0.1))}, checks=None, verbose=0
    )
    robust = np.abs(x.sum(axis=1) - 1) > 0.2
    assert report.robust_accuracy["FGSM"] == np.mean(robust)


def test_several_losses_are_refused():
    model = network()
    model.loss = ["mse", "mse"]
    with pytest.raises(ValueError, match="single loss. Received: loss=.*mse"):
        FGSM(Linf(0.1))(model, *points())


@pytest.mark.parametrize("attack", [FGSM, PGD, APGD])
@pytest.mark.parametrize("activation", [None, "softmax"])
def test_attacks_climb_no_distance(attack, activation):
    """Squared errors rise far on the right side, too."""
    if attack is APGD and activation:
        pytest.skip("needs logits")
    x, y = points()
    one_hot = keras.utils.to_categorical(y, 2)
    model = network(activation=activation)
    model.compile(loss="mse")
    norm = L2(0.2)

    def lead(y, y_pred):
        return tf.reduce_sum((1 - 2 * y) * y_pred, axis=-1)

    np.testing.assert_array_equal(
        attack(norm)(model, x, one_hot, seed=0),
        attack(norm, loss=lead)(model, x, one_hot, seed=0),
    )
    if activation is None:
        attacks = {"default": attack(norm), "mse": attack(norm, loss="mse")}
        left = ak.evaluate_robustness(
            model, (x, one_hot), attacks, checks=None, verbose=0
        ).robust_accuracy
        robust = np.abs(x.sum(axis=1) - 1) / np.sqrt(2) > 0.2
        # But for a point on the edge.
        assert np.abs(left["default"] - np.mean(robust)) <= 1 / len(x)
        assert left["mse"] > np.mean(robust) + 1 / len(x)


def test_attacks_are_not_stopped_by_a_hinge():
    """It is flat where the lead is above 1, here 0.25 from the boundary."""
    x, y = points()
    model = network(units=1)
    model.compile(loss="hinge")
    attacks = {"it": FGSM(Linf(0.5)), "hinge": FGSM(Linf(0.5), loss="hinge")}
    for labels in (y, 2 * y - 1):
        left = ak.evaluate_robustness(
            model, (x, labels), attacks, checks=None, verbose=0
        ).robust_accuracy
        sure = np.abs(x.sum(axis=1) - 1) > 0.25
        assert left["it"] == 0 and left["hinge"] == np.mean(sure) > 0.3


@pytest.mark.parametrize("attack", [FGSM, PGD, APGD])
def test_an_uncompiled_single_output_is_a_logit(attack):
    """Cross-entropy of two classes is what it would be compiled with."""
    x, y = points(20)
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    model = network(units=1)

    def function(x):
        return model(x)

    expected = attack(Linf(0.1), loss=binary)(model, x, y, seed=0)
    for labels in (y, y[:, None]):
        for one in (model, function):
            found = attack(Linf(0.1))(one, x, labels, seed=0)
            np.testing.assert_array_equal(found, expected)
    report = ak.evaluate_robustness(
        function, (x, y), {"it": attack(Linf(0.1))}, checks=None, verbose=0
    )
    robust = np.abs(x.sum(axis=1) - 1) > 0.2
    assert report.robust_accuracy["it"] == np.mean(robust)
    with pytest.raises(ValueError, match="Labels .* 0..1.* to 2"):
        attack(Linf(0.1))(model, x, y + 1)


def test_langevin_chains_sample_the_loss_of_training():
    x, y = points(8)
    model = network(units=1)
    model.compile(loss="mse")
    settings = {"step_size": 0.1, "num_steps": 3}
    np.testing.assert_array_equal(
        ak.attacks.SGLD(L2(0.2), **settings)(model, x, y, seed=0),
        ak.attacks.SGLD(L2(0.2), loss="mse", **settings)(model, x, y, seed=0),
    )


@pytest.mark.parametrize(
    "loss", [keras.losses.SparseCategoricalCrossentropy(from_logits=True), None]
)
def test_boolean_labels(loss):
    """One-hot or of a single output, they are 0 and 1."""
    x, y = points()
    model = network(units=2 if loss else 1)
    if loss is None:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        labels = (y, y == 1)
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        one_hot = keras.utils.to_categorical(y, 2)
        labels = (one_hot, one_hot == 1)
    model.compile(loss=loss)
    number, boolean = (
        ak.evaluate_robustness(
            model, (x, one), {"FGSM": FGSM(Linf(0.1))}, checks=None, verbose=0
        )
        for one in labels
    )
    assert number.robust_accuracy == boolean.robust_accuracy
    np.testing.assert_array_equal(boolean.correct, True)
