import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import PGD
from atent_keras.checks.endings import ends_in_probabilities
from atent_keras.threat_models import Linf

# A logit of 0.3 is right where the label is 1, a probability of 0.3 is not.
WEIGHTS = np.array([4.0, -3.0, 2.0, -1.0])
BIAS = -WEIGHTS.sum() / 2
EPSILON = 0.03


def own(y, y_pred):
    """The logistic loss of labels 0 and 1."""
    return tf.reduce_mean(tf.nn.softplus((1 - 2 * y) * y_pred), axis=-1)


class Own(keras.Model):
    """Its layer is linear; what it ends in only its `call` knows."""

    def __init__(self, end):
        super().__init__()
        self.layer, self.end = keras.layers.Dense(1), end

    def call(self, x):
        return self.end(self.layer(x))


def network(kind):
    layers, inputs = keras.layers, keras.Input((4,))
    layer = layers.Dense(1)
    if kind == "linear":
        model = keras.Model(inputs, layer(inputs))
    elif kind == "sigmoid":
        layer = layers.Dense(1, activation="sigmoid")
        model = keras.Sequential([inputs, layer, layers.Activation("linear")])
    elif kind == "tanh":
        model = keras.Sequential([inputs, layer, layers.Activation("tanh")])
    elif kind == "operation":
        model = keras.Model(inputs, keras.ops.sigmoid(layer(inputs)))
    elif kind == "bfloat16":
        layer = layers.Dense(1, dtype="mixed_bfloat16")
        model = keras.Model(inputs, layers.Activation("linear")(layer(inputs)))
    elif kind == "nested":
        model = keras.Sequential([inputs, network("sigmoid")])
        layer = model.layers[0].layers[0]
    elif kind == "other":
        model = Own(lambda z: 0.5 + z / 100)
    else:
        model = Own(
            {"own linear": tf.identity, "own sigmoid": tf.sigmoid}[kind]
        )
    model(np.zeros((1, 4), "float32"))
    layer = getattr(model, "layer", layer)
    set_weights(layer)
    return model


def set_weights(layer, offset=0.0):
    layer.set_weights([WEIGHTS[:, None], np.array([offset + BIAS])])


def data(count=100):
    """Images, labels of which one of 20 is wrong, and the lead of each."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(count, 4)).astype("float32")
    z = x @ WEIGHTS + BIAS
    y = (z > 0).astype(int)
    y[::20] = 1 - y[::20]
    return x, y, (2 * y - 1) * z


ENDS = {
    "linear": False,
    "sigmoid": True,
    "tanh": False,
    "operation": True,
    "bfloat16": False,
    "nested": True,
    "own linear": False,
    "own sigmoid": True,
    "other": None,
}


@pytest.mark.parametrize("kind", ENDS)
def test_what_a_network_ends_in(kind):
    found = ends_in_probabilities(network(kind), (4,))
    assert found is ENDS[kind]


@pytest.mark.parametrize("kind", ["linear", "own sigmoid", "tanh"])
@pytest.mark.parametrize("loss", [keras.losses.Hinge(), "squared_hinge", own])
def test_accuracies_are_those_in_closed_form(kind, loss):
    x, y, lead = data()
    model = network(kind)
    model.compile(loss=loss)
    clean = np.mean(lead > 0)
    robust = np.mean(lead > EPSILON * np.abs(WEIGHTS).sum())
    assert robust < clean == 0.95
    attacks = {
        "PGD": PGD(Linf(EPSILON), num_steps=5),
        "restarts": PGD(Linf(EPSILON), num_steps=5, restarts=2),
        # An attack's own loss says nothing of what the network gives.
        "own": PGD(Linf(EPSILON), num_steps=5, restarts=2, loss=own),
    }
    for labels in (y, y[:, None], 2 * y - 1):
        report = ak.evaluate_robustness(
            model, (x, labels), attacks, checks=None, verbose=0
        )
        assert report.clean_accuracy == clean
        # The function `own` knows 0 and 1 alone.
        for name in attacks if labels.min() == 0 else ("PGD", "restarts"):
            if loss is not own or labels.min() == 0:
                assert report.robust_accuracy[name] == robust


def test_certificates_and_pictures_have_the_same_answers():
    x, y, lead = data()
    sure = np.abs(lead) > 0.5
    x, y, lead = x[sure], y[sure], lead[sure]
    model = network("own linear")
    model.compile(loss=keras.losses.Hinge())
    for labels in (y, 2 * y - 1):
        report = ak.certify_robustness(
            ak.SmoothedClassifier(model, 0.01), (x, labels), 200, verbose=0
        )
        np.testing.assert_array_equal(report.correct, lead > 0)
    bounds = (0.0, 1.0)
    outputs = ak.plots.answers.outputs(model, tf.constant(x), y, bounds)
    labels = ak.plots.answers.labels(2 * y - 1, tf.constant(x), 2)
    right = np.argmax(outputs, axis=1) == labels.numpy()
    np.testing.assert_array_equal(right, lead > 0)


@pytest.mark.parametrize("said", [True, False])
def test_what_nobody_can_tell_is_refused_until_the_loss_says_it(said):
    x, y, lead = data()
    model = network("other")
    loss = keras.losses.Hinge()
    model.compile(loss=loss)
    attack = PGD(Linf(EPSILON), num_steps=5)
    for ask in (
        lambda: attack(model, x, y),
        lambda: ak.SmoothedClassifier(model, 0.1).predict(x[:1], 100),
        lambda: ak.plots.answers.outputs(model, tf.constant(x), y, (0.0, 1.0)),
    ):
        with pytest.raises(ValueError, match="single output.*sigmoid.*Hinge"):
            ask()
    loss.from_logits = said
    report = ak.evaluate_robustness(
        model, (x, y), {"PGD": attack}, checks=None, verbose=0
    )
    # All outputs lie in (0, 1), around a half.
    expected = np.mean(y) if said else 0.95
    assert report.clean_accuracy == expected


def test_outputs_out_of_the_unit_interval_are_logits():
    x, y, lead = data()
    model = Own(lambda z: 3 * z)
    model(x)
    set_weights(model.layer, offset=9)
    model.compile(loss="hinge")
    report = ak.evaluate_robustness(
        model, (x, y), {"PGD": PGD(Linf(0.1))}, checks=None, verbose=0
    )
    assert report.clean_accuracy == np.mean(y)


def test_squared_errors_are_half_way_between_their_labels():
    x, y, _ = data()
    model = network("linear")
    model.compile(loss="mse")
    z = model.predict(x, verbose=0)[:, 0]
    settings = {"checks": None, "verbose": 0}
    attacks = {"PGD": PGD(Linf(EPSILON), num_steps=5)}
    report = ak.evaluate_robustness(model, (x, y), attacks, **settings)
    assert report.clean_accuracy == np.mean((z > 0.5) == y)
    lead = (2 * y - 1) * (z - 0.5)
    robust = np.mean(lead > EPSILON * np.abs(WEIGHTS).sum())
    assert report.robust_accuracy["PGD"] == robust


@pytest.mark.parametrize(
    "loss, labels, message",
    [
        (keras.losses.BinaryCrossentropy(from_logits=True), [-1, 1], "0..1"),
        ("mse", [-1, 1], "0..1.*from -1 to 1"),
        ("hinge", [-1, 0], "be -1 and 1, or.*from -1 to 0"),
        (own, [1, 2], "be -1 and 1, or.*from 1 to 2"),
    ],
)
def test_other_labels_are_refused(loss, labels, message):
    model = network("linear")
    model.compile(loss=loss)
    with pytest.raises(ValueError, match=message):
        ak.evaluate_robustness(
            model,
            (data(2)[0], np.array(labels)),
            {"PGD": PGD(Linf(EPSILON))},
            checks=None,
            verbose=0,
        )


def test_several_classes_of_one_image_have_no_accuracy():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    labels = np.array([[1, 0, 0], [1, 0, 1]])
    attack = PGD(Linf(0.1), num_steps=2)
    assert attack(model, data(2)[0], labels).shape == (2, 4)
    message = (
        "largest value.*rows with 1 to 2. .* several classes are for `PGD`"
    )
    with pytest.raises(ValueError, match=message):
        ak.evaluate_robustness(model, (data(2)[0], labels), {"PGD": attack})
    with pytest.raises(ValueError, match=message):
        ak.attacks.FAB(Linf(0.1))(model, data(2)[0], labels)
