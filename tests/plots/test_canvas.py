import importlib
import sys

import numpy as np
import pytest
from matplotlib import pyplot

import atent_keras as ak
from atent_keras import plots
from atent_keras.threat_models import L2

NOBODY = np.zeros(2, bool)


def draw_everything(plots):
    """One call of each function, on what it takes."""

    def network(x):
        return 2.0 * x[:, :2] - 1.0

    points, y = np.array([[0.2, 0.8], [0.7, 0.4]], "float32"), np.array([1, 0])
    images = np.full((2, 2, 2), 0.5, "float32")

    def sides(x):
        return network(x[:, 0])

    attack = ak.attacks.PGD(L2(0.1))
    result = ak.evaluation.AttackResult(attack, NOBODY, np.zeros(2), 0.0)
    robustness = ak.RobustnessReport(~NOBODY, {"PGD": result})
    certificates = ak.CertificationReport(
        ~NOBODY, y, np.array([0.1, 0.2]), 0.25, 1000, 100, 0.001
    )
    return [
        lambda: plots.robust_accuracy_curves({"one": robustness}),
        lambda: plots.certified_accuracy_curves({"one": certificates}),
        lambda: plots.adversarial_images(sides, images, images, y),
        lambda: plots.decision_boundaries({"one": network}, points, y),
        lambda: plots.loss_surface(
            network, points[:1], y[:1], threat_model=L2(0.1)
        ),
    ]


def test_returns_figures_and_shows_none(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(pyplot, "show", never)
    monkeypatch.setattr(pyplot.Figure, "savefig", never)
    for draw in draw_everything(plots):
        figure = draw()
        assert isinstance(figure, pyplot.Figure)
        assert pyplot.fignum_exists(figure.number)


def test_imports_and_says_what_it_needs_without_matplotlib(monkeypatch):
    monkeypatch.setattr(ak, "plots", plots, raising=False)
    for name in list(sys.modules):
        if name.split(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
        if name.startswith("atent_keras.plots"):
            monkeypatch.delitem(sys.modules, name)
    fresh = importlib.import_module("atent_keras.plots")
    assert fresh is not plots
    for draw in draw_everything(fresh):
        with pytest.raises(ImportError, match="pip install matplotlib"):
            draw()
