"""`examples/compare.py`: its scripts run in forks, the rest in this process."""

import contextlib
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import types

import compare
import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

import atent_keras as ak
import compared_run
import scripts
import settings
import standings
import suites
from atent_keras.lock import Lock
from compared_run import flag_file
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
        forget(saved)
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
    assert "| *Somebody (2020)* |" in table and "| not run |" not in table
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
    (copy / "rows" / "fast-at_seed_0.json").write_text("[")
    evaluation = copy / "evaluations" / "fast-at_seed_0"
    (evaluation / "Fast-AT" / "radii" / "report.npz").write_bytes(b"PK no")
    (evaluation / "Fast-AT" / "report.json").unlink()
    (copy / "runs" / "fast-at_seed_0" / "classifier.keras").write_bytes(b"PK")
    end, output = main(*QUICK, f"--output_dir={copy}")
    assert end is None, output
    assert read(copy / "results.json") == before


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
        (
            ["--flagfiles=digits_linf,{tmp}/x/Digits_linf.flags", "{0.1}"],
            "differ in more than case.*: digits_linf and Digits_linf",
        ),
        (["--flagfiles={tmp}/a.flags", "{0.1}"], "a, seed 0: .*'foreign'"),
        (["--flagfiles={tmp}/b.flags", "{0.1}"], "--method=plain takes only"),
        (["--flagfiles={tmp}/c.flags", "{0.1}"], "flags and .*: num_steps=3"),
        (["--flagfiles={tmp}/d.flags", "{0.1}"], "d, seed 0: .*weights='none'"),
        (["--flagfiles={tmp}/e.flags", "{0.1}"], "e, seed 0: .*find a GPU"),
        (["--suite=small", "--output_dir={tmp}/a.flags"], "a folder. .*, a fi"),
        (["--suite=small", "--output_dir={tmp}"], "which has no comparison.js"),
    ],
    ids=str,
)
def test_refuses_before_any_work(arguments, error, tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda: [])
    (tmp_path / "a.flags").write_text("--foreign=1\n")
    (tmp_path / "b.flags").write_text("--method=plain\n--num_steps=3\n")
    (tmp_path / "c.flags").write_text("--method=pgd\nnum_steps=3\n")
    (tmp_path / "d.flags").write_text("--weights=none\n")
    (tmp_path / "e.flags").write_text("--device=gpu\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "Digits_linf.flags").write_text("--method=pgd\n")
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
    assert re.search(error, end, re.DOTALL), end
    assert not new.exists()


@pytest.mark.parametrize(
    "damage, error",
    [
        (lambda copy: ["--images=4"], "images 8 there, 4 now"),
        (lambda copy: ["--epochs=3"], "epochs 2 there, 3 now"),
        (
            lambda copy: (copy / "comparison.json").write_text("{"),
            "comparison.json must hold JSON. Received: a damaged one",
        ),
        (
            lambda copy: (copy / "comparison.json").write_text("[]"),
            "comparison.json must say what is compared",
        ),
        (
            lambda copy: edit(copy / "comparison.json", rows={"plain": "no"}),
            "must be files that exist, .* Received: no$",
        ),
        (
            lambda copy: edit(
                copy / "comparison.json", rows={"plain": "digits_linf"}
            ),
            "must keep its flag file. .* with plain from .*linf.flags there",
        ),
        (
            lambda copy: edit(
                copy / "runs" / "plain_seed_0" / "config.json",
                flags={"dataset": "digits"},
            ),
            "plain, seed 0: A run goes on with the flags it was started with",
        ),
    ],
    ids=[
        "images",
        "epochs",
        "no JSON",
        "no comparison",
        "lost flag file",
        "another flag file",
        "another run",
    ],
)
def test_refuses_what_is_there(copy, damage, error):
    given = damage(copy)
    before = files_within(copy)
    given = given if isinstance(given, list) else []
    end, _ = main(*QUICK, *given, f"--output_dir={copy}")
    assert re.search(error, end, re.DOTALL), end
    assert files_within(copy) == before


def test_tries_the_images_of_a_network_that_came_later(copy):
    record = copy / "rows" / "fast-at_seed_0.json"
    before = read(record)
    (transfer,) = (f for f in before["findings"] if f["check"] == "transfer")
    assert transfer["verdict"] != "not run"
    edit(record, findings=[{**transfer, "verdict": "not run"}])
    end, output = main(*QUICK, f"--output_dir={copy}")
    assert end is None, output
    assert "[1/1] Fast-AT" in output and read(record) == before


def test_a_torn_network_tries_none(copy):
    plain, other = plan(SMALL, copy, epochs=2)
    other.surrogate = plain
    assert plain.is_trained() and other.is_done()
    known = other.results()
    edit(other.record, findings=[{"check": "transfer", "verdict": "not run"}])
    assert not other.is_done()
    plain.network_file.write_bytes(b"PK")
    assert not plain.is_trained()
    assert other.is_done() and not other.is_done([plain])
    edit(other.record, **known)


def edit(path, **changes):
    path.write_text(json.dumps({**read(path), **changes}))


def files_within(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_refuses_while_a_killed_comparison_goes_on(copy):
    """Its last script did not die with it."""
    (copy / "rows" / "plain_seed_0.json").unlink()
    with Lock(copy / "runs" / "plain_seed_0"):
        end, _ = main(*QUICK, f"--output_dir={copy}")
    assert "plain, seed 0, is being worked on" in end
    assert re.search(r"in use by process \d+ on", end)
    with Lock(copy):
        end, _ = main(*QUICK, f"--output_dir={copy}")
    assert "--output_dir must not be in use by another process" in end


def test_refuses_a_full_disk(tmp_path, monkeypatch):
    room = types.SimpleNamespace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    end, _ = main(*QUICK, f"--output_dir={tmp_path / 'new'}")
    assert re.search(r"have room for \d+ MiB of networks.*1 MiB free", end)
    assert not (tmp_path / "new").exists()


def test_refuses_without_data(tmp_path, monkeypatch):
    def missing(split, limit, data_dir):
        raise FileNotFoundError(f"No prepared copy of mnist in {data_dir}")

    monkeypatch.setattr(ak.datasets, "mnist", missing)
    end, _ = main(
        "--suite=mnist_linf",
        "--rows=plain",
        "--data_dir=/none",
        f"--output_dir={tmp_path / 'new'}",
    )
    assert "No prepared copy of mnist in /none" in end
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "script, error",
    [
        ("print('first'); exit('last')", "with 1. Its last words, in .*: last"),
        ("raise SystemExit(3)", "with 3. Its last words, in .*: nothing"),
        ("import os; os.kill(os.getpid(), 9)", "by SIGKILL. Its last words"),
    ],
    ids=["message", "silent", "killed"],
)
def test_says_how_a_script_failed(script, error, tmp_path, monkeypatch):
    monkeypatch.setattr(compared_run, "subprocess", subprocess)
    file, log = tmp_path / "script.py", tmp_path / "script.log"
    file.write_text(script)
    log.write_text("of an earlier one\n")
    with pytest.raises(RuntimeError, match=f"script.py ended {error}"):
        compared_run._call(file, [], log)


def test_joins_rows_and_seeds_of_earlier_commands(tmp_path):
    def folder():
        return ComparisonFolder(tmp_path, None, SMALL.judge, None)

    plain, linf = map(flag_file, ("digits_plain", "digits_linf"))
    folder().keep(*folder().joined({"plain": plain}, [1, 0]))
    rows, seeds = folder().joined({"ATENT": linf}, [3])
    assert rows == {"plain": plain, "ATENT": linf}
    assert seeds == [0, 1, 3]
    early = folder()
    early.require_unchanged()
    folder().keep(rows, seeds)
    with pytest.raises(BlockingIOError, match="just added rows or seeds"):
        early.require_unchanged()


def test_training_images_are_those_that_are_trained_on():
    """As the runs divide the digits; of the others, what the package says."""
    (x, _), _ = ak.datasets.digits()
    assert suites.TRAINING_IMAGES["digits"] == len(x) - 200


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_training_images_of_downloads(dataset, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no download for this test")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    try:
        info = ak.datasets._prepared(dataset, None).info
    except (FileNotFoundError, ImportError) as error:
        pytest.skip(str(error))
    # The last 5,000 validate.
    expected = info.splits["train"].num_examples - 5_000
    assert suites.TRAINING_IMAGES[dataset] == expected


@pytest.mark.parametrize("name", [one for one in suites.SUITES], ids=str)
def test_suites(name, tmp_path):
    """Flag files are there, of the norm, and spend what the suite says."""
    suite = suites.SUITES[name]
    runs = plan(suite, tmp_path)
    for run in runs:  # which have checked that the norm is the suite's
        assert not any(claim.startswith("/") for claim in run.command.split())
    spent = [run.passes for run in runs if is_alike(run)]
    assert len(spent) > 3
    assert max(spent) <= 1.04 * min(spent)
    assert runs[0].name == "plain"
    columns = {"clean", suite.judge.pgd, "AutoAttack"}
    for claims in suite.published.values():
        assert claims.keys() <= columns
        assert all(0 < value <= 100 for value in claims.values())


def is_alike(run):
    """Whether a row is one of those that spend the same."""
    return run.method != "plain training" and not re.search(
        r"\d steps|WRN|ResNet", run.name
    )


@pytest.mark.parametrize("name", [one for one in suites.SUITES], ids=str)
def test_a_quick_look_is_quick(name, tmp_path):
    """With fewer epochs than some of the flag files warm up for."""
    runs = plan(suites.SUITES[name], tmp_path, epochs=1)
    assert {run.epochs for run in runs} == {1}


def test_a_quick_look_by_a_flag_file_within_another(tmp_path):
    wide = flag_file("mnist_linf_wide_cpu")
    outer = tmp_path / "mine.flags"
    outer.write_text(f"# Not --awp_warmup_epochs=3.\n--flagfile={wide}\n")
    suite = suites.Suite(suites.judge("mnist", "linf", 0.3), {"mine": outer})
    (run,) = plan(suite, tmp_path / "new", epochs=2)
    assert run.epochs == 2
    assert run.command.endswith("--epochs=2 --epsilon_warmup_epochs=0")


def test_radii_stay_within_the_pixels_range():
    assert suites.judge("digits", "linf", 0.7).radii == (
        0.175,
        0.35,
        0.525,
        0.7,
        0.875,
    )
    assert max(suites.judge("digits", "l2", 0.7).radii) == 1.05


def test_a_path_may_hold_commas():
    text = 'ATENT=/a, "b"/c=d.keras'
    assert flags.ListParser().parse(compared_run._as_list(text)) == [text]


def plan(suite, folder, **given):
    """The runs of a suite, of which nothing is done."""
    saved = flagsaver.save_flag_values(FLAGS)
    dataset = suite.judge.dataset
    settings.define(dataset, **settings.DATASETS[dataset])
    try:
        return [
            compared_run.ComparedRun(
                row, flag_file(file), 0, suite.judge, folder, **given
            )
            for row, file in suite.rows.items()
        ]
    finally:
        forget(saved)


def forget(saved):
    """Takes the flags of the runs back."""
    for flag in list(FLAGS.flags_by_module_dict().get("settings", ())):
        delattr(FLAGS, flag.name)
    flagsaver.restore_flag_values(saved, FLAGS)


def figure(accuracy, low=None, high=None, count=100):
    low = accuracy if low is None else low
    high = accuracy if high is None else high
    return {
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "num_examples": count,
        "seconds": 1.0,
    }


def test_progress(capsys, monkeypatch):
    """Passes of 2 s and judgements of 30 s, on average, are still to come."""

    def run(name, passes, epochs):
        return types.SimpleNamespace(
            label=name, passes=passes, epochs=epochs, command="", rows=list
        )

    clock = itertools.count(100.0, 6.0)
    monkeypatch.setattr("progress.time.monotonic", lambda: next(clock))
    first, second, third = runs = [
        run("first", 10, 4),
        run("second", 60, 4),
        run("third", 100, 4),
    ]
    progress = Progress(runs)
    progress.begin(first)
    assert "[1/3] first: 4 epochs, 10 passes\n" in capsys.readouterr().out
    progress.add(first, {"training_seconds": 10, "judging_seconds": 20})
    # Of an earlier command: it is not waited for.
    known = {"training_seconds": 30, "judging_seconds": 40}
    progress.add(run("earlier", 10, 4), known)
    progress.begin(second)
    # 160 passes of 2 s, and two judgements of 30 s.
    expected = "[2/3] second: 4 epochs, 60 passes; all that is left: about 6 m"
    assert expected in capsys.readouterr().out
    row = {"val_accuracy": 0.5, "val_robust_accuracy": 0.25, "seconds": 50.0}
    for count in (1, 1, 2, 3, 4):
        progress.watch([row] * count)
    lines = capsys.readouterr().out.splitlines()
    # The second is told 6 s after the first, so not.
    assert [line.split(":")[0].strip() for line in lines] == [
        "epoch 1/4",
        "epoch 3/4",
        "epoch 4/4",
    ]
    assert "50.0 % clean, 25.0 % under PGD" in lines[0]
    assert "about 2 min left" in lines[0]  # three epochs of 50 s
    progress.judge()
    assert "the attacks, about 30 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (7_440, "2 h 04 min")],
    ids=str,
)
def test_duration(seconds, text):
    assert duration(seconds) == text
