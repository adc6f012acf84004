"""Accuracy over the radius, of several models."""

import itertools
from collections.abc import Mapping

import numpy as np

from atent_keras.evaluation.certification import CertificationReport
from atent_keras.evaluation.report import RobustnessReport
from atent_keras.plots import canvas
from atent_keras.threat_models import LARGEST
from atent_keras.threat_models import is_finite
from atent_keras.types import Figure


def robust_accuracy_curves(
    reports: Mapping[str, RobustnessReport], *, trained_at: float | None = None
) -> Figure:
    """Draws accuracy under attack over the radius of the ball.

    ```python
    y = mean(f(x) == y)                       # at 0
    y = mean(no attack of this radius fools x)
    ```

    The band around a curve is of confidence intervals, each for its radius
    alone. Give the same attack at several radii; a curve that rises says that
    an attack was too weak further left.

    Args:
        reports: Dictionary from the models' names to `RobustnessReport`,
            whose attacks are of one norm and one range of images. Attacks of
            one radius count together, example by example.
        trained_at: Float, the radius of the training, which a dotted line
            marks. Defaults to `None`: no line.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError, TypeError: If there is no report, if norms, ranges or
            confidences differ, or if `trained_at` is out of its range.
        ImportError: If matplotlib is not installed.

    Example:

    >>> attacks = {
    ...     f"PGD at {epsilon:.3g}": atent_keras.attacks.PGD(
    ...         atent_keras.threat_models.Linf(epsilon), num_steps=40
    ...     )
    ...     for epsilon in (0.05, 0.1, 0.15, 0.2)
    ... }
    >>> reports = {
    ...     name: atent_keras.evaluate_robustness(model, data, attacks)
    ...     for name, model in models.items()
    ... }
    >>> figure = atent_keras.plots.robust_accuracy_curves(
    ...     reports, trained_at=0.15
    ... )
    >>> figure.savefig("curves.png")

    References:
    - Jagatap et al., "Adversarially robust learning via entropic
      regularization", Frontiers in AI 2022, https://arxiv.org/abs/2008.12338,
      figure 3.
    """
    canvas.require_named(
        "reports",
        reports,
        "`RobustnessReport`",
        lambda report: isinstance(report, RobustnessReport) and report.attacks,
    )
    threat_model = _common(reports)
    if trained_at is not None and (not is_finite(trained_at) or trained_at < 0):
        raise ValueError(
            "`trained_at` must be None or a finite number, at least 0 and at "
            f"most {LARGEST:g}. Received: trained_at={trained_at!r}"
        )
    figure, axis = _axis(
        rf"radius $\epsilon$ of the {canvas.norm(threat_model)} ball "
        f"({_units(threat_model.bounds)})",
        "accuracy under attack (%)",
    )
    curves = {name: _robust(report) for name, report in reports.items()}
    for style, (name, (radii, shares)) in zip(_styles(), curves.items()):
        interval = reports[name].interval
        marker = style.pop("marker")
        style = {"label": canvas.plain(name), "marker": marker, **style}
        _draw(axis, radii, shares, interval, **style)
    if trained_at is not None:
        axis.axvline(
            trained_at,
            color="0.35",
            linestyle=":",
            label=f"trained at {trained_at:.3g}",
        )
    furthest = max(radii[-1] for radii, _ in curves.values())
    return _finish(figure, axis, max(furthest, trained_at or 0), reports)


def certified_accuracy_curves(
    reports: Mapping[str, CertificationReport],
) -> Figure:
    """Draws certified accuracy over the l_2 radius.

    ```python
    y = mean((certified == y) & (radii >= x))
    ```

    A curve falls at each example's own certified radius, by that example's
    share. The band around it is of confidence intervals, each for its radius
    alone.

    Args:
        reports: Dictionary from the models' names to `CertificationReport`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError, TypeError: If there is no report, or confidences differ.
        ImportError: If matplotlib is not installed.

    Example:

    >>> figure = atent_keras.plots.certified_accuracy_curves(
    ...     {"noise": report, "ATENT and noise": other_report}
    ... )
    >>> figure.savefig("certified.png")

    References:
    - Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via
      randomized smoothing", ICML 2019, https://arxiv.org/abs/1902.02918.
    """
    canvas.require_named(
        "reports",
        reports,
        "`CertificationReport`",
        lambda report: isinstance(report, CertificationReport),
    )
    _require_one_confidence(reports)
    figure, axis = _axis(
        r"certified radius in $\ell_2$ (in the images' units)",
        "certified accuracy (%)",
    )
    certified = {
        name: np.unique(report.radii[report.correct])
        for name, report in reports.items()
    }
    furthest = max(np.max(radii, initial=0.0) for radii in certified.values())
    # So that each curve is seen to have come down.
    furthest = 1.05 * float(furthest) or 1.0
    for style, (name, radii) in zip(_styles(), certified.items()):
        report = reports[name]
        # Up to a radius, it included, all hold who hold there: steps to the
        # left of each point. After the last one nobody does.
        radii = np.concatenate([[0.0], radii[radii > 0], [furthest]])
        shares = [report.certified_accuracy(radius) for radius in radii]
        del style["marker"]
        _draw(
            axis,
            radii,
            shares,
            report.interval,
            step="pre",
            label=rf"{canvas.plain(name)} ($\sigma$ = {report.sigma:g})",
            **style,
        )
    return _finish(figure, axis, furthest, reports)


def _common(reports):
    """Returns one of the threat models, all of one norm and range."""
    _require_one_confidence(reports)
    (first, known), *others = (
        (name, attack.threat_model)
        for name, report in reports.items()
        for attack in report.attacks.values()
    )
    for name, other in others:
        if (type(known), known.bounds) != (type(other), other.bounds):
            raise ValueError(
                "`reports` must hold attacks of one norm and one range of "
                f"images. Received: for {first!r} {known!r} and for {name!r} "
                f"{other!r}"
            )
    return known


def _require_one_confidence(reports):
    found = {name: report.confidence for name, report in reports.items()}
    if len(set(found.values())) > 1:
        raise ValueError(
            "`reports` must be of one confidence, that of the bands. "
            f"Received: {found}"
        )


def _robust(report):
    """Returns the radii of a report's attacks, 0 first, and accuracies."""
    survivors = {0.0: report.correct}
    for name, attack in report.attacks.items():
        epsilon = attack.threat_model.epsilon
        before = survivors.get(epsilon, report.correct)
        survivors[epsilon] = before & report.robust[name]
    radii = sorted(survivors)
    return np.array(radii), [float(survivors[r].mean()) for r in radii]


def _styles():
    """Yields what tells one curve from the next, without end."""
    for color, line, marker in zip(
        *map(itertools.cycle, (canvas.COLORS, canvas.LINES, canvas.MARKERS))
    ):
        yield {"color": color, "linestyle": line, "marker": marker}


def _axis(xlabel, ylabel):
    figure, axis = canvas.pyplot().subplots(
        figsize=(7.5, 4.2), layout="constrained"
    )
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _draw(axis, radii, shares, interval, step=None, **style):
    """Draws one curve of accuracies, with its band."""
    bands = 100 * np.array([interval(share) for share in shares])
    axis.fill_between(
        radii, *bands.T, step=step, color=style["color"], alpha=0.15, lw=0
    )
    axis.plot(
        radii,
        100 * np.array(shares),
        drawstyle=f"steps-{step}" if step else "default",
        **style,
    )


def _finish(figure, axis, furthest, reports):
    furthest = furthest or 1.0
    # Room for the markers at either end.
    axis.set(xlim=(-0.02 * furthest, 1.02 * furthest), ylim=(-2, 102))
    confidence = next(iter(reports.values())).confidence
    # Of no model's colour, for the legend alone.
    axis.fill([], [], color="0.85", label=f"{100 * confidence:g} % confidence")
    # Beside the curves, not on them.
    figure.legend(loc="outside right upper", frameon=False, handlelength=3)
    return figure


def _units(bounds):
    if bounds is None:
        return "in the data's units"
    return "pixels from {:g} to {:g}".format(*bounds)
