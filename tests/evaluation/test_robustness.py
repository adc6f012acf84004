import dataclasses
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.attacks.accuracy import is_correct
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import small_network
from evaluations import Counted
from evaluations import Returns
from evaluations import as_batches
from evaluations import assert_same
from evaluations import counting
from evaluations import evaluate
from evaluations import linear_network


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
    report = evaluate(network, (x, y), attacks)
    assert report.clean_accuracy == pytest.approx((margin > 0).mean())
    assert 0.1 < report.robust_accuracy["linf"] < report.clean_accuracy
    assert report.robust_accuracy == pytest.approx(closed_form)
    worst = min(closed_form.values())
    assert report.worst_case_accuracy <= worst
    assert report.num_examples == 500


def test_data_without_bounds(tmp_path):
    """The same closed form, far outside of any box, and what has to say so."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 2))
    network = linear_network(weights)
    x = 50 * rng.normal(size=(100, 6)).astype("float32")
    direction = weights[:, 1] - weights[:, 0]
    y = (x @ direction > 0).astype(int)
    distance = np.abs(x @ direction) / np.abs(direction).sum()
    epsilon = float(np.median(distance))
    report = evaluate(
        network,
        (x, y),
        {"FGSM": FGSM(Linf(epsilon, bounds=None), ak.attacks.Margin())},
        checks=ak.MaskingChecks(num_steps=5),
        folder=tmp_path,
    )
    assert report.robust_accuracy["FGSM"] == (distance > epsilon).mean() == 0.5
    findings = {one.check: one for one in report.findings}
    assert findings["large radius"].verdict == "not run"
    assert "without bounds" in findings["large radius"].evidence
    assert findings["more effort"].verdict == "silent"
    assert "bounds=None" in str(report)


@dataclasses.dataclass(frozen=True)
class Swap(FGSM):
    """Gives other examples' images back: right ones turn wrong and back."""

    def __call__(self, model, x, y, seed=None, first=0):
        return tf.reverse(tf.convert_to_tensor(x), [0])


def test_a_clean_error_stays_an_error_and_the_worst_case_is_per_example():
    network = linear_network(np.eye(2))
    x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    y = np.array([0, 1, 1, 0])  # right, wrong, right, wrong
    report = evaluate(
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
        return evaluate(network, data, attacks).robust_accuracy

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


def test_images_of_several_sizes(tmp_path):
    """The checks look at those of one size, the attacks at all."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(3, 3),
            layers.GlobalAveragePooling2D(),
        ]
    )
    rng = np.random.default_rng(0)
    data = [
        (x, np.argmax(network.predict(x, verbose=0), axis=1))
        for x in (
            rng.random((4, size, size, 1), dtype="float32") for size in (5, 6)
        )
    ]
    # None of the first batch is classified right.
    data.insert(0, (data[1][0], (data[1][1] + 1) % 3))
    settings = {
        "checks": ak.MaskingChecks(num_images=8, num_steps=2, num_queries=5)
    }
    attacks = {"FGSM": FGSM(Linf(0.1))}
    report = evaluate(network, data, attacks, **settings)
    assert report.clean_accuracy == 2 / 3
    evidence = {one.check: one.evidence for one in report.findings}
    assert "at 4 images" in evidence["zero gradients"]
    for _ in range(2):
        kept = evaluate(network, data, attacks, folder=tmp_path, **settings)
        assert_same(kept, report)


def test_bytes_are_images_of_0_to_255(digits, trained):
    x, y = np.round(255 * digits[0][:60]), digits[1][:60]

    def network(images):
        return trained(images / 255)

    ball = Linf(8.0, bounds=(0, 255))
    reports = [
        evaluate(network, (images, y), {"PGD": PGD(ball, num_steps=3)})
        for images in (x, x.astype("uint8"), x.astype("int64"))
    ]
    assert_same(reports[0], reports[1])
    assert_same(reports[0], reports[2])
    assert 0 < reports[0].robust_accuracy["PGD"] < reports[0].clean_accuracy


@pytest.mark.parametrize("form", ["tensors", "arrays"])
def test_batches_of_names_are_refused_with_the_pairs_to_make(form):
    x, y = np.zeros((4, 8, 8, 1), "uint8"), np.arange(4)
    data = tf.data.Dataset.from_tensor_slices({"picture": x, "label": y})
    data, message = (
        data.batch(4),
        (
            "keys 'picture', 'label'. .*: `data = data.map(lambda batch: "
            '(batch["picture"] / 255, batch["label"]))`'
        ),
    )
    if form == "arrays":
        data = list(data.as_numpy_iterator())
        message = 'make pairs: `(batch["picture"] / 255, batch["label"])`'
    message = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(TypeError, match=message):
        evaluate(small_network(), data, {"FGSM": FGSM(Linf(0.1))})
    message = r"a pair: `\(data\[\"image\"\] / 255, data\[\"label\"\]\)`"
    with pytest.raises(TypeError, match=message):
        evaluate(
            small_network(), {"image": x, "label": y}, {"F": FGSM(Linf(0.1))}
        )


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
    for y in ([1, 0, 0], [[1], [0], [0]], [1, -1, -1], [True, False, False]):
        np.testing.assert_array_equal(
            is_correct(tf.constant(y), single, logits), [True, False, True]
        )


def test_what_an_attack_returns_is_brought_back_into_ball_and_box():
    network = linear_network(np.eye(2))
    x = np.array([[1.0, 0.5], [0.6, 0.5]], "float32")
    y = np.array([0, 0])
    far = Returns(Linf(0.1), found=lambda x: x + [[-7.0, 9.0]])
    report = evaluate(network, (x, y), {"far": far})
    # To (0.9, 0.6), which is still right, and to (0.5, 0.6), which is not.
    np.testing.assert_array_equal(
        report.results["far"].succeeded, [False, True]
    )
    np.testing.assert_allclose(report.results["far"].norm, 0.1, rtol=1e-5)
    out = Returns(Linf(0.5), found=lambda x: x + [[0.0, 0.5]])
    x = np.array([[0.75, 0.6]], "float32")
    report = evaluate(network, (x, [0]), {"out": out})
    np.testing.assert_allclose(report.results["out"].norm, 0.4, rtol=1e-5)
    l2 = Returns(L2(0.1), found=lambda x: x + [[-3.0, 4.0]])
    report = evaluate(network, (x, [0]), {"l2": l2})
    np.testing.assert_allclose(report.results["l2"].norm, 0.1, rtol=1e-5)


def test_images_that_are_not_finite_count_as_the_clean_ones():
    network = linear_network(np.eye(2))
    broken = Returns(Linf(0.1), found=lambda x: x * np.nan)
    report = evaluate(
        network, (np.array([[1, 0]], "float32"), [0]), {"broken": broken}
    )
    assert report.robust_accuracy["broken"] == 1.0
    assert report.results["broken"].norm == [0.0]


def test_answers_that_are_not_finite_are_wrong_ones():
    """NaN where the second pixel is above 0.55: only an attack gets there."""

    def network(x):
        return tf.where(x[:, 1:] > 0.55, np.nan, x)

    x = np.array([[0.9, 0.5], [0.9, 0.1]], "float32")
    up = Returns(Linf(0.1), found=lambda x: x + [[0.0, 0.1]])
    report = evaluate(network, (x, [0, 0]), {"up": up})
    np.testing.assert_array_equal(report.robust["up"], [False, True])
    x[0, 1] = 0.6
    with pytest.raises(ValueError, match="outputs must be finite.*Received"):
        evaluate(network, (x, [0, 0]), {"up": up})


def test_an_attack_must_return_an_image_for_each():
    one = Returns(Linf(0.1), found=lambda x: x[:1])
    data = np.array([[1, 0], [1, 0]], "float32"), [0, 0]
    with pytest.raises(ValueError, match="one image for each.*Received: shape"):
        evaluate(linear_network(np.eye(2)), data, {"one": one})


def test_clean_errors_are_not_attacked():
    calls = counting()
    x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    y = np.array([0, 1, 1, 0])
    report = evaluate(
        linear_network(np.eye(2)), (x, y), {"PGD": Counted(Linf(0.1))}
    )
    assert calls == [[0, 2]]
    np.testing.assert_array_equal(report.correct, [1, 0, 1, 0])
    np.testing.assert_allclose(report.results["PGD"].norm[[1, 3]], 0)


def test_a_network_that_is_always_wrong():
    calls = counting()
    x, y = np.array([[1, 0]], "float32"), [1]
    report = ak.evaluate_robustness(
        linear_network(np.eye(2)), (x, y), {"PGD": Counted(Linf(0.1))}
    )
    assert report.worst_case_accuracy == report.clean_accuracy == 0
    assert not calls
    assert {finding.verdict for finding in report.findings} == {"not run"}


def test_silence_is_that_of_the_attacks_too(digits, trained, capsys):
    network, data = trained, as_batches(digits, count=50)
    square = ak.attacks.Square(Linf(0.1), num_queries=5)
    attacks = {"AA": ak.attacks.AutoAttack(Linf(0.1), [square])}
    evaluate(network, data, attacks, verbose=0)
    assert not capsys.readouterr().out
    evaluate(network, data, attacks, verbose=1)
    assert "Square" in capsys.readouterr().out


def test_numpy_numbers_are_numbers(batch, tmp_path):
    report = evaluate(
        small_network(),
        batch,
        {"FGSM": FGSM(Linf(0.1))},
        seed=np.int64(3),
        confidence=np.float32(0.9),
        folder=tmp_path,
    )
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["seed"] == report.seed == 3
    assert found["confidence"] == pytest.approx(0.9)


def test_a_function_is_traced_once_for_all_batches(digits, trained):
    network, data = trained, as_batches(digits)
    calls = []

    def function(x):
        calls.append(tf.executing_eagerly())
        return network(x)

    attacks = {"PGD": PGD(Linf(0.1), num_steps=2)}
    counts = []
    for number in (1, 4):
        calls.clear()
        evaluate(lambda x: function(x), data[:number], attacks)
        counts.append(calls.count(False))
    assert counts[0] == counts[1] > 0
    # The same function again: of the attack, nothing is left to trace.
    for _ in range(2):
        calls.clear()
        evaluate(function, data, attacks)
    assert 0 < calls.count(False) < counts[0]


def test_a_saved_model_and_a_function_give_the_networks_figures(
    digits, trained, tmp_path
):
    network, data = trained, as_batches(digits)
    network.export(tmp_path / "saved", verbose=False)
    attacks = {"PGD": PGD(L2(0.3), num_steps=5), "SGLD": SGLD(Linf(0.1), 0.02)}
    expected = evaluate(network, data, attacks).robust_accuracy
    assert 0.1 < expected["PGD"] < 0.9
    for model in (
        str(tmp_path / "saved"),
        ak.load_classifier(tmp_path / "saved"),
        lambda x: network(x),
    ):
        found = evaluate(model, data, attacks).robust_accuracy
        assert found == pytest.approx(expected, abs=1 / 200)


def test_a_bar_shows_the_accuracies(digits, trained, capsys):
    network, data = trained, as_batches(digits)
    attacks = {"FGSM": FGSM(Linf(0.1)), "PGD": PGD(Linf(0.1), num_steps=2)}
    report = evaluate(network, data, attacks, verbose=1)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "8/8" in last
    for name, accuracy in report.robust_accuracy.items():
        assert f"{name}: {accuracy:.4f}" in last
    evaluate(network, data, attacks, verbose=0)
    assert not capsys.readouterr().out
    evaluate(network, iter(data), attacks, verbose=1)
    assert f"clean: {report.clean_accuracy:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings, error",
    [
        (
            {"seed": None},
            "`seed` must be an integer of 64 bits. Received: seed=None",
        ),
        ({"seed": True}, "`seed` must be an integer"),
        ({"seed": 2**63}, "`seed` must be an integer of 64 bits"),
        ({"confidence": 1}, "`confidence` must lie .* Received: confidence=1"),
        ({"confidence": 95}, "`confidence` must lie between 0 and 1"),
        ({"checks": True}, "`checks` must be .* Received: checks=True"),
        ({"verbose": 2}, "`verbose` must be 0 or 1"),
    ],
)
def test_bad_settings(settings, error, batch):
    with pytest.raises((ValueError, TypeError), match=error):
        ak.evaluate_robustness(
            small_network(), batch, {"FGSM": FGSM(Linf(0.1))}, **settings
        )


@pytest.mark.parametrize(
    "data, error, message",
    [
        ((np.zeros((0, 8, 8, 1), "float32"), np.zeros(0)), ValueError, "empty"),
        ([], ValueError, "`data` must not be empty"),
        (tf.data.Dataset.range(0), ValueError, "`data` must not be empty"),
        (3, TypeError, "`data` must be batches"),
        (
            tf.data.Dataset.range(3).repeat(),
            ValueError,
            "`data` must have an end",
        ),
        (
            [({"image": np.zeros((2, 8, 8, 1))}, [1, 2])],
            TypeError,
            "`x` must be a single array",
        ),
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


@dataclasses.dataclass(frozen=True)
class Narrow(FGSM):
    """An attack that knows neither seeds nor places."""

    def __call__(self, model, x, y):
        return x


@pytest.mark.parametrize(
    "attacks",
    [None, {}, [FGSM(Linf(0.1))], {"FGSM": 3}, {"narrow": Narrow(Linf(0.1))}],
)
def test_bad_attacks(attacks, batch):
    with pytest.raises(TypeError, match="`attacks` must be a dictionary"):
        ak.evaluate_robustness(small_network(), batch, attacks)


@pytest.mark.parametrize("name", ["clean", "worst case", "", " ", "a\nb", 3])
def test_bad_names_of_attacks(name, batch):
    with pytest.raises(ValueError, match="names of `attacks` must .*Received"):
        ak.evaluate_robustness(small_network(), batch, {name: FGSM(Linf(0.1))})


@pytest.mark.parametrize("model", [None, 3, ["network"]])
def test_bad_models(model, batch):
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        ak.evaluate_robustness(model, batch, {"FGSM": FGSM(Linf(0.1))})
