"""The first few examples, which an evaluation keeps for its page."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras.evaluation import pictures
from atent_keras.evaluation.results import Results
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from evaluations import Returns
from evaluations import evaluate

ATTACKS = {
    "half": Returns(Linf(1.0), found=lambda x: x / 2),
    "none": Returns(Linf(1.0), found=lambda x: x),
}
X = np.random.default_rng(0).uniform(size=(12, 3, 3, 1)).astype("float32")
CORNER = X[:, 0, 0, 0]
# The third is an error as it is.
Y = (CORNER > 0.4) ^ (np.arange(12) == 2)
Y = Y.astype("int64")


def logits(x):
    """The second class is where the corner is above 0.4."""
    z = 10 * (x[:, 0, 0, :1] - 0.4)
    return tf.concat([-z / 2, z / 2], axis=1)


def as_batches(size, x=X, y=Y):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def assert_kept(found, names=("half", "none")):
    """The first eight, with what the formula gives for them."""
    np.testing.assert_array_equal(found["x"], X[:8])
    np.testing.assert_array_equal(found["y"], Y[:8])
    second = 1 / (1 + np.exp(-10 * (CORNER[:8] - 0.4)))
    assert_answers(found, "", second)
    attacked = np.arange(8) != 2
    for name, factor in {"half": 0.5, "none": 1.0}.items():
        if name not in names:
            assert f"{name}/x_adv" not in found
            continue
        second = 1 / (1 + np.exp(-10 * (factor * CORNER[:8] - 0.4)))
        assert_answers(found, f"{name}/", second, attacked)
        x_adv = np.where(attacked[:, None, None, None], factor, 1.0) * X[:8]
        np.testing.assert_allclose(found[f"{name}/x_adv"], x_adv)


def assert_answers(found, prefix, second, attacked=True):
    answers = np.where(attacked, second > 0.5, -1)
    np.testing.assert_array_equal(found[f"{prefix}answers"], answers)
    np.testing.assert_allclose(
        found[f"{prefix}confidences"],
        np.where(attacked, np.maximum(second, 1 - second), 0),
        rtol=1e-4,
    )


@pytest.mark.parametrize("size", [1, 3, 12])
def test_the_first_few_are_kept_however_they_are_batched(size, tmp_path):
    data = as_batches(size)
    report = evaluate(logits, data, ATTACKS, folder=tmp_path)
    assert_kept(report.pictures)
    again = evaluate(logits, data, ATTACKS, folder=tmp_path)
    assert_repeats(again.pictures, report.pictures)
    assert again.to_html() == report.to_html()


def test_without_a_folder_they_are_in_the_report():
    assert_kept(evaluate(logits, (X, Y), ATTACKS).pictures)


def test_a_stopped_run_keeps_the_same(tmp_path):
    data = as_batches(3)

    def until_the_second():
        yield from data[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(logits, until_the_second(), ATTACKS, folder=tmp_path)
    report = evaluate(logits, data, ATTACKS, folder=tmp_path)
    assert_kept(report.pictures)


@pytest.mark.parametrize("last", range(4, 13, 2))
def test_a_run_that_ends_after_any_file_has_them(last, tmp_path, monkeypatch):
    """Images are there before the examples, and are found once more."""
    written, write = [], Results._write

    def until(self, name, content):
        write(self, name, content)
        written.append(name)
        if len(written) == last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Results, "_write", until)
        with pytest.raises(KeyboardInterrupt):
            evaluate(logits, as_batches(3), ATTACKS, folder=tmp_path)
    report = evaluate(logits, as_batches(3), ATTACKS, folder=tmp_path)
    assert_kept(report.pictures)


def test_an_attack_that_is_added_has_its_own(tmp_path):
    data, few = as_batches(3), {"none": ATTACKS["none"]}
    report = evaluate(logits, data, few, folder=tmp_path)
    assert_kept(report.pictures, few)
    report = evaluate(logits, data, ATTACKS, folder=tmp_path)
    assert_kept(report.pictures)


def test_a_folder_without_them_goes_on_without(tmp_path):
    """Such as that of an earlier version, whatever is added to it."""
    data = as_batches(3)
    evaluate(logits, data, {"none": ATTACKS["none"]}, folder=tmp_path)
    (tmp_path / "progress" / "pictures.npz").unlink()
    report = evaluate(logits, data, ATTACKS, folder=tmp_path)
    assert report.pictures == {}
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "begun without images" in page and "<img" not in page


def test_what_is_done_again_replaces_them(tmp_path):
    evaluate(logits, as_batches(3), ATTACKS, folder=tmp_path)
    (tmp_path / "progress" / "examples.npz").unlink()
    data, few = as_batches(3, X[::-1], Y[::-1]), {"none": ATTACKS["none"]}
    report = evaluate(logits, data, few, folder=tmp_path)
    np.testing.assert_array_equal(report.pictures["x"], X[:3:-1])
    assert "half/x_adv" not in report.pictures


def test_of_several_sizes_those_of_the_first_are_kept():
    wide = np.tile(X[3:6], (1, 1, 2, 1))
    data = [(X[:3], Y[:3]), (wide, Y[3:6]), (X[6:], Y[6:])]
    found = evaluate(logits, data, ATTACKS).pictures
    np.testing.assert_array_equal(found["x"], X[:3])
    assert len(found["half/x_adv"]) == 3


def test_large_images_are_fewer_and_larger_ones_none(monkeypatch):
    monkeypatch.setattr(pictures, "_VALUES", 9 * 5 + 8)
    found = evaluate(logits, as_batches(3), ATTACKS).pictures
    assert len(found["x"]) == len(found["half/x_adv"]) == 5
    monkeypatch.setattr(pictures, "_VALUES", 8)
    report = evaluate(logits, as_batches(3), ATTACKS)
    assert {name: part.shape for name, part in report.pictures.items()} == {
        "x": (0, 3, 3, 1)
    }
    assert "Too large" in report.to_html()


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_single_output_is_that_of_the_second_class(from_logits):
    inputs = keras.Input((3, 3, 1))
    z = 10 * (inputs[:, 0, 0] - 0.4)
    outputs = z if from_logits else keras.ops.sigmoid(z)
    network = keras.Model(inputs, outputs)
    network.compile(loss=keras.losses.BinaryCrossentropy(from_logits))
    names = np.array(["cat", "dog"])
    report = evaluate(network, (X, Y), ATTACKS, class_names=names)
    assert_kept(report.pictures)
    assert report.class_names == ("cat", "dog")


@pytest.mark.parametrize("names", [["cat"], [0, 1], "012", 2], ids=repr)
def test_a_name_for_each_class(names):
    error = "`class_names` must be 2 strings, one for each class. Received"
    with pytest.raises(ValueError, match=error):
        evaluate(logits, (X, Y), ATTACKS, class_names=names)
