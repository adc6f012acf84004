"""`tools/results.py`, of figures that are made up."""

import importlib.util
import json
import math

import pytest
from absl.testing import flagsaver
from test_standings import made_up
from test_standings import row

import suites
from scripts import ROOT


@pytest.fixture(scope="module")
def tool():
    """The script as a module, its flags as if they had been parsed."""
    spec = importlib.util.spec_from_file_location(
        "results_tool", ROOT / "tools" / "results.py"
    )
    module = importlib.util.module_from_spec(spec)
    before = {*flagsaver.save_flag_values()}
    spec.loader.exec_module(module)
    yield module
    for name in {*flagsaver.save_flag_values()} - before:
        delattr(module.FLAGS, name)


def comparison(folder):
    """What compare.py leaves in a folder, of three rows."""
    ours, plain, rival = (
        row(name, 0, clean)
        for name, clean in {"ATENT": 0.9, "plain": 0.94, "TRADES": 0.8}.items()
    )
    for one in (ours, plain, rival):
        one |= {
            "devices": ["/device:CPU:0"],
            "versions": {"python": "3.12.0", "keras": "3.15.1"},
            "atent_keras": "0.1.0",
            "processor": "A Processor",
            "flags": {"epochs": 3, "seed": 0},
        }
    ours["command"] = "python examples/digits.py --flagfile=/home/me/x/a.flags"
    results = {"suite": "digits_linf", **made_up(ours, plain, rival)}
    judge = suites.SUITES["digits_linf"].judge
    results["judge"] = json.loads(json.dumps(judge._asdict()))
    results["rows"][0]["flags"]["data_dir"] = "/home/me"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    for name in ("robust_accuracy", "certified_accuracy"):
        (folder / f"{name}.png").write_bytes(b"a picture")
    return results


def test_the_page_is_what_the_script_makes(tool):
    """So that nobody types a figure; `python tools/results.py` mends it."""
    docs = ROOT / "docs"
    page = (docs / "results.md").read_text(encoding="utf-8")
    assert page == tool.page(docs)
    for file in (docs / "results").glob("*.json"):
        results = json.loads(file.read_text(encoding="utf-8"))
        assert results == tool.without_paths(results)


def test_adds_a_comparison(tool, tmp_path):
    results = comparison(tmp_path / "found")
    tool.add(tmp_path / "found", "digits_linf", tmp_path)
    kept = tmp_path / "results"
    assert {path.name for path in kept.iterdir()} == {
        "digits_linf.json",
        "digits_linf_certified_accuracy.png",
        "digits_linf_robust_accuracy.png",
    }
    found = json.loads((kept / "digits_linf.json").read_text())
    # Nothing of the machine but the last part of its paths.
    assert found["rows"][0]["flags"] == {"epochs": 3, "seed": 0}
    command = "python examples/digits.py --flagfile=a.flags"
    assert found["rows"][0]["command"] == command
    assert found["rows"][0]["devices"] == ["/device:CPU:0"]
    assert found["rows"][1:] == results["rows"][1:]
    page = tool.page(tmp_path)
    for text in (
        "## digits_linf\n",
        "| ATENT | 0 | 90.00 (85.00 to 95.00) |",
        "| *Others (2020)* |  | 99.45 |",
        "The curves of ATENT, plain, TRADES, of seed 0:\n\n"
        "![Accuracy under PGD-40 over the radius, of ATENT, plain, TRADES]"
        "(results/digits_linf_robust_accuracy.png)",
        "Trained on A Processor, CPU:0, python 3.12.0, keras 3.15.1, judged b",
        f"`{command}`",
        # In the order of the differences, ours minus theirs; half-widths of
        # 5 points each make one of 5 * sqrt(2).
        "- Clean, ATENT is 10.00 above TRADES (+2.93 to +17.07), 4.00 below "
        "plain (-11.07 to +3.07).",
        "- Under AutoAttack, ATENT is 2.50 above TRADES",
    ):
        assert text in page


def test_says_which_row_was_trained_on_what(tool, tmp_path):
    results = comparison(tmp_path / "found")
    results["rows"][1]["processor"] = "Another"
    results["rows"][1]["versions"]["atent_keras"] = "1.0.0"
    others = ", CPU:0, python 3.12.0, keras 3.15.1"
    assert (
        f"Trained on A Processor{others}, judged by atent_keras 0.1.0 (ATENT, "
        f"TRADES); Another{others}, atent_keras 1.0.0 (plain).\n"
    ) in tool.section("digits_linf", results)


def test_a_picture_names_those_that_are_in_it(tool, tmp_path):
    results = comparison(tmp_path / "found")
    results["rows"][1]["seed"] = 1
    section = tool.section("digits_linf", results)
    assert "over the radius, of ATENT, TRADES](" in section
    assert "The curves of ATENT, TRADES, of seed 0:" in section


def part(folder, *ran, **changed):
    """A folder of the comparison of which only some rows were run."""
    results = comparison(folder)
    results["rows"] = [
        row if row["name"] in ran else as_plan(row) for row in results["rows"]
    ]
    results["rows"][0] |= changed
    (folder / "results.json").write_text(json.dumps(results))
    for name in ("robust_accuracy", "certified_accuracy"):
        (folder / f"{name}.png").write_text(folder.name)
    return folder


def as_plan(row):
    kept = ("name", "seed", "method", "passes", "command", "flags")
    return {key: row[key] for key in kept if key in row}


def test_what_another_folder_ran_stays(tool, tmp_path):
    """A suite in two parts, the plain network with both."""
    kept = tmp_path / "results"
    tool.add(part(tmp_path / "one", "plain", "ATENT"), "digits_linf", tmp_path)
    two = part(tmp_path / "two", "plain", "TRADES", share=0.5)
    tool.add(two, "digits_linf", tmp_path)
    found = json.loads((kept / "digits_linf.json").read_text())
    names = ["ATENT", "plain", "TRADES", "MART"]
    assert [row["name"] for row in found["rows"]] == names
    assert ["clean" in row for row in found["rows"]] == [True] * 3 + [False]
    assert found["rows"][0]["share"] == 0.5  # not known when it was run
    page = tool.page(tmp_path)
    for rows, note, stem, folder in (
        (
            "ATENT, plain",
            " (of plain those of an earlier training)",
            "digits_linf",
            "one",
        ),
        ("plain, TRADES", "", "digits_linf-2", "two"),
    ):
        assert f"The curves of {rows}, of seed 0{note}:\n\n![Accuracy" in page
        assert f"of {rows}](results/{stem}_robust_accuracy.png)\n![" in page
        picture = kept / f"{stem}_certified_accuracy.png"
        assert picture.read_text() == folder


def test_what_was_run_anew_takes_its_place(tool, tmp_path):
    kept = tmp_path / "results"
    tool.add(part(tmp_path / "one", "ATENT"), "digits_linf", tmp_path)
    tool.add(part(tmp_path / "two", "TRADES"), "digits_linf", tmp_path)
    three = part(tmp_path / "three", "ATENT", "plain", clean={"accuracy": 0.7})
    tool.add(three, "digits_linf", tmp_path)
    found = json.loads((kept / "digits_linf.json").read_text())
    assert found["rows"][0]["clean"] == {"accuracy": 0.7}
    pictures = kept.glob("*_robust_accuracy.png")
    assert {path.name: path.read_text() for path in pictures} == {
        "digits_linf_robust_accuracy.png": "three",
        "digits_linf-2_robust_accuracy.png": "two",
    }
    tool.add(part(tmp_path / "four", "TRADES"), "digits_linf", tmp_path)
    found = json.loads((kept / "digits_linf.json").read_text())
    assert found["pictures"] == {
        "digits_linf": {"seed": 0, "rows": ["ATENT", "plain"]},
        "digits_linf-2": {"seed": 0, "rows": ["TRADES"]},
    }


def test_other_judges_figures_do_not_stay(tool, tmp_path):
    for name, images in {"ATENT": 16, "plain": 8}.items():
        folder = part(tmp_path / name, name)
        results = json.loads((folder / "results.json").read_text())
        results |= {
            "suite": None,
            "judge": results["judge"] | {"images": images},
        }
        (folder / "results.json").write_text(json.dumps(results))
        tool.add(folder, "mine", tmp_path)
    found = json.loads((tmp_path / "results" / "mine.json").read_text())
    done = [row["name"] for row in found["rows"] if "clean" in row]
    assert done == ["plain"]
    assert found["pictures"] == {"mine": {"seed": 0, "rows": ["plain"]}}


def test_seeds_stand_in_order(tool, tmp_path):
    tool.add(part(tmp_path / "one", "ATENT"), "digits_linf", tmp_path)
    two = part(tmp_path / "two", "ATENT", seed=1)
    tool.add(two, "digits_linf", tmp_path)
    three = part(tmp_path / "three", "ATENT")
    tool.add(three, "digits_linf", tmp_path)
    file = tmp_path / "results" / "digits_linf.json"
    rows = json.loads(file.read_text())["rows"]
    ours = [row["seed"] for row in rows if row["name"] == "ATENT"]
    assert ours == [0, 1]


def test_refuses_a_row_of_other_settings(tool, tmp_path):
    tool.add(part(tmp_path / "one", "ATENT"), "digits_linf", tmp_path)
    file = tmp_path / "results" / "digits_linf.json"
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    two = part(tmp_path / "two", "plain", flags={"epochs": 4, "seed": 0})
    with pytest.raises(
        ValueError,
        match=f"Received: {file} with ATENT, seed 0, of epochs 3 there, 4 now",
    ):
        tool.add(two, "digits_linf", tmp_path)
    after = {path: path.read_bytes() for path in file.parent.iterdir()}
    assert before == after


def test_says_what_was_not_run(tool, tmp_path):
    comparison(tmp_path / "found")
    tool.add(tmp_path / "found", "digits_linf", tmp_path)
    said = tool.page(tmp_path).partition("## Not run\n")[2].split("\n")
    for name, suite in tool.suites.SUITES.items():
        command = f"- `python examples/compare.py --suite={name}`: "
        line = command + ", ".join(suite.rows)
        assert (line in said) == (name != "digits_linf")


@pytest.mark.parametrize(
    "name, title", [("ATENT wide", "ATENT wide"), ("MART", None)]
)
def test_compares_whichever_of_our_rows_was_run(tool, tmp_path, name, title):
    results = comparison(tmp_path / "found")
    results["rows"][0]["name"] = name
    section = tool.section("digits_linf", results)
    if title is None:
        assert "### Where" not in section
    else:
        assert f"### Where {title} is better, and where worse" in section
        assert f"- Clean, {title} is 10.00 above TRADES" in section


def test_differences_of_one_seed_are_newcombes(tool):
    """Wilson's or whose intervals they are, one formula joins them."""
    ours = {"accuracy": 0.7, "low": 0.6, "high": 0.75}
    theirs = {"accuracy": 0.5, "low": 0.3, "high": 0.6}
    mean, low, high = tool.difference({0: ours}, {1: theirs})
    assert mean == pytest.approx(0.2)
    assert low == pytest.approx(0.2 - math.hypot(0.1, 0.1))
    assert high == pytest.approx(0.2 + math.hypot(0.05, 0.2))


def test_differences_of_several_are_taken_seed_by_seed(tool):
    ours = {
        seed: {"accuracy": value} for seed, value in {0: 0.7, 1: 0.6}.items()
    }
    theirs = {
        seed: {"accuracy": value}
        for seed, value in {0: 0.65, 1: 0.65, 2: 0.9}.items()
    }
    found = tool.difference(ours, theirs)
    assert found == pytest.approx((0.0, -0.05, 0.05))
    assert tool.in_words("MART", *found) == "level with MART (-5.00 to +5.00)"


def test_paths_lose_their_folders(tool):
    found = tool.without_paths(
        {"output_dir": "/a/b", "list": ["/a/b/c.npz of /x/y", "1/2", "/one"]}
    )
    assert found == {"list": ["c.npz of y", "1/2", "/one"]}


@pytest.mark.parametrize(
    "suite, change, error",
    [
        (None, {}, "needs a --suite.*--suite=None"),
        ("../up", {}, "needs a --suite.*--suite=../up"),
        ("mnist_linf", {}, "--suite=mnist_linf, and digits_linf in"),
        ("digits_linf", {"rows": []}, "a row that was run"),
        ("digits_linf", {"epochs": 2}, "with epochs 2 and the judge"),
        ("digits_linf", {"judge": {"images": 8}}, "as --suite is.*'images': 8"),
    ],
    ids=["none", "no name", "another", "nothing run", "quick", "few images"],
)
def test_refuses(tool, suite, change, error, tmp_path):
    folder = tmp_path / "found"
    results = comparison(folder) | change
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=error):
        tool.add(folder, suite, tmp_path)
    assert not (tmp_path / "results").exists()
    with pytest.raises(ValueError, match="which has no results.json"):
        tool.add(tmp_path, "digits_linf", tmp_path)
