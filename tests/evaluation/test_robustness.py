import dataclasses
import json
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import killed_run
from atent_keras.accuracy import is_correct
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.evaluation.description import describe
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import full_disk
from conftest import small_network


def evaluate(network, data, attacks, **settings):
    """Without a bar and checks, unless they are asked for."""
    settings = {"checks": None, "verbose": 0, **settings}
    return ak.evaluate_robustness(network, data, attacks, **settings)


def linear_network(weights):
    """Two classes; a row of weights for each pixel, or the weights of one."""
    weights = np.asarray(weights)
    if weights.ndim == 1:
        weights = np.stack([weights, -weights], axis=1)
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
    report = evaluate(network, (x, y), attacks)
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


@dataclasses.dataclass(frozen=True)
class Returns(FGSM):
    """Gives back what a function makes of the images."""

    found: object = None

    def __call__(self, model, x, y, seed=None, first=0):
        return self.found(x)


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


@dataclasses.dataclass(frozen=True)
class Counted(PGD):
    """PGD, which remembers the places that it was called for."""

    def __call__(self, model, x, y, seed=None, first=0):
        CALLS.append(np.asarray(first).tolist())
        return super().__call__(model, x, y, seed, first)


CALLS = []


@pytest.fixture
def calls():
    CALLS.clear()
    return CALLS


def test_clean_errors_are_not_attacked(calls):
    x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    y = np.array([0, 1, 1, 0])
    report = evaluate(
        linear_network(np.eye(2)), (x, y), {"PGD": Counted(Linf(0.1))}
    )
    assert calls == [[0, 2]]
    np.testing.assert_array_equal(report.correct, [1, 0, 1, 0])
    np.testing.assert_allclose(report.results["PGD"].norm[[1, 3]], 0)


def test_a_network_that_is_always_wrong(calls):
    x, y = np.array([[1, 0]], "float32"), [1]
    report = ak.evaluate_robustness(
        linear_network(np.eye(2)), (x, y), {"PGD": Counted(Linf(0.1))}
    )
    assert report.worst_case_accuracy == report.clean_accuracy == 0
    assert not calls
    assert {finding.verdict for finding in report.findings} == {"not run"}


def digits_network(digits):
    network = small_network()
    network.compile("adam", cross_entropy())
    network.fit(digits[0][:600], digits[1][:600], epochs=3, verbose=0)
    return network


def as_batches(digits, size=50, count=200):
    x, y = digits[0][600 : 600 + count], digits[1][600 : 600 + count]
    return [(x[i : i + size], y[i : i + size]) for i in range(0, count, size)]


def assert_same(one, other):
    """The reports' figures are the same, but for the time that it took."""
    for name, values in one.arrays().items():
        np.testing.assert_array_equal(values, other.arrays()[name])
    assert one.findings == other.findings
    one, other = (json.loads(report.to_json()) for report in (one, other))
    assert without_seconds(one) == without_seconds(other)


def without_seconds(report):
    """A report from JSON without what differs from run to run."""
    for row in report["rows"]:
        del row["seconds"]
    return report


def test_a_finished_run_is_not_run_again(digits, calls, tmp_path):
    network, data = digits_network(digits), as_batches(digits)
    attacks = {"PGD": Counted(Linf(0.1), num_steps=2)}
    first = evaluate(network, data, attacks, folder=tmp_path)
    assert len(calls) == 4
    again = evaluate(network, data, attacks, folder=tmp_path)
    assert len(calls) == 4
    assert_same(first, again)
    assert first.results["PGD"].seconds == again.results["PGD"].seconds
    # An attack that is added runs alone; one that is left out is not lost.
    more = {"FGSM": FGSM(Linf(0.1)), **attacks}
    report = evaluate(network, data, more, folder=tmp_path)
    assert len(calls) == 4 and list(report.results) == ["FGSM", "PGD"]
    evaluate(network, data, {"FGSM": FGSM(Linf(0.1))}, folder=tmp_path)
    assert_same(evaluate(network, data, attacks, folder=tmp_path), first)
    assert len(calls) == 4
    with np.load(tmp_path / "report.npz") as arrays:
        np.testing.assert_array_equal(
            arrays["PGD/succeeded"], first.results["PGD"].succeeded
        )


def test_a_stopped_run_goes_on_with_the_batch_where_it_stopped(
    digits, calls, tmp_path
):
    network, data = digits_network(digits), as_batches(digits)
    attacks = {"PGD": Counted(Linf(0.1), num_steps=2)}
    whole = evaluate(network, data, attacks)
    calls.clear()

    def until_the_third():
        yield from data[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(network, until_the_third(), attacks, folder=tmp_path)
    assert len(calls) == 2
    assert_same(evaluate(network, data, attacks, folder=tmp_path), whole)
    assert len(calls) == 4


def test_a_run_that_was_killed_ends_with_the_same_report(tmp_path):
    """Killed in the first call of an attack, in the fourth, in the last."""
    train, _ = ak.datasets.digits()
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    network.compile("adam", cross_entropy())
    network.fit(*train, batch_size=64, epochs=1, verbose=0)
    model, folder = tmp_path / "model.keras", tmp_path / "killed"
    network.save(model)
    known = []
    for last_call in (1, 4, 7, 0):
        run = subprocess.run(
            [
                sys.executable,
                killed_run.__file__,
                model,
                folder,
                str(last_call),
            ],
            capture_output=True,
            text=True,
        )
        killed = last_call > 0
        assert run.returncode == -signal.SIGKILL * killed, run.stderr
        assert (folder / "report.json").exists() != killed
        with np.load(folder / "progress" / "examples.npz") as arrays:
            known.append(sum(len(v) for k, v in arrays.items() if "/n" in k))
    assert known == [0, 60, 180, 200]
    whole = killed_run.evaluate(model, tmp_path / "whole")
    found = json.loads((folder / "report.json").read_text())
    assert without_seconds(found) == without_seconds(
        json.loads(whole.to_json())
    )
    with np.load(folder / "report.npz") as arrays:
        for name, values in whole.arrays().items():
            np.testing.assert_array_equal(arrays[name], values)


def test_results_of_something_else_are_refused_by_what_differs(
    digits, tmp_path
):
    network, data = digits_network(digits), as_batches(digits)
    attacks = {"PGD": PGD(Linf(0.1), num_steps=2)}
    evaluate(network, data, attacks, folder=tmp_path)

    def refuse(match, network=network, data=data, attacks=attacks, **settings):
        with pytest.raises(ValueError, match=f"`folder` must be new.*{match}"):
            evaluate(network, data, attacks, folder=tmp_path, **settings)

    refuse("seed is 0 there, 1 now", seed=1)
    other = {"PGD": PGD(Linf(0.2), num_steps=2)}
    refuse(
        "where attack PGD threat_model epsilon is 0.1 there, 0.2 now",
        attacks=other,
    )
    refuse(
        "the model's weights is",
        network=digits_network((digits[0][1:], digits[1][1:])),
    )
    function = linear_network(np.zeros(64))
    refuse(
        "the model's outputs is",
        network=lambda x: function(tf.reshape(x, [-1, 64])) @ tf.ones((2, 10)),
    )
    refuse("batch 0", data=as_batches(digits, 40))
    swapped = [data[1], data[0], *data[2:]]
    refuse("the same data in the same order", data=swapped)
    refuse("200 examples there, 150 now", data=data[:3])
    refuse("batch 4", data=as_batches(digits, count=250))
    relabelled = [(x, (y + 1) % 10) for x, y in data]
    refuse("batch 0", data=relabelled)
    keras.config.set_floatx("float64")
    try:
        refuse("floatx is float32 there, float64 now")
    finally:
        keras.config.set_floatx("float32")


def test_networks_with_the_same_weights_are_told_apart(digits, tmp_path):
    network, data = digits_network(digits), as_batches(digits)
    attacks = {"FGSM": FGSM(Linf(0.1))}
    evaluate(network, data, attacks, folder=tmp_path)
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    darker = keras.Model(inputs, network(layers.Rescaling(0.7)(inputs)))
    with pytest.raises(ValueError, match="the model's outputs is"):
        evaluate(darker, data, attacks, folder=tmp_path)


def test_another_loss_or_precision_is_refused(digits, tmp_path):
    """Attacks climb the compiled loss, and see the gradient as it is."""
    network, data = digits_network(digits), as_batches(digits)
    attacks = {"FGSM": FGSM(Linf(0.1))}
    evaluate(network, data, attacks, folder=tmp_path)
    coarse = small_network(dtype="mixed_bfloat16")
    coarse.compile("adam", cross_entropy())
    coarse.set_weights(network.get_weights())
    with pytest.raises(ValueError, match="the model's precision is"):
        evaluate(coarse, data, attacks, folder=tmp_path)
    network.compile(loss=ak.attacks.Margin())
    with pytest.raises(ValueError, match="loss class_name is .*Margin"):
        evaluate(network, data, attacks, folder=tmp_path)


def test_a_randomized_network_can_go_on_if_it_can_be_known(digits, tmp_path):
    network, data = digits_network(digits), as_batches(digits)
    attacks = {"FGSM": FGSM(Linf(0.1))}

    class Noisy(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = network

        def call(self, x):
            return self.network(x) + tf.random.normal((10,))

    first = evaluate(Noisy(), data, attacks, folder=tmp_path / "model")
    again = evaluate(Noisy(), data, attacks, folder=tmp_path / "model")
    assert_same(again, first)

    def noisy(x):
        return network(x) + tf.random.normal((10,))

    evaluate(noisy, data, attacks, folder=tmp_path / "function")
    with pytest.raises(ValueError, match="must be new for a network that answ"):
        evaluate(noisy, data, attacks, folder=tmp_path / "function")


def test_settings_are_the_same_in_every_process():
    """Addresses are not; nor is how much is printed a setting."""

    def made():
        schedule = keras.optimizers.schedules.CosineDecay(0.1, 5)
        return (
            PGD(Linf(0.1), loss=cross_entropy()),
            PGD(Linf(0.1), step_size=schedule, num_steps=5),
            Returns(Linf(0.1), found=lambda x: x),
            ak.attacks.AutoAttack(Linf(0.1)),
            cross_entropy(),
        )

    for one, other in zip(made(), made(), strict=True):
        assert describe(one) == describe(other)
        assert " at 0x" not in json.dumps(describe(one))
    silent = ak.attacks.AutoAttack(Linf(0.1), verbose=0)
    assert describe(silent) == describe(made()[3])
    assert describe(PGD(Linf(0.1))) != describe(PGD(Linf(0.1), num_steps=9))


def test_silence_is_that_of_the_attacks_too(digits, capsys):
    network, data = digits_network(digits), as_batches(digits, count=50)
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


def test_a_function_is_traced_once_for_all_batches(digits):
    network, data = digits_network(digits), as_batches(digits)
    calls = []

    def function(x):
        calls.append(tf.executing_eagerly())
        return network(x)

    attacks = {"PGD": PGD(Linf(0.1), num_steps=2)}
    counts = []
    for number in (1, 4):
        calls.clear()
        evaluate(function, data[:number], attacks)
        counts.append(calls.count(False))
    assert counts[0] == counts[1]


def test_a_damaged_folder_is_refused(digits, tmp_path):
    network, data = digits_network(digits), as_batches(digits)
    attacks = {"FGSM": FGSM(Linf(0.1))}
    first = evaluate(network, data, attacks, folder=tmp_path)
    file = tmp_path / "progress" / "examples.npz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match="examples.npz, which is damaged"):
        evaluate(network, data, attacks, folder=tmp_path)
    file.unlink()
    assert_same(evaluate(network, data, attacks, folder=tmp_path), first)


def test_a_full_disk_keeps_what_was_found(digits, calls, tmp_path):
    network, data = digits_network(digits), as_batches(digits)
    attacks = {"PGD": Counted(Linf(0.1), num_steps=2)}

    def full_from_the_third_on():
        yield from data[:2]
        size = (tmp_path / "progress" / "examples.npz").stat().st_size
        with full_disk(size):
            yield from data[2:]

    with pytest.raises(OSError, match="start again with the same folder"):
        evaluate(network, full_from_the_third_on(), attacks, folder=tmp_path)
    calls.clear()
    report = evaluate(network, data, attacks, folder=tmp_path)
    assert len(calls) == 2  # and two that were kept
    assert_same(report, evaluate(network, data, attacks))


def test_a_saved_model_and_a_function_give_the_networks_figures(
    digits, tmp_path
):
    network, data = digits_network(digits), as_batches(digits)
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


def test_a_bar_shows_the_accuracies(digits, capsys):
    network, data = digits_network(digits), as_batches(digits)
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


def test_a_folder_that_is_a_file(batch, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="`folder` must be a folder.*a file"):
        evaluate(
            small_network(),
            batch,
            {"FGSM": FGSM(Linf(0.1))},
            folder=tmp_path / "file",
        )
