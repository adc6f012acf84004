"""Where networks draw the line between two classes of points."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from atent_keras import checks
from atent_keras.plots import answers
from atent_keras.plots import canvas
from atent_keras.threat_models import ThreatModel
from atent_keras.types import Array
from atent_keras.types import Classifier
from atent_keras.types import Figure

# Directions all around, the diagonals among them: from a corner to itself.
_ANGLES = np.pi / 4 + np.linspace(0, 2 * np.pi, 65)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
# Class by class.
_COLORS = (canvas.BLUE, canvas.ORANGE)
_MARKERS = "os"

_PANEL = 3.4  # inches, the longer side
_LONGEST = 4  # times the shorter side


def decision_boundaries(
    models: Mapping[str, Classifier],
    x: Array,
    y: Array,
    *,
    threat_model: ThreatModel | None = None,
    resolution: int = 200,
) -> Figure:
    """Draws the classes that networks give to the points of a plane.

    There is a panel for each network, with its regions, the boundary between
    them, and the data. A point that is classified right is robust if the
    boundary does not enter the ball around it.

    Args:
        models: Dictionary from names to models: Keras models, run in inference
            mode, or callables from points to outputs, of two classes. A single
            output is that of the second class: a logit, or a probability if
            the model's compiled loss says so.
        x: Floating-point points, `(n, 2)`.
        y: Labels, integers `(n,)`, 0 and 1, or one-hot `(n, 2)`.
        threat_model: Whose balls are drawn around the points, and whose
            bounds the plane keeps. Defaults to `None`: no balls, no bounds.
        resolution: Integer, at least 2: the networks are asked at so many
            values of each coordinate. Defaults to 200.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError, TypeError: If there is no network or one of more than two
            classes, if points and labels do not fit, if outputs are not
            finite, or if `resolution` is out of its range.
        ImportError: If matplotlib is not installed.

    Example:

    >>> figure = atent_keras.plots.decision_boundaries(
    ...     {"plain": plain, "ATENT": robust},
    ...     x_test,
    ...     y_test,
    ...     threat_model=atent_keras.threat_models.Linf(0.05),
    ... )
    >>> figure.savefig("boundaries.png")

    References:
    - Jagatap et al., "Adversarially robust learning via entropic
      regularization", Frontiers in AI 2022, https://arxiv.org/abs/2008.12338,
      figure 1.
    """
    canvas.require_named("models", models, "model", callable)
    x, y, labels = _admit(x, y, threat_model)
    checks.require_count(2, resolution=resolution)
    pyplot = canvas.pyplot()
    view = _view(x.numpy(), threat_model)
    ticks = np.linspace(view[0], view[1], resolution, axis=1)
    leads = {
        name: _leads(name, model, ticks, x, y, threat_model)
        for name, model in models.items()
    }
    figure, axes = pyplot.subplots(
        1,
        len(models),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for axis, (name, lead) in zip(axes[0], leads.items()):
        _draw_regions(axis, ticks, lead)
        if threat_model is not None:
            _draw_balls(axis, x, threat_model)
        _draw_points(axis, x.numpy(), labels)
        axis.set(title=name, xlabel="$x_1$")
        axis.set(xlim=view[:, 0], ylim=view[:, 1])
    axes[0, 0].set_ylabel("$x_2$")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        # Below one panel there is no room for all of them side by side.
        ncols=len(handles) if len(models) > 1 else 2,
        frameon=False,
    )
    width, height = view[1] - view[0]
    shape = float(np.clip(height / width, 1 / _LONGEST, _LONGEST))
    canvas.fit(figure, axes, _PANEL / max(shape, 1.0), shape)
    if shape == height / width:
        for axis in axes[0]:
            axis.set_aspect("equal")
    return figure


def _admit(x, y, threat_model):
    """Returns points, labels, and the labels as integers `(n,)`."""
    if threat_model is not None and not isinstance(threat_model, ThreatModel):
        raise TypeError(
            "`threat_model` must be None or an instance of "
            "`atent_keras.threat_models.ThreatModel`, such as `Linf(0.1)`. "
            f"Received: threat_model={threat_model!r}"
        )
    x = checks.images(x, threat_model.bounds if threat_model else None)
    if x.shape.rank != 2 or x.shape[1] != 2:
        raise ValueError(
            "`x` must hold points of a plane, of shape (n, 2). Received: "
            f"shape {x.shape}"
        )
    y = checks.labels(y, x)
    return x, y, answers.labels(y, x, 2).numpy()


def _view(x, threat_model):
    """Returns the corners of the plane's part that is drawn, `(2, 2)`."""
    low, high = x.min(axis=0), x.max(axis=0)
    room = 0.08 * np.max(high - low)
    if threat_model is None:
        room = room or 1.0
        return np.array([low - room, high + room])
    room = room + threat_model.epsilon or 1.0
    corners = np.array([low - room, high + room])
    if threat_model.bounds is None:
        return corners
    return np.clip(corners, *threat_model.bounds)


def _leads(name, model, ticks, x, y, threat_model):
    """Returns the lead of the second class all over the plane."""
    bounds = float(ticks.min()), float(ticks.max())
    if threat_model is not None and threat_model.bounds is not None:
        bounds = threat_model.bounds
    points = np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, 2)
    points = tf.cast(points, x.dtype)
    outputs = answers.outputs(model, points, y, bounds).numpy()
    if outputs.shape[1] != 2:
        raise ValueError(
            "`models` must have two classes, with one output or two. "
            f"Received: {name!r} with {outputs.shape[1]} outputs"
        )
    return (outputs[:, 1] - outputs[:, 0]).reshape(len(ticks[1]), -1)


def _draw_regions(axis, ticks, lead):
    # Beyond all that is there, so that both regions are closed.
    far = 2 * float(np.max(np.abs(lead))) or 1.0
    axis.contourf(*ticks, lead, [-far, 0, far], colors=_COLORS, alpha=0.25)
    if lead.min() < 0 < lead.max():
        axis.contour(*ticks, lead, [0], colors="black", linewidths=1.5)
    axis.plot([], [], color="black", label="boundary")


def _draw_balls(axis, x, threat_model):
    """Draws the outline of the ball around each point, as one line."""
    far = 2 * threat_model.epsilon * tf.cast(_CIRCLE, x.dtype)
    count, corners = x.shape[0], len(_CIRCLE)
    around = tf.repeat(x, corners, axis=0)
    # The nearest point of the ball to one that is beyond it, all around.
    outline = threat_model.project(around, around + tf.tile(far, [count, 1]))
    outline = outline.numpy().reshape(count, corners, 2)
    # Where a number is missing, a line ends.
    gap = np.full((count, 1, 2), np.nan)
    outline = np.concatenate([outline, gap], axis=1)
    axis.plot(
        *outline.reshape(-1, 2).T,
        color="0.35",
        linewidth=0.6,
        label=rf"{canvas.norm(threat_model)} ball, "
        rf"$\epsilon$ = {threat_model.epsilon:.3g}",
    )


def _draw_points(axis, x, labels):
    for label in (0, 1):
        axis.scatter(
            *x[labels == label].T,
            s=22,
            marker=_MARKERS[label],
            color=_COLORS[label],
            edgecolor="black",
            linewidth=0.6,
            label=f"class {label}",
            zorder=3,
        )
