import csv

from atent_keras.evaluation import table


def test_text_is_aligned():
    rows = [["attack", "accuracy"], ["PGD", "1.00 %"], ["a", "10.00 %"]]
    assert table.text(rows).splitlines() == [
        "attack  accuracy",
        "PGD       1.00 %",
        "a        10.00 %",
    ]


def test_markdown_keeps_bars_inside_their_cells():
    assert table.markdown(["a", "b"], [["1", "x | y"]]) == (
        "| a | b |\n| --- | --- |\n| 1 | x \\| y |\n"
    )


def test_csv_reads_back():
    rows = [
        {"name": 'PGD, "strong"', "accuracy": 0.25, "setting": None},
        {"name": "two\nlines", "accuracy": 1.0, "setting": "f(x)"},
    ]
    assert list(csv.DictReader(table.as_csv(rows).splitlines(True))) == [
        {"name": 'PGD, "strong"', "accuracy": "0.25", "setting": ""},
        {"name": "two\nlines", "accuracy": "1.0", "setting": "f(x)"},
    ]


def test_percentages():
    assert table.percent(0.12345) == "12.35 %"
    assert table.between((0.1, 0.256)) == "10.00 to 25.60"
