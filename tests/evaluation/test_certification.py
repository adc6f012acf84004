import csv
import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import atent_keras as ak
from atent_keras.evaluation import CertificationReport
from atent_keras.evaluation import certify_robustness
from atent_keras.evaluation.smoothing import ABSTAIN
from atent_keras.evaluation.smoothing import SmoothedClassifier
from conftest import small_network

SIGMA = 0.3
WEIGHTS = np.linspace(-2, 2, 16).reshape(4, 4, 1)
UNIT = WEIGHTS / np.linalg.norm(WEIGHTS)


def linear(x):
    """Two classes, the second one on the side that the weights point to."""
    weights = tf.constant(WEIGHTS.ravel(), x.dtype)
    lead = tf.linalg.matvec(tf.reshape(x - 0.5, [-1, 16]), weights)
    return tf.stack([-lead, lead], axis=-1)


def images(count, seed=0):
    """Images at known signed distances from the boundary."""
    distances = np.random.default_rng(seed).uniform(-0.6, 0.6, count)
    x = 0.5 + distances.reshape(-1, 1, 1, 1) * UNIT
    return x.astype("float32"), distances


def certify(data, smoothed=None, **settings):
    settings = {"num_samples": 500, "verbose": 0, **settings}
    smoothed = smoothed or SmoothedClassifier(linear, SIGMA)
    return certify_robustness(smoothed, data, **settings)


def test_a_linear_network_is_certified_for_its_distance():
    """The smoothed answer is the network's own, its radius the distance."""
    x, distances = images(80)
    y = (distances > 0).astype(int)
    y[:8] = 1 - y[:8]
    report = certify((x, y), num_samples=20_000)
    right = np.arange(80) >= 8
    clear = np.abs(distances) > 0.05
    np.testing.assert_array_equal(report.correct[clear], right[clear])
    # The bound is below the truth, and with so many samples not by much.
    distance = np.abs(distances)
    assert np.all(report.radii[clear] < distance[clear])
    probability = stats.norm.cdf(distance / SIGMA)
    error = 4 * np.sqrt(probability * (1 - probability) / 20_000)
    loose = SIGMA * stats.norm.ppf(np.clip(probability - error, 0.5, 1))
    near = clear & (distance < 0.6)
    assert np.mean(report.radii[near] > loose[near] - 0.02) > 0.95
    for radius in (0.0, 0.1, 0.3, 0.5):
        assert report.certified_accuracy(radius) == np.mean(
            report.correct & (report.radii >= radius)
        )
        reached = right & (distance >= radius)
        assert report.certified_accuracy(radius) <= reached.mean() + 0.05
        assert report.certified_accuracy(radius) >= reached.mean() - 0.1


def test_where_there_is_no_certificate_nothing_is_right():
    x = np.full((20, 4, 4, 1), 0.5, "float32")
    report = certify((x, np.zeros(20, int)))
    abstained = report.classes == ABSTAIN
    assert report.abstained == abstained.mean() > 0.8
    assert not report.correct[abstained].any()
    assert np.all(report.radii[abstained] == 0)
    assert report.certified_accuracy(0) == report.correct.mean()


def test_every_form_holds_the_same_figures(tmp_path):
    x, distances = images(30)
    report = certify((x, (distances > 0).astype(int)), folder=tmp_path, seed=7)
    rows = report.rows()
    assert [row["radius"] for row in rows[:3]] == [0, SIGMA / 2, SIGMA]
    assert rows[-1]["accuracy"] == 0 < rows[-2]["accuracy"]
    for row in rows:
        assert row["accuracy"] == report.certified_accuracy(row["radius"])
        assert (row["low"], row["high"]) == report.interval(row["accuracy"])
    read = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [float(row["accuracy"]) for row in read] == [
        row["accuracy"] for row in rows
    ]
    found = json.loads((tmp_path / "certificates.json").read_text())
    assert found["rows"] == rows and found["seed"] == 7
    assert found["sigma"] == SIGMA and found["num_samples"] == 500
    lines = str(report).splitlines()
    assert "30 examples" in lines[0] and "sigma 0.3" in lines[0]
    assert lines[1].split() == "l_2 radius accuracy 95 % interval".split()
    assert len(lines) == 2 + len(rows) + 1
    markdown = (tmp_path / "certificates.md").read_text()
    assert f"| 0 | {100 * rows[0]['accuracy']:.2f} % |" in markdown
    with np.load(tmp_path / "certificates.npz") as arrays:
        for name in ("correct", "classes", "radii"):
            np.testing.assert_array_equal(arrays[name], getattr(report, name))


def test_batches_do_not_change_the_certificates():
    x, distances = images(50)
    y = (distances > 0).astype(int)
    expected = certify((x, y))
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    one_hot = x, keras.utils.to_categorical(y, 2)
    for data in (dataset.batch(7), dataset.batch(40), one_hot):
        found = certify(data)
        np.testing.assert_array_equal(found.radii, expected.radii)
        np.testing.assert_array_equal(found.correct, expected.correct)
    assert np.any(certify((x, y), seed=1).radii != expected.radii)


def test_a_single_output_stands_for_two_classes():
    inputs = keras.Input((4, 4, 1))
    layer = keras.layers.Dense(1)
    model = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)))
    layer.set_weights([WEIGHTS.reshape(16, 1), np.array([-WEIGHTS.sum() / 2])])
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    x, distances = images(20)
    y = (distances > 0).astype(int)
    report = certify((x, y), SmoothedClassifier(model, SIGMA))
    expected = certify((x, y))
    assert np.mean(report.correct == expected.correct) > 0.9


def test_a_stopped_run_goes_on(tmp_path):
    """With the sixteen images where it stopped."""
    x, distances = images(40)
    y = (distances > 0).astype(int)
    whole = certify((x, y))
    seen = []

    class Counted(SmoothedClassifier):
        def certify(self, x, *arguments):
            seen.append(len(x))
            return super().certify(x, *arguments)

    smoothed = Counted(linear, SIGMA)

    def until_the_second():
        yield x[:32], y[:32]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(until_the_second(), smoothed, folder=tmp_path)
    assert seen == [16, 16]
    report = certify((x, y), smoothed, folder=tmp_path)
    assert seen == [16, 16, 8]
    np.testing.assert_array_equal(report.radii, whole.radii)
    np.testing.assert_array_equal(report.correct, whole.correct)
    again = certify((x, y), smoothed, folder=tmp_path)
    assert len(seen) == 3 and again.seconds == report.seconds
    # An evaluation may share the folder.
    attacks = {"FGSM": ak.attacks.FGSM(ak.threat_models.L2(0.1))}
    ak.evaluate_robustness(
        linear, (x, y), attacks, folder=tmp_path, checks=None, verbose=0
    )
    assert certify((x, y), folder=tmp_path).seconds == report.seconds


def test_certificates_of_something_else_are_refused(tmp_path):
    x, distances = images(20)
    y = (distances > 0).astype(int)
    certify((x, y), folder=tmp_path)

    def refuse(match, data=(x, y), model=linear, sigma=SIGMA, **settings):
        smoothed = SmoothedClassifier(model, sigma)
        with pytest.raises(ValueError, match=f"`folder` must be new.*{match}"):
            certify(data, smoothed, folder=tmp_path, **settings)

    refuse("sigma is 0.3 there, 0.5 now", sigma=0.5)
    refuse("seed is 0 there, 1 now", seed=1)
    refuse("alpha is 0.001 there, 0.01 now", alpha=0.01)
    refuse("num_samples is 500 there, 600 now", num_samples=600)
    refuse("the model's outputs is", model=lambda x: linear(x)[:, ::-1])
    refuse("the same data", data=(x, 1 - y))
    refuse("20 examples there, 16 now", data=(x[:16], y[:16]))


def test_a_bar_shows_the_certified_accuracy(capsys):
    x, distances = images(20)
    y = (distances > 0).astype(int)
    report = certify((x, y), verbose=1)
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"certified: {report.certified_accuracy(0):.4f}" in last
    certify((x, y), verbose=0)
    assert not capsys.readouterr().out


def test_a_network_of_the_digits(digits):
    network = small_network()
    network.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    network.fit(digits[0][:1000], digits[1][:1000], epochs=4, verbose=0)
    data = digits[0][1000:1050], digits[1][1000:1050]
    report = certify(data, SmoothedClassifier(network, 0.2))
    assert isinstance(report, CertificationReport)
    accuracies = [report.certified_accuracy(r) for r in (0, 0.1, 0.2, 0.4)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 0.7 > accuracies[-1]


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"smoothed": linear}, "`smoothed` must be .*SmoothedClassifier.*Rec"),
        ({"num_samples": 5}, "`num_samples` must be at least 10 .* Received"),
        ({"num_samples": 0}, "`num_samples` must be an integer"),
        ({"selection_samples": 0}, "`selection_samples` must be an integer"),
        ({"alpha": 0}, "`alpha` .* must lie between 0 and 1"),
        ({"seed": None}, "`seed` must be an integer of 64"),
        ({"confidence": 2}, "`confidence` must lie between 0 and 1"),
        ({"verbose": 2}, "`verbose` must be 0 or 1"),
        ({"data": []}, "`data` must not be empty"),
        ({"data": 3}, "`data` must be batches"),
        ({"data": (np.ones((2, 4, 4, 1)), [0, 2])}, "Labels must lie in 0..1"),
        ({"data": (np.ones((2, 4, 4, 1)) * 9, [0, 1])}, "Images must lie with"),
        ({"data": (np.ones((2, 4, 4, 1)), [0])}, "one label per image"),
        ({"data": [(np.ones((9, 4, 4, 1)), [0] * 30)]}, "Labels must have sha"),
        ({"data": [(np.ones((2, 4, 4, 1)),)]}, "`y` must hold the images' lab"),
    ],
)
def test_bad_arguments(settings, error, tmp_path):
    settings = {"data": (np.ones((2, 4, 4, 1)), [0, 1]), **settings}
    with pytest.raises((ValueError, TypeError), match=error):
        certify(folder=tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()
