"""Tables of a comparison, of figures that are made up."""

import csv
import io

import pytest

import standings


def figure(accuracy, low, high, count=200):
    return {
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "num_examples": count,
    }


def row(name, seed, clean, fired=()):
    """A row that was run; its accuracies follow from the clean one."""
    return {
        "name": name,
        "seed": seed,
        "method": name,
        "passes": 1200.0,
        "command": f"python train.py --seed={seed}",
        "training_seconds": 90.0 + 60 * seed,
        "clean": figure(clean, clean - 0.05, clean + 0.05, 1000),
        "PGD-40": figure(clean / 2, clean / 2 - 0.1, clean / 2 + 0.1, 1000),
        "AutoAttack": figure(clean / 4, 0.1, 0.3),
        "findings": [
            {"check": "black box", "verdict": "silent"},
            {"check": "probabilities", "verdict": "not run"},
            *({"check": check, "verdict": "fired"} for check in fired),
        ],
        "certified": {
            "rows": [
                {"radius": 0.0, **figure(0.8, 0.7, 0.9)},
                {"radius": 0.25, **figure(clean - 0.5, 0.2, 0.5)},
            ],
            "none": 0.036,
        },
    }


def made_up(*rows, sigma=0.25):
    waiting = {"name": "MART", "seed": 0, "passes": 1170.4, "command": "later"}
    return {
        "epochs": None,
        "judge": {
            "dataset": "digits",
            "norm": "linf",
            "epsilon": 0.15,
            "pgd": "PGD-40",
            "pgd_images": 10_000,
            "images": 500,
            "sigma": sigma,
            "certified_images": 100,
            "certified_samples": 1000,
        },
        "published": {"Others (2020)": {"clean": 99.45, "AutoAttack": 88.5}},
        "rows": [*rows, waiting],
    }


def cells(text):
    """The cells of a table in Markdown, by the first one."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {line[0]: line[1:] for line in found}


def test_a_seed_has_its_interval():
    text = standings.as_markdown(made_up(row("ATENT", 1, 0.9)))
    table = cells(text)
    assert table["network"] == [
        "seeds",
        "clean (1,000)",
        "PGD-40 (1,000)",
        "AutoAttack (200)",
        "certified at 0.25",
        "signs of masking",
        "passes",
        "minutes",
    ]
    assert table["ATENT"] == [
        "1",
        "90.00 (85.00 to 95.00)",
        "45.00 (35.00 to 55.00)",
        "22.50 (10.00 to 30.00)",
        "40.00 (20.00 to 50.00)",
        "none (not run: probabilities)",
        "1,200",
        "2.5",
    ]
    assert "in brackets 95 % intervals." in text


def test_says_how_many_of_the_images_were_trained_on():
    fewer = row("ATENT", 0, 0.9) | {"share": 0.911}
    every = row("plain", 0, 0.9) | {"share": 1.0}
    table = cells(standings.as_markdown(made_up(fewer, every)))
    assert table["ATENT"][-2] == "1,200 (on 91 % of the images)"
    assert table["plain"][-2] == "1,200"


def test_several_seeds_have_their_mean_and_extremes():
    rows = (
        row("ATENT", 0, 0.9, fired=["black box"]),
        row("ATENT", 1, 0.8, fired=["large radius", "black box"]),
        row("ATENT", 4, 0.7),
    )
    found = cells(standings.as_markdown(made_up(*rows)))["ATENT"]
    assert found[:2] == ["0, 1, 4", "80.00 (70.00 to 90.00)"]
    assert found[3] == "20.00 (17.50 to 22.50)"
    # Whatever fired for any of them, once; the mean of 1.5, 2.5 and 5.5.
    signs = "black box, large radius (not run: probabilities)"
    assert found[5:] == [signs, "1,200", "3.2"]


def test_says_what_brackets_mean():
    several = [row("ATENT", 0, 0.9), row("ATENT", 1, 0.8)]
    text = standings.as_markdown(made_up(*several))
    assert "the least and the most of the seeds, after their mean. " in text
    text = standings.as_markdown(made_up(*several, row("plain", 0, 0.9)))
    assert "their mean, and of a single seed 95 % intervals. " in text


def test_others_stand_beside():
    table = cells(standings.as_markdown(made_up(row("ATENT", 0, 0.9))))
    claims = ["", "99.45", "", "88.50", "", "", "", ""]
    assert table["*Others (2020)*"] == claims
    assert table["MART"] == ["not run", "", "", "", "", "", "1,170", ""]


def test_before_anything_is_run():
    results = made_up()
    table = cells(standings.as_markdown(results))
    assert table["network"][3] == "AutoAttack (500)"
    assert list(table) == ["network", "---", "MART", "*Others (2020)*"]
    assert standings.as_csv(results) == ""


def test_certifies_nothing_beyond_the_last_radius():
    found = row("ATENT", 0, 0.9)
    assert standings.certified(found, 0.25)["accuracy"] == pytest.approx(0.4)
    beyond = {"accuracy": 0.0, "low": 0.0, "high": 0.036}
    assert standings.certified(found, 0.5) == beyond


def test_csv_has_a_line_for_each_row_that_was_run():
    text = standings.as_csv(
        made_up(row("ATENT", 0, 0.9), row("TRADES", 2, 0.8))
    )
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["name"], second["seed"]) == ("ATENT", "2")
    assert float(first["clean accuracy"]) == 0.9
    assert float(second["AutoAttack high"]) == 0.3
    assert float(first["certified at 0.25"]) == pytest.approx(0.4)


def test_commands_say_what_was_not_run():
    table = cells(standings.commands(made_up(row("ATENT", 3, 0.9))))
    assert table["ATENT, seed 3"] == ["", "`python train.py --seed=3`"]
    assert table["MART, seed 0"] == ["not run", "`later`"]
