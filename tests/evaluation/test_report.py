import csv
import io
import json

import numpy as np
import pytest

import atent_keras as ak
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.evaluation import AttackResult
from atent_keras.evaluation import Finding
from atent_keras.evaluation import RobustnessComparison
from atent_keras.evaluation import RobustnessReport
from atent_keras.threat_models import Linf

ATTACKS = {"FGSM": FGSM(Linf(0.1)), "PGD | 5": PGD(Linf(0.1), num_steps=5)}


def make_report(**settings):
    """Ten examples, of which the last two are clean errors.

    One attack fools the first two, the other the first and the third.
    """
    correct = np.arange(10) < 8
    succeeded = np.arange(10) < 2, np.isin(np.arange(10), [0, 2])
    norm = np.where(correct, 0.1, 0)
    results = {
        name: AttackResult(attack, fooled, norm, seconds)
        for (name, attack), fooled, seconds in zip(
            ATTACKS.items(), succeeded, (1.5, 2.5)
        )
    }
    findings = (
        Finding("zero gradients", False, "0.0 % | nothing"),
        Finding("transfer", None, "needs another network"),
        Finding("black box", True, "Square leaves 3 %"),
    )
    settings = {"findings": findings, "seed": 3, "data": "d1", **settings}
    return RobustnessReport(correct, results, **settings)


def test_accuracies():
    report = make_report()
    assert report.num_examples == 10
    assert report.clean_accuracy == 0.8
    assert report.robust_accuracy == {"FGSM": 0.6, "PGD | 5": 0.6}
    assert report.worst_case_accuracy == 0.5
    assert report.attacks == ATTACKS
    np.testing.assert_array_equal(
        report.robust["FGSM"], [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    )


def test_intervals_are_those_of_so_many_examples():
    report = make_report()
    # From tables of the exact interval for 8 of 10.
    assert report.interval(0.8) == pytest.approx((0.44390, 0.97479), abs=1e-5)
    low, high = make_report(confidence=0.99).interval(0.8)
    assert low < 0.4439 and high > 0.9748


def test_prints_a_table_with_intervals_and_findings():
    lines = str(make_report()).splitlines()
    assert lines[0] == "accuracy on 10 examples (95 % confidence), seed 3"
    assert lines[1].split() == "clean 80.00 % (44.39 to 97.48)".split()
    assert lines[2].startswith("FGSM        60.00 %")
    assert lines[2].endswith(f"1.5 s  {ATTACKS['FGSM']!r}")
    assert lines[4].startswith("worst case  50.00 %")
    assert lines[5] == "signs of masked gradients"
    assert lines[6].split()[:3] == ["zero", "gradients", "silent"]
    assert "not run" in lines[7] and "fired" in lines[8]


def test_json_markdown_and_csv_hold_the_same_figures():
    report = make_report()
    found = json.loads(report.to_json())
    assert found["clean_accuracy"] == 0.8
    assert found["robust_accuracy"] == report.robust_accuracy
    assert found["worst_case_accuracy"] == 0.5
    assert (found["num_examples"], found["seed"], found["data"]) == (
        10,
        3,
        "d1",
    )
    assert found["version"] == ak.__version__
    assert [f["verdict"] for f in found["findings"]] == [
        "silent",
        "not run",
        "fired",
    ]
    assert [row["attack"] for row in found["rows"]] == [
        "clean",
        *ATTACKS,
        "worst case",
    ]
    for row, read in zip(
        found["rows"], csv.DictReader(io.StringIO(report.to_csv())), strict=True
    ):
        assert float(read["accuracy"]) == row["accuracy"]
        assert float(read["low"]) == row["low"] < row["accuracy"] < row["high"]
        assert read["setting"] == (row["setting"] or "")
    assert found["rows"][1]["largest_norm"] == 0.1
    assert found["rows"][1]["succeeded"] == 2
    markdown = report.to_markdown()
    assert "| clean | 80.00 % | 44.39 to 97.48 |  |  |  |  |\n" in markdown
    assert (
        "| PGD \\| 5 | 60.00 % | 26.24 to 87.84 | 2 | 0.1 | 2.5 |" in markdown
    )
    assert "| zero gradients | silent | 0.0 % \\| nothing |" in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines[:6]} == {8}


def test_save_writes_every_form_and_every_example(tmp_path):
    report = make_report()
    report.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(file.name for file in folder.iterdir()) == [
        "report.csv",
        "report.html",
        "report.json",
        "report.md",
        "report.npz",
    ]
    assert (folder / "report.json").read_text() == report.to_json() + "\n"
    assert (folder / "report.html").read_text("utf-8") == report.to_html()
    with np.load(folder / "report.npz") as arrays:
        assert set(arrays) == {
            "correct",
            *(f"{name}/succeeded" for name in ATTACKS),
            *(f"{name}/norm" for name in ATTACKS),
        }
        for name, result in report.results.items():
            np.testing.assert_array_equal(
                arrays[f"{name}/succeeded"], result.succeeded
            )
            np.testing.assert_array_equal(arrays[f"{name}/norm"], result.norm)


@pytest.mark.parametrize("suffix", ["npz", "json", "md", "csv", "html"])
def test_a_folder_in_the_way_of_a_file_is_refused_at_once(suffix, tmp_path):
    (tmp_path / f"report.{suffix}").mkdir()
    attacks = {"FGSM": FGSM(Linf(0.1))}
    error = f"room for the report's files. Received: .*report.{suffix}, a fol"
    with pytest.raises(ValueError, match=error):
        # Before anybody asks for the data.
        ak.evaluate_robustness(np.argmax, None, attacks, folder=tmp_path)
    RobustnessReport.require_room(tmp_path / "other")


def test_a_comparison_has_a_line_for_each_model():
    one = make_report()
    other = RobustnessReport(
        ~one.correct, one.results, one.findings, one.seed, one.data
    )
    comparison = RobustnessComparison({"one": one, "other": other})
    lines = str(comparison).splitlines()
    assert len(lines) == 4
    assert lines[1].split()[:2] == ["model", "clean"]
    assert lines[2].split()[:4] == ["one", "80.00", "(44.39", "to"]
    assert lines[3].split()[:2] == ["other", "20.00"]
    markdown = comparison.to_markdown()
    assert "| one | 80.00 (44.39 to 97.48) | 60.00 (26.24 to 87.84)" in markdown
    rows = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert [row["model"] for row in rows] == ["one"] * 4 + ["other"] * 4
    assert float(rows[3]["accuracy"]) == 0.5
    found = json.loads(comparison.to_json())
    assert found["other"]["clean_accuracy"] == 0.2


def test_a_figure_stands_under_its_attack_whatever_their_order():
    one = make_report()
    turned = dict(reversed(one.results.items()))
    other = RobustnessReport(
        one.correct, turned, one.findings, one.seed, one.data
    )
    comparison = RobustnessComparison({"one": one, "other": other})
    *_, first, second = str(comparison).splitlines()
    assert first.split()[1:] == second.split()[1:]
    *_, first, second = comparison.to_markdown().splitlines()
    assert first.split("|")[2:] == second.split("|")[2:]
    shown = comparison.to_html().partition('class="figures"')[2]
    _, _, first, second = shown.partition("</tbody>")[0].split("<tr>")
    assert first.replace("one", "") == second.replace("other", "")


@pytest.mark.parametrize(
    "settings, difference",
    [
        ({"seed": 4}, "seed 3 and 4"),
        ({"data": "d2"}, "data d1 and d2"),
        ({"confidence": 0.9}, "confidence 0.95 and 0.9"),
    ],
)
def test_what_was_measured_differently_is_not_compared(settings, difference):
    reports = {"one": make_report(), "other": make_report(**settings)}
    with pytest.raises(
        ValueError,
        match=f"same data.*Received: .*'one' and 'other' {difference}",
    ):
        RobustnessComparison(reports)


@pytest.mark.parametrize("reports", [None, {}, [make_report()], {"one": 3}])
def test_a_comparison_needs_reports(reports):
    with pytest.raises(TypeError, match="`reports` must be a dict.*Received"):
        RobustnessComparison(reports)
