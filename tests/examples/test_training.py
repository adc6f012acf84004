"""The command line, as its users run it: in processes, which may be killed."""

import csv
import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.lock import Lock
from kills import EXAMPLES
from kills import FLAGS
from kills import SCRIPT
from kills import kill
from kills import state
from scripts import run
from scripts import run_afresh


def read(folder):
    with open(folder / "metrics.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        row.pop("seconds")
    results = json.loads((folder / "results.json").read_text())
    results.pop("training_seconds")
    return rows, results


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    code, output = run_afresh(SCRIPT, *FLAGS, f"--output_dir={folder}")
    assert code == 0, output
    return folder, output


def test_writes_everything(whole):
    folder, output = whole
    assert {path.name for path in folder.iterdir()} == {
        "best.keras",
        "checkpoints",
        "classifier.keras",
        "config.json",
        "images.png",
        "last.keras",
        "metrics.csv",
        "report.txt",
        "results.json",
        "saved_model",
        "tensorboard",
    }
    rows, results = read(folder)
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert results["num_examples"] == 64
    assert f"{100 * results['clean_accuracy']:.2f} %" in output
    # It learned, on real data.
    assert results["clean_accuracy"] > 0.3
    served = tf.saved_model.load(str(folder / "saved_model"))
    plain = keras.models.load_model(folder / "classifier.keras")
    images = np.zeros((5, 28, 28, 1), "float32")
    np.testing.assert_array_equal(served.serve(images), plain(images))
    assert not isinstance(plain, ak.RobustModel)


def test_best_is_the_best_epoch_with_averaged_weights(whole):
    folder, _ = whole
    robust = [float(row["val_robust_accuracy"]) for row in read(folder)[0]]
    best = keras.models.load_model(folder / "best.keras", compile=False)
    last = keras.models.load_model(folder / "last.keras", compile=False)
    same = all(map(np.array_equal, best.get_weights(), last.get_weights()))
    assert same == (robust[-1] > max(robust[:-1]))


def test_a_plain_run_keeps_the_epoch_of_the_best_clean_accuracy(tmp_path):
    flags = [flag for flag in FLAGS if "step" not in flag.split("=")[0]]
    code, output = run(
        SCRIPT,
        *flags,
        "--method=plain",
        "--validation_attack_steps=1",
        "--epsilon=0.9",
        f"--output_dir={tmp_path / 'plain'}",
    )
    assert code == 0, output
    rows, _ = read(tmp_path / "plain")
    # At this radius nothing is robust in any epoch: no choice to be had there.
    assert {float(row["val_robust_accuracy"]) for row in rows} == {0.0}
    clean = [float(row["val_accuracy"]) for row in rows]
    best = keras.models.load_model(tmp_path / "plain" / "best.keras")
    last = keras.models.load_model(tmp_path / "plain" / "last.keras")
    same = all(map(np.array_equal, best.get_weights(), last.get_weights()))
    assert same == (clean[-1] > max(clean[:-1]))
    assert clean[-1] > clean[0]


def test_goes_on_after_being_killed_and_ends_the_same(whole, tmp_path):
    folder = tmp_path / "killed"
    # In the midst of the first epoch, then while a checkpoint is written.
    assert kill(folder, 4, in_write=False) == 0
    assert kill(folder, 24, in_write=True) >= 2
    assert not (folder / "results.json").exists()
    code, output = run(SCRIPT, *FLAGS, f"--output_dir={folder}")
    assert code == 0, output
    assert "Going on after epoch " in output
    assert read(folder) == read(whole[0])
    for one, other in zip(state(folder), state(whole[0]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_complete_run_shows_its_report_again(whole):
    folder, _ = whole
    code, output = run(SCRIPT, *FLAGS, f"--output_dir={folder}")
    assert code == 0
    assert "This run is complete" in output
    assert (folder / "report.txt").read_text().strip() in output


def test_makes_anew_what_it_knows(whole, tmp_path):
    """All of it in one run, from the checkpoint before the last."""
    folder = shutil.copytree(whole[0], tmp_path / "damaged")
    (folder / "report.txt").unlink()
    (folder / "results.json").write_text("{")
    (folder / "images.png").write_bytes(b"")
    (folder / "classifier.keras").write_bytes(b"")
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"")
    (folder / "checkpoints" / "checkpoint").write_bytes(b"\x80")
    (folder / "checkpoints" / "step-60.index").write_bytes(b"")
    code, output = run(SCRIPT, *FLAGS, f"--output_dir={folder}")
    assert code == 0, output
    assert "Going on after epoch 2 and " in output
    assert read(folder) == read(whole[0])
    assert (folder / "images.png").stat().st_size > 0
    assert (folder / "classifier.keras").stat().st_size > 0
    assert (folder / "report.txt").read_text() in output
    for one, other in zip(state(folder), state(whole[0]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_refuses_what_it_can_not_make_anew(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "damaged")
    (folder / "results.json").unlink()
    file = folder / "best.keras"
    file.write_bytes(file.read_bytes()[:-100])
    code, output = run(SCRIPT, *FLAGS, f"--output_dir={folder}")
    assert code != 0 and "Traceback" not in output
    assert f"{file} must hold a network. Received: a damaged one" in output
    assert not (folder / "results.json").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--flagfile=missing.flags"], "missing.flags"),
        (["--num_step=3"], "Unknown command line flag 'num_step'"),
        (["--epsilon=8"], "8 of 255 grey levels are --epsilon=8/255"),
        (["--epsilon=8/0"], "must be a number or a fraction like 8/255"),
        (["extra"], "Unknown arguments: extra"),
    ],
)
def test_refuses_flags_before_any_data_are_loaded(arguments, message, tmp_path):
    folder = tmp_path / "run"
    # The data folder is empty: loading anything would fail otherwise.
    code, output = run(
        EXAMPLES / "mnist.py",
        *arguments,
        f"--output_dir={folder}",
        f"--data_dir={tmp_path}",
    )
    assert code != 0
    assert message in output
    assert "Traceback" not in output
    assert not folder.exists()


def test_refuses_the_folder_of_another_run(whole):
    folder, _ = whole
    changed = [flag for flag in FLAGS if not flag.startswith("--epochs")]
    code, output = run(SCRIPT, *changed, "--epochs=4", f"--output_dir={folder}")
    assert code != 0
    assert "--epochs=3 there, 4 now" in output


def test_refuses_the_folder_in_which_another_run_is_at_work(tmp_path):
    with Lock(tmp_path):
        code, output = run(SCRIPT, *FLAGS, f"--output_dir={tmp_path}")
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert code != 0
    message = f"Received: {tmp_path}, in use by process {os.getpid()} on"
    assert f"--output_dir must not be in use by another process. {message}" in (
        output
    )
    assert "Traceback" not in output


def test_another_data_sets_network_is_not_evaluated(whole):
    code, output = run(
        EXAMPLES / "evaluate.py",
        f"--model={whole[0] / 'best.keras'}",
        "--dataset=digits",
    )
    # MNIST's network does not take the digits' images.
    assert code != 0
    assert "a network for images of shape (28, 28, 1)" in output
