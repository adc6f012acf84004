import base64
import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.evaluation import AttackResult
from atent_keras.evaluation import CertificationReport
from atent_keras.evaluation import Finding
from atent_keras.evaluation import RobustnessComparison
from atent_keras.evaluation import RobustnessReport
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from pages import Page

EVIL = "<script>alert('1')</script> & \"more\""
ATTACKS = {"FGSM": FGSM(Linf(0.25)), EVIL: PGD(L2(1.0), num_steps=5)}
CORRECT = np.arange(8) != 2
FOOLED = np.arange(8) < 2, np.arange(8) < 1
NORM = np.where(CORRECT, [0.25, 0.125, 0, 0.25, 0.25, 0.25, 0.25, 0.25], 0)
FINDINGS = (
    Finding("black box", True, f"Square {EVIL}"),
    Finding("transfer", None, "needs another network"),
)
# Grey images of 2 x 2 pixels, the last of which was misclassified.
X = np.array([[0, 0.5, 0.5, 1], [0.2, 0.2, 0.2, 0.2], [0, 0, 0, 1]])
CHANGE = np.array([[0.25, -0.25, 0, 0], [0, 0, 0.125, 0], [0, 0, 0, 0]])


def make_pictures(shape=(2, 2, 1), x=X, change=CHANGE):
    x, change = (part.reshape(-1, *shape) for part in (x, change))
    return {
        "x": x,
        "y": np.array([0, 1, 1]),
        "answers": np.array([0, 1, 0]),
        "confidences": np.array([0.75, 1.0, 0.5]),
        "FGSM/x_adv": x + change,
        "FGSM/answers": np.array([1, 1, -1]),
        "FGSM/confidences": np.array([0.875, 0.625, 0.0]),
    }


def make_report(**settings):
    results = {
        name: AttackResult(attack, fooled, NORM, 1234.5)
        for (name, attack), fooled in zip(ATTACKS.items(), FOOLED)
    }
    settings = {
        "findings": FINDINGS,
        "seed": 3,
        "data": "d1",
        "precision": "mixed_bfloat16",
        "class_names": (EVIL, "dog"),
        "pictures": make_pictures(),
        **settings,
    }
    return RobustnessReport(CORRECT, results, **settings)


def make_certificates():
    radii = np.arange(8) / 8
    return CertificationReport(
        CORRECT, np.zeros(8, int), radii, 0.5, 100, 10, 0.001
    )


def pixels(source):
    kind, _, content = source.partition(",")
    assert kind == "data:image/png;base64"
    return tf.io.decode_png(base64.b64decode(content)).numpy()


@pytest.mark.parametrize(
    "report",
    [
        make_report(),
        make_report(findings=(), pictures={}),
        RobustnessComparison({"one": make_report(), EVIL: make_report()}),
        make_certificates(),
    ],
    ids=["report", "bare", "comparison", "certificates"],
)
def test_a_page_is_whole_and_needs_nothing_else(report):
    content = report.to_html()
    page = Page(content)
    assert content.startswith("<!DOCTYPE html>") and "$" not in content
    assert page.all("html", lang="en") and page.all("meta", charset="utf-8")
    assert len(page.all("h1")) == len(page.all("title")) == 1
    assert page.all("title")[0][1] == page.all("h1")[0][1]
    assert not {"script", "iframe", "object"} & {e[0] for e in page.elements}
    for _, attributes, _ in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "url(" not in content and "@import" not in content
    for attributes, _ in page.all("img"):
        assert attributes["alt"]
    assert page.all("svg")
    for attributes, _ in page.all("svg"):
        assert attributes["role"] == "img" and attributes["aria-label"]


def test_bars_are_as_long_as_the_accuracies():
    report = make_report()
    page, rows = Page(report.to_html()), report.rows()
    assert len(page.all("svg")) == len(rows) == 4
    for row, (attributes, _), bar, mark in zip(
        rows,
        page.all("svg"),
        page.all("rect"),
        page.all("line", **{"class": "whisker"})[::3],
        strict=True,
    ):
        percent = f"{100 * row['accuracy']:.2f}"
        assert attributes["aria-label"].startswith(
            f"{row['attack']}: {percent}"
        )
        assert bar[0]["width"] == percent
        assert mark[0]["x1"] == f"{100 * row['low']:.2f}"
        assert mark[0]["x2"] == f"{100 * row['high']:.2f}"


def test_the_table_has_the_same_figures():
    page = Page(make_report().to_html())
    lines = [text for _, text in page.all("tr")]
    # Of eight examples one is misclassified; the mean is of the others.
    assert lines[1:5] == [
        "clean87.50 %47.35 to 99.68",
        "FGSM62.50 %24.49 to 91.482l_inf0.23210.251,234.5",
        f"{EVIL}75.00 %34.91 to 96.811l_20.23210.251,234.5",
        "worst case62.50 %24.49 to 91.48",
    ]
    assert "87.50 % are classified right as they are, and 62.50 %" in page.text


def test_checks_have_their_verdict_and_evidence():
    page = Page(make_report().to_html())
    lines = [text for _, text in page.all("tr")]
    assert f"black boxfiredSquare {EVIL}" in lines
    assert "transfernot runneeds another network" in lines
    assert "no checks" in Page(make_report(findings=()).to_html()).text


def test_settings():
    report = make_report(num_ignored=2)
    lines = [text for _, text in Page(report.to_html()).all("tr")]
    for name, attack in ATTACKS.items():
        assert f"attack {name}{attack!r}" in lines
    assert f"threat model{Linf(0.25)}, {L2(1.0)}" in lines
    assert "seed3" in lines and "precisionmixed_bfloat16" in lines
    assert "ignored examples2" in lines
    (versions,) = (line for line in lines if line.startswith("versions"))
    for version in (ak.__version__, keras.__version__, tf.__version__):
        assert version in versions


def test_images_are_those_that_were_kept():
    page = Page(make_report().to_html())
    images = [pixels(found["src"]) for found, _ in page.all("img")]
    # Clean, attacked and changed; the last one was not attacked.
    assert len(images) == 3 + 2 + 2
    x, change = X.reshape(-1, 2, 2, 1), CHANGE.reshape(-1, 2, 2, 1)
    expected = [*x, *(x + change)[:2], *(0.5 + change / 0.5)[:2]]
    for image, shares in zip(images, expected):
        np.testing.assert_allclose(image, 255 * shares, atol=0.51)
    names = [found["alt"] for found, _ in page.all("img")]
    assert len(set(names)) == len(names)
    assert names[2:4] == ["clean, image 2", "FGSM, image 0"]


def test_images_have_answers_confidences_and_norms():
    page = Page(make_report().to_html())
    cells = [text for _, text in page.all("td")]
    assert f"{EVIL}75 %" in cells and "dog100 %" in cells
    assert f"{EVIL}wrong, 50 %" in cells
    assert "dogwrong, 88 %l_inf 0.25l_2 0.354" in cells
    assert "dog62 %l_inf 0.125l_2 0.125" in cells
    assert "not attacked" in cells
    wrong = [text for _, text in page.all("div", **{"class": "wrong"})]
    assert len(wrong) == 2 and all("wrong" in text for text in wrong)
    heads = [text for _, text in page.all("th")]
    assert heads.count("truth: dog") == 2 and f"truth: {EVIL}" in heads
    assert "change by FGSMblack to white: ±0.25" in heads
    assert f"Not kept of {EVIL}." in page.text
    numbers = Page(make_report(class_names=None).to_html())
    assert "1wrong, 88 %l_inf 0.25l_2 0.354" in [
        text for _, text in numbers.all("td")
    ]


def test_an_answer_that_is_not_finite_is_a_wrong_one():
    pictures = make_pictures()
    pictures["FGSM/answers"][0] = pictures["y"][0]
    pictures["FGSM/confidences"][0] = np.nan
    page = Page(make_report(pictures=pictures).to_html())
    cells = [text for _, text in page.all("div", **{"class": "wrong"})]
    assert "no numberwrong, nan %l_inf 0.25l_2 0.354" in cells


@pytest.mark.parametrize(
    "shape, bounds, scale",
    [
        ((2, 2), (0, 1), 1),
        ((2, 2, 1), (0, 255), 255),
        ((2, 2, 1), None, 3),
    ],
    ids=["no channel", "integers", "no bounds"],
)
def test_images_are_drawn_within_their_bounds(shape, bounds, scale):
    pictures = make_pictures(shape, scale * X, scale * CHANGE)
    report = make_report(pictures=pictures)
    result = report.results["FGSM"]
    attack = FGSM(Linf(0.25, bounds))
    results = {"FGSM": dataclasses.replace(result, attack=attack)}
    page = Page(dataclasses.replace(report, results=results).to_html())
    images = [pixels(found["src"]) for found, _ in page.all("img")]
    for image, shares in zip(images, X.reshape(-1, 2, 2, 1)):
        np.testing.assert_allclose(image, 255 * shares, atol=0.51)


@pytest.mark.parametrize(
    "pictures, bounds, why",
    [
        ({}, (0, 1), "results were begun without images"),
        (make_pictures((4,)), (0, 1), r"no images .* the shape \(4,\)"),
        (make_pictures((4, 1)), None, r"no images .* the shape \(4, 1\)"),
        ({"x": np.zeros((0, 600, 600, 3))}, (0, 1), "Too large .*600, 600, 3"),
    ],
    ids=["none kept", "table", "signal", "large"],
)
def test_a_page_says_why_there_are_no_images(pictures, bounds, why):
    report = make_report(pictures=pictures)
    result = report.results["FGSM"]
    attack = FGSM(Linf(0.25, bounds))
    results = {"FGSM": dataclasses.replace(result, attack=attack)}
    page = Page(dataclasses.replace(report, results=results).to_html())
    assert not page.all("img") and re.search(why, page.text)


def test_whatever_a_name_is_it_stays_text():
    names = {EVIL: make_report(), "\x00\ud800 & co": make_report()}
    content = RobustnessComparison(names).to_html()
    content.encode("utf-8")
    assert "<script" not in content and "\x00" not in content
    page = Page(content)
    assert EVIL in page.text and "\ufffd\ufffd & co" in page.text
    assert EVIL in [found.get("title") for found, _ in page.all("span")]


def test_of_a_thousand_classes_only_those_shown_are_named():
    names = tuple(f"class {number}" for number in range(1000))
    content = make_report(class_names=names).to_html()
    found = set(re.findall(r"class \d+", content))
    assert found == {"class 0", "class 1"}


def test_a_comparison_has_each_network_under_each_attack():
    one = make_report()
    other = make_report(precision="float32", findings=FINDINGS[:1])
    page = Page(RobustnessComparison({"one": one, "other": other}).to_html())
    assert "Robustness of 2 networks on 8 examples" in page.text
    heads = [text for _, text in page.all("h3")]
    assert heads == ["clean", "FGSM", EVIL, "worst case"]
    assert len(page.all("rect")) == 8
    lines = [text for _, text in page.all("tr")]
    assert lines[1] == (
        "one87.50 %47.35 to 99.6862.50 %24.49 to 91.4875.00 %34.91 to 96.81"
        "62.50 %24.49 to 91.48"
    )
    assert "onefirednot run" in lines and "otherfirednot looked for" in lines
    assert "precision of onemixed_bfloat16" in lines
    assert "precision of otherfloat32" in lines


def test_certificates_have_a_bar_for_each_radius():
    report = make_certificates()
    page = Page(report.to_html())
    bars = [float(found["width"]) for found, _ in page.all("rect")]
    assert bars == [100 * row["accuracy"] for row in report.rows()]
    assert "smoothing with sigma 0.5" in page.text
