import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import killed_run
import scripts
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.evaluation.description import describe
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import full_disk
from conftest import small_network
from evaluations import Counted
from evaluations import Returns
from evaluations import as_batches
from evaluations import assert_same
from evaluations import counting
from evaluations import evaluate
from evaluations import linear_network
from evaluations import without_seconds


def test_a_finished_run_is_not_run_again(digits, trained, tmp_path):
    calls = counting()
    network, data = trained, as_batches(digits)
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
    digits, trained, tmp_path
):
    calls = counting()
    network, data = trained, as_batches(digits)
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


def test_a_run_that_was_killed_ends_with_the_same_report(trained, tmp_path):
    """Killed in the first call of an attack, in the fourth, in the last."""
    model, folder = tmp_path / "model.keras", tmp_path / "killed"
    trained.save(model)
    known = []

    def run(folder, last_call):
        return scripts.run(killed_run.__file__, model, folder, last_call)

    for last_call in (1, 4, 7, 0):
        code, output = run(folder, last_call)
        killed = last_call > 0
        assert code == -signal.SIGKILL * killed, output
        assert (folder / "report.json").exists() != killed
        with np.load(folder / "progress" / "examples.npz") as arrays:
            known.append(sum(len(v) for k, v in arrays.items() if "/n" in k))
    assert known == [0, 60, 180, 200]
    whole = tmp_path / "whole"
    assert run(whole, 0)[0] == 0
    found, expected = (
        json.loads((one / "report.json").read_text()) for one in (folder, whole)
    )
    assert without_seconds(found) == without_seconds(expected)
    found, expected = (
        dict(np.load(one / "report.npz")) for one in (folder, whole)
    )
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_results_of_something_else_are_refused_by_what_differs(
    digits, trained, tmp_path
):
    network, data = trained, as_batches(digits)
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
    refuse("the model's weights is", network=small_network())
    function = linear_network(np.zeros(64))
    refuse(
        "the model's outputs is",
        network=lambda x: function(tf.reshape(x, [-1, 64])) @ tf.ones((2, 10)),
    )
    refuse("batch 0", data=as_batches(digits, 40))
    swapped = [data[1], data[0], *data[2:]]
    refuse("the same data in the same order", data=swapped)
    # Before the new attack begins, where the length is known; else at the end.
    more = {**attacks, "never": Returns(Linf(0.1))}
    refuse("4 batches there, 3 now", data=data[:3], attacks=more)
    refuse("200 examples there, 150 now", data=iter(data[:3]))
    refuse("batch 4", data=as_batches(digits, count=250))
    relabelled = [(x, (y + 1) % 10) for x, y in data]
    refuse("batch 0", data=relabelled)
    keras.config.set_floatx("float64")
    try:
        refuse("floatx is float32 there, float64 now")
    finally:
        keras.config.set_floatx("float32")


def test_networks_with_the_same_weights_are_told_apart(
    digits, trained, tmp_path
):
    network, data = trained, as_batches(digits)
    attacks = {"FGSM": FGSM(Linf(0.1))}
    evaluate(network, data, attacks, folder=tmp_path)
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    darker = keras.Model(inputs, network(layers.Rescaling(0.7)(inputs)))
    with pytest.raises(ValueError, match="the model's outputs is"):
        evaluate(darker, data, attacks, folder=tmp_path)


def test_another_loss_or_precision_is_refused(digits, trained, tmp_path):
    """Attacks climb the compiled loss, and see the gradient as it is."""
    network, data = small_network(), as_batches(digits)
    network.set_weights(trained.get_weights())
    network.compile("adam", cross_entropy())
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


def test_a_randomized_network_can_go_on_if_it_can_be_known(
    digits, trained, tmp_path
):
    network, data = trained, as_batches(digits)
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
            # Whose name Keras counts up.
            PGD(Linf(0.1), loss=ak.attacks.Margin()),
            ak.AdversarialLoss(cross_entropy(), PGD(Linf(0.1))),
            Returns(Linf(0.1), found=lambda x: x),
            ak.attacks.AutoAttack(Linf(0.1)),
            cross_entropy(),
        )

    for one, other in zip(made(), made(), strict=True):
        assert describe(one) == describe(other)
        assert " at 0x" not in json.dumps(describe(one))
    silent = ak.attacks.AutoAttack(Linf(0.1), verbose=0)
    assert describe(silent) == describe(made()[5])
    assert describe(PGD(Linf(0.1))) != describe(PGD(Linf(0.1), num_steps=9))


def test_a_damaged_folder_is_refused(digits, trained, tmp_path):
    network, data = trained, as_batches(digits)
    attacks = {"FGSM": FGSM(Linf(0.1))}
    first = evaluate(network, data, attacks, folder=tmp_path)
    file = tmp_path / "progress" / "examples.npz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match="examples.npz, which is damaged"):
        evaluate(network, data, attacks, folder=tmp_path)
    file.unlink()
    assert_same(evaluate(network, data, attacks, folder=tmp_path), first)


def test_one_evaluation_at_a_time_in_a_folder(digits, trained, tmp_path):
    """Whoever comes in its midst is refused; a certification has its own."""
    network, data = trained, as_batches(digits)
    attacks = {"FGSM": FGSM(Linf(0.1))}
    smoothed = ak.SmoothedClassifier(network, 0.1)

    def certify(data):
        return ak.certify_robustness(
            smoothed, data, 20, 10, folder=tmp_path, verbose=0
        )

    def visited(data, *visits):
        yield data[0]
        for visit in visits:
            with pytest.raises(BlockingIOError, match="in use by process"):
                visit()
        yield from data[1:]

    def evaluating():
        evaluate(network, data, {"FGSM": FGSM(Linf(0.2))}, folder=tmp_path)

    def certifying():
        certify(data)

    def both():
        few = [(x[:1], y[:1]) for x, y in data]
        certify(visited(few, evaluating, certifying))
        raise BlockingIOError("in use by process")

    report = evaluate(
        network, visited(data, evaluating, both), attacks, folder=tmp_path
    )
    assert_same(report, evaluate(network, data, attacks))
    assert not [*tmp_path.rglob(".lock")]


def test_a_full_disk_keeps_what_was_found(digits, trained, tmp_path):
    calls = counting()
    network, data = trained, as_batches(digits)
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


def test_a_folder_that_is_a_file(batch, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="`folder` must be a folder.*a file"):
        evaluate(
            small_network(),
            batch,
            {"FGSM": FGSM(Linf(0.1))},
            folder=tmp_path / "file",
        )
