r"""On which Pythons, TensorFlows and releases of Keras the package works.

    pip install absl-py uv && python tools/support_matrix.py

Every combination gets a virtual environment of its own, for which uv finds the
rest, and the newest patch of each release; there the package is imported and
the tests of `CORE` run, warnings aside. `docs/support.json` is written after
every combination and `docs/support.md` from it, so that the tool can be killed
and started again: what this version of the package has been tried on is kept.
Pythons that this machine does not have are left out, with a word. Where
Python, TensorFlow and Keras exclude each other, that is the result.
"""

import importlib.util
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from absl import app
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "python", ["3.10", "3.11", "3.12", "3.13"], "Releases of Python."
)
flags.DEFINE_list(
    "tensorflow", ["2.18", "2.19", "2.20", "2.21"], "Releases of TensorFlow."
)
flags.DEFINE_list(
    "keras", ["3.8", "3.10", "3.12", "3.15"], "Releases of Keras."
)
flags.DEFINE_bool("again", False, "Try what was tried before, too.")
flags.DEFINE_integer("timeout", 1800, "Seconds that the tests may take.")
flags.DEFINE_string("results", "docs/support.json", "JSON file to go on with.")
flags.DEFINE_string("page", "docs/support.md", "Table to write from it.")

ROOT = pathlib.Path(__file__).parents[1]
UV = [sys.executable, "-m", "uv", "--no-python-downloads"]
CORE = [
    "tests/architectures/test_small_cnn.py",
    "tests/attacks/test_sgld.py",
    "tests/losses/test_adversarial.py",
    "tests/losses/test_golden_atent.py",
    "tests/test_model.py::test_a_step_of_fit_by_hand",
    "tests/test_model.py::test_exported_it_needs_tensorflow_alone",
    "tests/test_model.py::test_saved_loaded_and_trained_on",
    "tests/test_model.py::test_without_a_ball_it_is_plain_keras",
    "tests/test_threat_models.py",
]
PASSED, FAILED, EXCLUDED = "passes", "fails", "cannot be installed"
ABOUT = """\
# What it runs on

Python, TensorFlow and Keras that atent_keras {version} was tried on, each in an
environment of its own, on Linux and x86-64. Tried are the import, the numbers
of the authors' implementation, a step of `fit` against one by hand, saving,
loading and export. What cannot be installed has no release for this Python, or
TensorFlow and Keras exclude each other. This page is made, and gone on with, by
`python tools/support_matrix.py`.

"""


def package_version():
    text = (ROOT / "atent_keras" / "version.py").read_text(encoding="utf-8")
    return re.search(r'__version__ = "(.+)"', text)[1]


def output_of(command, timeout=None, **variables):
    """Whether a command succeeded, and all that it printed."""
    # What this process may have on its path is not what is tried.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return False, f"not done after {timeout} s"
    return run.returncode == 0, run.stdout


def tried(python, tensorflow, keras):
    """The result of one combination; `None` if there is no such Python."""
    if importlib.util.find_spec("uv") is None:
        sys.exit("The environments need uv: pip install uv")
    with tempfile.TemporaryDirectory() as folder:
        done, text = output_of([*UV, "venv", "-q", "-p", python, folder])
        if not done:
            print(text, end="")
            return None
        inside = os.path.join(folder, "bin", "python")
        pip = [*UV, "pip"]
        done, text = output_of(
            [
                *(*pip, "install", "-q", "-p", inside),
                *(f"tensorflow=={tensorflow}.*", f"keras=={keras}.*"),
                ".[test]",
            ]
        )
        if not done:
            return {"result": EXCLUDED, "detail": text.strip()}
        _, text = output_of([*pip, "list", "-p", inside, "--format=json"])
        packages = {
            package["name"]: package["version"]
            for package in json.loads(text[text.index("[") :].split("\n")[0])
        }
        versions = {
            name: packages[name] for name in ("tensorflow", "keras", "numpy")
        }
        done, text = output_of(
            [inside, "-m", "pytest", "-q", "-W", "default", *CORE],
            timeout=FLAGS.timeout,
            TF_CPP_MIN_LOG_LEVEL="3",
        )
        lines = text.strip().splitlines() or ["it printed nothing"]
        failures = [line for line in lines if line.startswith(("FAILED", "E "))]
        return {
            "result": PASSED if done else FAILED,
            "detail": "\n".join([*failures[:20], lines[-1]]),
            "versions": versions,
        }


def table(cells):
    """Markdown: a row for TensorFlow and Keras, a column for Python."""

    def numbers(release):
        return [int(number) for number in release.split(".")]

    pythons = sorted({cell["python"] for cell in cells}, key=numbers)
    results = {
        (cell["tensorflow"], cell["keras"], cell["python"]): cell["result"]
        for cell in cells
    }
    rows = sorted(
        {key[:2] for key in results}, key=lambda row: [*map(numbers, row)]
    )
    head = ["TensorFlow", "Keras", *(f"Python {name}" for name in pythons)]
    lines = [head, ["---"] * len(head)]
    lines += [
        [
            *row,
            *(results.get((*row, python), "not tried") for python in pythons),
        ]
        for row in rows
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_page(results):
    cells = results["cells"]
    text = ABOUT.format(version=results["atent_keras"]) + table(cells)
    failed = [cell for cell in cells if cell["result"] == FAILED]
    for cell in failed:
        text += (
            f"\nPython {cell['python']}, TensorFlow {cell['tensorflow']}, "
            f"Keras {cell['keras']}:\n\n```\n{cell['detail']}\n```\n"
        )
    exact = sorted(
        {
            "TensorFlow {tensorflow}, Keras {keras}, NumPy {numpy}".format(
                **cell["versions"]
            )
            for cell in cells
            if "versions" in cell
        }
    )
    text += "\nThe releases in full:\n\n"
    text += "".join(f"- {line}\n" for line in exact)
    (ROOT / FLAGS.page).write_text(text, encoding="utf-8")


def read(path):
    """What was found of this version of the package before."""
    version = package_version()
    if path.exists():
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["atent_keras"] == version:
            return results
    return {"atent_keras": version, "cells": []}


def key(cell):
    return cell["python"], cell["tensorflow"], cell["keras"]


def main(_):
    path = ROOT / FLAGS.results
    results = read(path)
    cells = results["cells"]
    known = {key(cell): cell for cell in cells}
    for python, tensorflow, keras in itertools.product(
        FLAGS.python, FLAGS.tensorflow, FLAGS.keras
    ):
        before = known.get((python, tensorflow, keras))
        if before and not FLAGS.again:
            continue
        found = tried(python, tensorflow, keras)
        if found is None:
            print(f"Python {python}: not on this machine", flush=True)
            continue
        cell = {"python": python, "tensorflow": tensorflow, "keras": keras}
        cell |= found
        print(*cell.values(), sep=", ", flush=True)
        if before:
            cells.remove(before)
        cells.append(cell)
        # All or nothing: a kill while it is written costs no result.
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        fresh.replace(path)
        write_page(results)
    write_page(results)


if __name__ == "__main__":
    app.run(main)
