"""`tools/support_matrix.py`, as its users run it, where nothing is untried."""

import json

import atent_keras as ak
from scripts import ROOT
from scripts import run

SCRIPT = ROOT / "tools" / "support_matrix.py"


def cell(python, tensorflow, keras, result):
    exact = {"tensorflow": f"{tensorflow}.1", "keras": f"{keras}.0"}
    return {
        "python": python,
        "tensorflow": tensorflow,
        "keras": keras,
        "result": result,
        "detail": f"what happened on {python}",
        "versions": {**exact, "numpy": "2.0.2"},
    }


def test_the_table_is_that_of_the_results_which_are_kept(tmp_path):
    results, page = tmp_path / "support.json", tmp_path / "support.md"
    cells = [
        cell("3.10", "2.18", "3.15", "passes"),
        cell("3.10", "2.18", "3.8", "fails"),
        cell("3.9", "2.18", "3.8", "cannot be installed"),
    ]
    text = json.dumps({"atent_keras": ak.__version__, "cells": cells})
    results.write_text(text)
    code, output = run(
        SCRIPT,
        *("--python=3.10", "--tensorflow=2.18", "--keras=3.8,3.15"),
        *(f"--results={results}", f"--page={page}"),
    )
    assert code == 0, output
    assert results.read_text() == text
    # In the order of the releases, which is not that of the letters.
    assert (
        "| TensorFlow | Keras | Python 3.9 | Python 3.10 |\n"
        "| --- | --- | --- | --- |\n"
        "| 2.18 | 3.8 | cannot be installed | fails |\n"
        "| 2.18 | 3.15 | not tried | passes |\n"
    ) in page.read_text()
    assert "what happened on 3.10" in page.read_text()
    assert "- TensorFlow 2.18.1, Keras 3.15.0, NumPy 2.0.2" in page.read_text()
