import numpy as np
import pytest
from matplotlib import pyplot

import atent_keras as ak
from atent_keras import plots

Linf, L2 = ak.threat_models.Linf, ak.threat_models.L2
CORRECT = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)
ROBUST = {
    0.3: np.array([1, 1, 0, 0, 0, 0, 0, 0], bool),
    0.1: np.array([1, 1, 1, 1, 1, 0, 0, 0], bool),
}


def report(robust=None, norm=Linf, confidence=0.95, correct=CORRECT):
    """A report of one attack at each radius, or of several: `(radius, i)`."""
    results = {}
    for key, survivors in (ROBUST if robust is None else robust).items():
        epsilon = key[0] if isinstance(key, tuple) else key
        results[f"attack {key}"] = ak.evaluation.AttackResult(
            ak.attacks.PGD(norm(epsilon)),
            correct & ~survivors,
            np.zeros(len(correct)),
            0.0,
        )
    return ak.RobustnessReport(correct, results, confidence=confidence)


def certification(radii, correct, **settings):
    correct = np.array(correct, bool)
    settings = {"sigma": 0.25, **settings}
    return ak.CertificationReport(
        correct,
        np.where(correct, 1, -1),
        np.array(radii),
        num_samples=1000,
        selection_samples=100,
        alpha=0.001,
        **settings,
    )


RADII, CERTIFIABLE = [0.0, 0.3, 0.3, 0.5, 0.9, 0.7], [0, 1, 1, 1, 1, 0]
CERTIFIED = certification(RADII, CERTIFIABLE)


def texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_robust_accuracies():
    other = np.array([1, 1, 1, 1, 1, 1, 0, 0], bool)
    figure = plots.robust_accuracy_curves(
        {"one": report(), "two": report({0.2: other})}, trained_at=0.15
    )
    (axis,) = figure.axes
    one, two, trained = axis.lines
    np.testing.assert_allclose(one.get_xdata(), [0, 0.1, 0.3])
    np.testing.assert_allclose(one.get_ydata(), [87.5, 62.5, 25])
    np.testing.assert_allclose(two.get_xdata(), [0, 0.2])
    np.testing.assert_allclose(two.get_ydata(), [87.5, 75])
    np.testing.assert_allclose(trained.get_xdata(), [0.15, 0.15])
    assert trained.get_linestyle() == ":"
    assert texts(figure) == ["one", "two", "trained at 0.15", "95 % confidence"]
    assert "(pixels from 0 to 1)" in axis.get_xlabel()
    assert "(%)" in axis.get_ylabel()
    low, high = axis.get_xlim()
    assert low < 0 and high > 0.3


def test_attacks_of_one_radius_count_together():
    robust = {
        (0.2, "a"): np.array([1, 0, 1, 1, 1, 1, 0, 0], bool),
        (0.2, "b"): np.array([0, 1, 1, 1, 1, 1, 0, 0], bool),
        (0.4, "b"): np.array([0, 0, 1, 0, 0, 0, 0, 0], bool),
    }
    figure = plots.robust_accuracy_curves({"one": report(robust)})
    (line,) = figure.axes[0].lines
    # Each of the two alone leaves five of eight.
    np.testing.assert_allclose(line.get_ydata(), [87.5, 50, 12.5])


def test_the_band_is_of_the_intervals():
    found = report(confidence=0.9)
    figure = plots.robust_accuracy_curves({"one": found})
    (band,) = figure.axes[0].collections
    expected = {
        (radius, round(100 * edge, 9))
        for radius, accuracy in [(0, 7 / 8), (0.1, 5 / 8), (0.3, 2 / 8)]
        for edge in found.interval(accuracy)
    }
    (path,) = band.get_paths()
    assert {(x, round(y, 9)) for x, y in path.vertices} == expected
    assert "90 % confidence" in texts(figure)


def test_l2_and_other_bounds():
    figure = plots.robust_accuracy_curves(
        {"one": report(norm=lambda epsilon: L2(epsilon, (-1, 1)))}
    )
    label = figure.axes[0].get_xlabel()
    assert r"\ell_2" in label and "(pixels from -1 to 1)" in label


def test_without_bounds():
    figure = plots.robust_accuracy_curves(
        {"one": report(norm=lambda epsilon: Linf(epsilon, None))}
    )
    assert "(in the data's units)" in figure.axes[0].get_xlabel()


def test_curves_differ_by_more_than_colour():
    reports = {str(number): report() for number in range(7)}
    lines = plots.robust_accuracy_curves(reports).axes[0].lines
    assert len({line.get_color() for line in lines}) == 7
    assert len({line.get_marker() for line in lines}) == 7
    pairs = {(line.get_color(), str(line._dash_pattern)) for line in lines}
    assert len(pairs) == 7


def test_the_legend_lies_beside_the_curves():
    name = "a network with a rather long name"
    figure = plots.robust_accuracy_curves({name: report()})
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert not legend.overlaps(figure.axes[0].get_tightbbox())
    assert figure.bbox.x1 >= legend.x1


def drawn_at(line, radius):
    """What a line of steps to the left of its points shows at a radius."""
    x, y = line.get_data()
    return y[np.searchsorted(x, radius, side="left")]


def test_certified_accuracy_falls_at_each_radius():
    figure = plots.certified_accuracy_curves({"one": CERTIFIED})
    (line,) = figure.axes[0].lines
    assert line.get_drawstyle() == "steps-pre"
    for radius in [0, 0.2, 0.3, 0.301, 0.5, 0.501, 0.7, 0.9, 0.901, 0.94]:
        expected = 100 * CERTIFIED.certified_accuracy(radius)
        assert drawn_at(line, radius) == pytest.approx(expected)
    # By hand: four of six, then two are lost, then one, then one.
    found = [drawn_at(line, radius) for radius in (0.1, 0.4, 0.8, 0.91)]
    np.testing.assert_allclose(found, [400 / 6, 200 / 6, 100 / 6, 0])
    assert line.get_xdata()[-1] > 0.9


def test_the_band_of_certified_accuracy():
    figure = plots.certified_accuracy_curves({"one": CERTIFIED})
    (band,) = figure.axes[0].collections
    (path,) = band.get_paths()
    for radius in (0.1, 0.29, 0.31, 0.49, 0.51, 0.89, 0.91):
        low, high = CERTIFIED.interval(CERTIFIED.certified_accuracy(radius))
        for share, inside in [
            (low - 1e-3, False),
            (low + 1e-3, True),
            (high - 1e-3, True),
            (high + 1e-3, False),
        ]:
            assert path.contains_point((radius, 100 * share)) == inside


def test_certificates_of_two_networks():
    other = certification(np.array(RADII) / 2, CERTIFIABLE, sigma=0.5)
    none = certification(RADII, np.zeros(6))
    figure = plots.certified_accuracy_curves(
        {"one": CERTIFIED, "two": other, "none": none}
    )
    (axis,) = figure.axes
    ends = {line.get_xdata()[-1] for line in axis.lines}
    assert len(ends) == 1 and ends.pop() > 0.9
    np.testing.assert_array_equal(axis.lines[2].get_ydata(), [0, 0])
    labels = texts(figure)
    assert "0.25" in labels[0] and "0.5" in labels[1]
    assert labels[-1] == "95 % confidence"
    assert r"\ell_2" in axis.get_xlabel()


def test_no_certificate_at_all():
    none = certification(RADII, np.zeros(6))
    (axis,) = plots.certified_accuracy_curves({"none": none}).axes
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [0, 0])


@pytest.mark.parametrize(
    "reports, message",
    [
        ({}, "names to at least one `RobustnessReport`. Received: reports={}"),
        ([report()], "must be a dictionary"),
        ({"one": 0.5}, "must be a dictionary from names"),
        ({1: report()}, "must be a dictionary from names"),
        ({"one": report({})}, "must be a dictionary from names"),
        ({"one": CERTIFIED}, "must be a dictionary from names"),
    ],
)
def test_refuses_what_is_no_report(reports, message):
    with pytest.raises(TypeError, match=message):
        plots.robust_accuracy_curves(reports)
    assert not pyplot.get_fignums()


@pytest.mark.parametrize(
    "other, message",
    [
        (report(norm=L2), "one norm and one range.*'one' Linf.*'two' L2"),
        (
            report(norm=lambda epsilon: Linf(epsilon, (0, 255))),
            r"one range of images.*\(0.0, 255.0\)",
        ),
        (report(confidence=0.9), "one confidence.*0.95.*0.9"),
    ],
)
def test_refuses_reports_that_differ(other, message):
    with pytest.raises(ValueError, match=message):
        plots.robust_accuracy_curves({"one": report(), "two": other})


@pytest.mark.parametrize("radius", [-0.1, np.inf, "0.1", True])
def test_refuses_a_radius(radius):
    with pytest.raises(ValueError, match="`trained_at` must be None or a fin"):
        plots.robust_accuracy_curves({"one": report()}, trained_at=radius)


@pytest.mark.parametrize("reports", [{}, CERTIFIED, {"one": report()}])
def test_refuses_what_is_no_certificate(reports):
    with pytest.raises(TypeError, match="at least one `CertificationReport`"):
        plots.certified_accuracy_curves(reports)


def test_refuses_certificates_of_two_confidences():
    other = certification(RADII, CERTIFIABLE, confidence=0.9)
    with pytest.raises(ValueError, match="one confidence.*0.95.*0.9"):
        plots.certified_accuracy_curves({"one": CERTIFIED, "two": other})


def test_any_name_shows_as_it_is():
    reports = {"_hidden": report(), "$5 or $6": report()}
    figure = plots.robust_accuracy_curves(reports)
    assert texts(figure)[:2] == [" _hidden", r"\$5 or \$6"]
