import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.accuracy import is_correct
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import small_network


def linear_network(weights):
    inputs = keras.Input((len(weights),))
    network = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    network.set_weights(
        [np.asarray(weights, "float32"), np.zeros(2, "float32")]
    )
    return network


def test_accuracies_of_a_linear_network_in_closed_form():
    """Margin over the dual norm of the weights: the smallest perturbation."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(20, 2))
    weights -= weights.mean(axis=0)  # so that margins have either sign
    network = linear_network(weights)
    x = rng.uniform(0.3, 0.7, size=(500, 20)).astype("float32")
    y = rng.integers(0, 2, 500)
    direction = weights[:, 1] - weights[:, 0]
    margin = (2 * y - 1) * (x @ direction)
    # Within 0.05 of these images the box does not bind.
    closed_form = {
        "linf": (margin > 0.01 * np.abs(direction).sum()).mean(),
        "l2": (margin > 0.05 * np.sqrt((direction**2).sum())).mean(),
    }
    attacks = {"linf": FGSM(Linf(0.01)), "l2": FGSM(L2(0.05))}
    report = ak.evaluate_robustness(network, (x, y), attacks)
    assert report.clean_accuracy == pytest.approx((margin > 0).mean())
    assert 0.1 < report.robust_accuracy["linf"] < report.clean_accuracy
    assert report.robust_accuracy == pytest.approx(closed_form)
    worst = min(closed_form.values())
    assert report.worst_case_accuracy <= worst
    assert report.num_examples == 500


@dataclasses.dataclass(frozen=True)
class Swap(FGSM):
    """Gives other examples' images back: right ones turn wrong and back."""

    def __call__(self, model, x, y, seed=None, first=0):
        return tf.reverse(tf.convert_to_tensor(x), [0])


def test_a_clean_error_stays_an_error_and_the_worst_case_is_per_example():
    network = linear_network(np.eye(2))
    x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    y = np.array([0, 1, 1, 0])  # right, wrong, right, wrong
    report = ak.evaluate_robustness(
        network, (x, y), {"swap": Swap(Linf(1.0)), "none": FGSM(Linf(0.0))}
    )
    assert report.clean_accuracy == 0.5
    # Swapped, the wrong ones turn right, but do not count.
    assert report.robust_accuracy == {"swap": 0.0, "none": 0.5}
    assert report.worst_case_accuracy == 0.0


def test_data_in_any_form_and_any_batches(digits):
    x, y = digits[0][:300], digits[1][:300]
    network = small_network()
    network.compile("adam", cross_entropy())
    network.fit(x, y, epochs=3, verbose=0)
    attacks = {
        "sgld": SGLD(Linf(0.05), 0.01, noise_scale=0.02),
        "pgd": PGD(L2(0.3), num_steps=3),
    }

    def accuracies(data):
        return ak.evaluate_robustness(network, data, attacks).robust_accuracy

    expected = accuracies((x, y))
    assert 0.1 < min(expected.values()) and max(expected.values()) < 0.95
    dataset = tf.data.Dataset.from_tensor_slices((x, y))

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, k):
            return x[k * 100 : k * 100 + 100], y[k * 100 : k * 100 + 100]

    one_hot = keras.utils.to_categorical(y, 10)
    for data in (
        dataset.batch(64),
        dataset.batch(17),
        [(x[:10], y[:10]), (x[10:200], y[10:200]), (x[200:], y[200:])],
        ((x[i : i + 50], y[i : i + 50]) for i in range(0, 300, 50)),
        Batches(),
    ):
        # Rounding depends on the batch: allow one example of 300.
        assert accuracies(data) == pytest.approx(expected, abs=1 / 300 + 1e-9)
    network.compile()  # forget the loss, which wants integers
    network.loss = None
    assert accuracies((x, one_hot)) == pytest.approx(expected, abs=1 / 300)


def test_is_correct_with_every_kind_of_label():
    y_pred = tf.constant([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    expected = [True, True, False]
    for y in ([1, 0, 0], [[1], [0], [0]], [[0, 1], [1, 0], [1, 0]]):
        np.testing.assert_array_equal(
            is_correct(tf.constant(y), y_pred), expected
        )
    single = tf.constant([[0.9], [0.2], [-0.3]])
    y = tf.constant([1, 0, 0])
    np.testing.assert_array_equal(is_correct(y, single), [True, True, True])
    logits = keras.losses.BinaryCrossentropy(from_logits=True)
    np.testing.assert_array_equal(
        is_correct(y, single, logits), [True, False, True]
    )


def test_report_prints_as_a_table(batch):
    report = ak.evaluate_robustness(
        small_network(), batch, {"FGSM": FGSM(Linf(0.1))}
    )
    lines = str(report).splitlines()
    assert lines[0] == "accuracy on 32 examples"
    assert [line.split()[0] for line in lines[1:]] == ["clean", "FGSM", "worst"]
    assert lines[2].endswith(repr(FGSM(Linf(0.1))))


@pytest.mark.parametrize(
    "data, error, message",
    [
        ((np.zeros((0, 8, 8, 1), "float32"), np.zeros(0)), ValueError, "empty"),
        ([], ValueError, "`data` must not be empty"),
        (tf.data.Dataset.range(0), ValueError, "`data` must not be empty"),
        (3, TypeError, "`data` must be batches"),
        (
            (np.zeros((2, 8, 8, 1), "float32"), [1, 2, 3]),
            ValueError,
            "one label per image",
        ),
        (
            (np.full((2, 8, 8, 1), 255.0), [1, 2]),
            ValueError,
            "Images must lie within",
        ),
        ((np.ones((2, 8, 8, 1), int), [1, 2]), TypeError, "floating-point"),
        (
            (np.ones((2, 8, 8, 1)), [1, 10]),
            ValueError,
            r"Labels must lie in 0..9 .* Received: labels from 1 to 10",
        ),
    ],
)
def test_bad_data(data, error, message):
    with pytest.raises(error, match=message):
        ak.evaluate_robustness(small_network(), data, {"FGSM": FGSM(Linf(0.1))})


@pytest.mark.parametrize("attacks", [None, {}, [FGSM(Linf(0.1))], {"FGSM": 3}])
def test_bad_attacks(attacks, batch):
    with pytest.raises(TypeError, match="`attacks` must be a dictionary"):
        ak.evaluate_robustness(small_network(), batch, attacks)
