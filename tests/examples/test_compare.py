"""`examples/compare.py`: its scripts run in forks, the rest in this process."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import types

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import atent_keras as ak
import compare
import compared_run
import scripts
import settings
import standings
import suites
from atent_keras.lock import Lock
from comparison_folder import ComparisonFolder
from kills import newest
from progress import Progress
from progress import duration

FLAGS = flags.FLAGS
SMALL = suites.Suite(
    suites.Judge(
        "digits",
        "linf",
        0.15,
        pgd="PGD-2",
        pgd_images=16,
        images=8,
        radii=(0.15,),
        certified_images=8,
        certified_samples=100,
    ),
    {"plain": "digits_plain", "Fast-AT": "digits_linf_fast"},
    published={"Somebody (2020)": {"clean": 99.5}},
)
QUICK = ("--suite=small", "--epochs=2")


@pytest.fixture(scope="module", autouse=True)
def small():
    """A suite that is quick, and scripts that need not import TensorFlow.

    FGSM stands in for AutoAttack, which takes most of a judgement's time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(suites.SUITES, "small", SMALL)
        patch.setattr(standings, "AUTO_ATTACK", "FGSM")
        patch.setattr(compared_run, "POLL", 0.02)
        patch.setattr(
            compared_run,
            "subprocess",
            types.SimpleNamespace(
                Popen=scripts.Popen, STDOUT=subprocess.STDOUT
            ),
        )
        yield


def main(*arguments):
    """Runs it; returns what it ended with, and what it printed."""
    own, saved = map(flagsaver.save_flag_values, (compare.OWN, FLAGS))
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    end, output = None, io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            compare.main(compare.parse(["compare.py", *map(str, arguments)]))
    except SystemExit as error:
        end = error.code
    finally:
        for flag in list(FLAGS.flags_by_module_dict().get("settings", ())):
            delattr(FLAGS, flag.name)
        flagsaver.restore_flag_values(saved, FLAGS)
        flagsaver.restore_flag_values(own, compare.OWN)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return end, output.getvalue()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Ended while the second row is trained."""
    folder = tmp_path_factory.mktemp("comparison")

    def watch(self, rows):
        if self.run.name == "Fast-AT" and newest(self.run.path):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "watch", watch)
        end, output = main(*QUICK, f"--output_dir={folder}")
    with Lock(folder / "runs" / "fast-at_seed_0"):
        pass  # Nobody goes on with it.
    return folder, end, output, files(folder / "rows")


@pytest.fixture(scope="module")
def whole(killed):
    """The same, which went on to its end."""
    folder = killed[0]
    end, output = main(*QUICK, f"--output_dir={folder}")
    assert end is None, output
    return folder, output


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_goes_on_after_a_kill(killed, whole):
    folder, end, output, rows = killed
    assert end == 128 + signal.SIGTERM
    assert "\nStopped. The same command goes on" in output
    # The row that was done stays, to the last bit, and is not run again.
    assert list(rows) == ["plain_seed_0.json"]
    assert files(folder / "rows").items() > rows.items()
    assert "[1/1] Fast-AT, seed 0: 2 epochs, 10 passes; all" in whole[1]
    log = (folder / "runs" / "fast-at_seed_0.log").read_text()
    assert "Going on after epoch" in log


def test_writes_everything(whole):
    folder, output = whole
    assert {path.name for path in folder.iterdir()} == {
        "certified_accuracy.png",
        "comparison.json",
        "evaluations",
        "results.csv",
        "results.json",
        "results.md",
        "robust_accuracy.png",
        "rows",
        "runs",
    }
    table = (folder / "results.md").read_text()
    assert standings.as_markdown(read(folder / "results.json")) in output
    assert "| *Somebody (2020)* |" in table and "not run" not in table
    assert table.count("`python examples/digits.py --flagfile=exam") == 2
    assert (folder / "results.csv").read_text().count("\n") == 3


def test_the_figures_are_those_of_the_network(whole):
    folder, _ = whole
    x, y = ak.datasets.digits()[1]
    for row in read(folder / "results.json")["rows"]:
        stem = f"{row['name']}_seed_0".lower()
        network = keras.models.load_model(
            folder / "runs" / stem / "classifier.keras", compile=False
        )
        right = np.argmax(network(x[:16]), axis=-1) == y[:16]
        assert row["clean"]["num_examples"] == 16
        assert row["clean"]["accuracy"] == np.mean(right)
        assert row["FGSM"]["num_examples"] == 8
        checks = {one["check"]: one["verdict"] for one in row["findings"]}
        assert (checks["transfer"] == "not run") == (row["name"] == "plain")


def test_does_nothing_again(whole, monkeypatch):
    folder, _ = whole
    before = read(folder / "results.json")
    monkeypatch.setattr(compared_run, "_call", None)
    end, output = main(*QUICK, f"--output_dir={folder}")
    assert end is None and "epochs, " not in output.partition("\n\n")[0]
    assert read(folder / "results.json") == before
    # Rows and seeds of earlier commands stay.
    end, _ = main(*QUICK, "--rows=plain", f"--output_dir={folder}")
    assert read(folder / "results.json") == before


@pytest.fixture
def copy(whole, tmp_path):
    return pathlib.Path(shutil.copytree(whole[0], tmp_path / "copy"))


def test_makes_anew_what_is_damaged(copy):
    before = read(copy / "results.json")
    (copy / "results.json").write_text("{")
    (copy / "rows" / "plain_seed_0.json").write_text("[")
    evaluation = copy / "evaluations" / "fast-at_seed_0"
    (evaluation / "Fast-AT" / "radii" / "report.npz").write_bytes(b"PK no")
    (evaluation / "Fast-AT" / "report.json").unlink()
    (copy / "runs" / "fast-at_seed_0" / "classifier.keras").write_bytes(b"PK")
    end, output = main(*QUICK, f"--output_dir={copy}")
    assert end is None, output
    after = read(copy / "results.json")
    for results in (before, after):
        for row in results["rows"]:
            del row["judging_seconds"]
    assert after == before


@pytest.mark.parametrize(
    "arguments, error",
    [
        ([], "Either --suite must be given, one of digits_linf, .*=None"),
        (["--suite=digit"], "one of digits_linf, .*Received: --suite=digit,"),
        (["--suite=small", "--flagfiles=digits_linf"], "Either --suite must"),
        (["--suite=small", "--epsilon=0.1"], "a suite has its own.*=0.1"),
        (["--suite=small", "--norm=l2"], "a suite has its own.*--norm=l2"),
        (["--suite=small", "--rows=ATENT"], "among plain, Fast-AT.*ATENT"),
        (["--suite=small", "--seeds=1,1"], "different integers.*'1', '1'"),
        (["--suite=small", "--seeds=-1"], "different integers, at least 0"),
        (["--suite=small", "--seeds=4294967296"], "seed 4294967296: .*=42949"),
        (["--suite=small", "--epochs=0"], "--epochs=0.*a positive integer"),
        (["--suite=small", "--epochs=9999999999"], "--epochs=9999999999"),
        (["--suite=small", "--steps=3"], "Unknown command line flag 'steps'"),
        (["--flagfiles=digits_linf"], "need --dataset and --epsilon"),
        (["{any}", "--epsilon=8"], "below 1; 8 of 255.*--epsilon=8"),
        (["{any}", "--epsilon=0"], "positive. Received: --epsilon=0"),
        (["{any}", "--epsilon=x"], "a number or a fraction"),
        (["{any}", "--epsilon=1", "--norm=l2"], "must be one of l2.*mnist_l"),
        (
            ["--flagfiles=none", "--dataset=digits", "--epsilon=0.1"],
            "must be files that exist, .*digits_linf.* Received: none",
        ),
        (
            ["--flagfiles=digits_linf,x/digits_linf.flags", "{0.1}"],
            "must have different names",
        ),
        (["--flagfiles={tmp}/a.flags", "{0.1}"], "a, seed 0: .*'foreign'"),
        (["--flagfiles={tmp}/b.flags", "{0.1}"], "--method=plain takes only"),
        (["--suite=small", "--output_dir={tmp}/a.flags"], "a folder. .*, a fi"),
        (["--suite=small", "--output_dir={tmp}"], "which has no comparison.js"),
    ],
    ids=str,
)
def test_refuses_before_any_work(arguments, error, tmp_path):
    (tmp_path / "a.flags").write_text("--foreign=1\n")
    (tmp_path / "b.flags").write_text("--method=plain\n--num_steps=3\n")
    meant = {
        "{any}": ["--flagfiles=digits_linf", "--dataset=digits"],
        "{0.1}": ["--dataset=digits", "--epsilon=0.1"],
    }
    arguments = [
        one.replace("{tmp}", str(tmp_path))
        for argument in arguments
        for one in meant.get(argument, [argument])
    ]
    new = tmp_path / "new"
    end, output = main(f"--output_dir={new}", *arguments)
    assert isinstance(end, str) and not output
    pytest.raises(ValueError, match=f"(?s){error}").__exit__(
        ValueError, ValueError(end), None
    )
    assert not new.exists()
