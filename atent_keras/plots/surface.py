"""The loss around an image, along two directions of the ball."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import margins
from atent_keras.attacks import gradients
from atent_keras.attacks import noise as noise_lib
from atent_keras.compiler import slices
from atent_keras.evaluation.target import Target
from atent_keras.evaluation.target import columns
from atent_keras.plots import answers
from atent_keras.plots import canvas
from atent_keras.threat_models import ThreatModel
from atent_keras.threat_models import per_example
from atent_keras.threat_models import require_number
from atent_keras.types import Array
from atent_keras.types import Classifier
from atent_keras.types import Figure
from atent_keras.types import Loss

_LEVELS = 20
_PANEL = 4.4  # inches
_CORNERS = 360  # the square's own four among them


class Surface(NamedTuple):
    """What is found around an image.

    Attributes:
        ticks: Floats `(resolution,)`, steps in units of the radius.
        losses: Floats `(resolution, resolution)`, a row for each step along
            the random direction.
        margins: The lead of the true class there; an error where negative.
        outline: Floats `(corners, 2)`, the ball's outline, in the same units.
    """

    ticks: np.ndarray
    losses: np.ndarray
    margins: np.ndarray
    outline: np.ndarray


def loss_surface(
    model: Classifier,
    x: Array,
    y: Array,
    *,
    threat_model: ThreatModel,
    loss: Loss | None = None,
    seed: int = 0,
    extent: float = 1.75,
    resolution: int = 41,
) -> Figure:
    """Draws a network's loss in a plane around one image.

    ```python
    ascent = ascent_direction(gradient(x))
    other = ascent_direction(noise without its part along the gradient)
    z[b, a] = loss(f(clip(x + epsilon * (a * ascent + b * other))), y)
    ```

    In l_2 both directions have length 1 and stand at right angles; in l_inf
    they consist of signs, and the ball cuts a square out of the plane, which
    stands on its corner. The loss of a network without masked gradients rises
    smoothly to the right. Pixels are clipped to the images' bounds, if there
    are any, so that far outside of them the surface is flat.

    Args:
        model: A Keras model, run in inference mode, or a callable from images
            to outputs `(batch, classes)`.
        x: One image within the threat model's bounds, `(1, ...)`.
        y: Its label, integer `(1,)` or one-hot `(1, classes)`.
        threat_model: `Linf` or `L2`: whose directions, radius and bounds.
        loss: A Keras loss (name, config or instance). Defaults to `None`: the
            model's compiled base loss, else cross-entropy from logits.
        seed: Integer, from which the random direction follows. Defaults to 0.
        extent: Float, how far the plane goes, in units of the radius.
            Defaults to 1.75.
        resolution: Integer, at least 3, the number of points along each
            direction. Defaults to 41, for 1,681 evaluations of the network.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError, TypeError: If there is not one image, if image, label,
            network and loss do not fit each other, or if the loss has no
            gradient there.
        ImportError: If matplotlib is not installed.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(8 / 255)
    >>> figure = atent_keras.plots.loss_surface(
    ...     model, x_test[:1], y_test[:1], threat_model=threat_model
    ... )
    >>> figure.savefig("surface.png")
    """
    answers.require_model(model)
    _require(threat_model, extent)
    checks.require_count(3, resolution=resolution)
    x = checks.images(x, threat_model.bounds)
    y = checks.labels(y, x)
    if x.shape[0] != 1 or x.shape.num_elements() < 2:
        raise ValueError(
            "`x` must hold a single image, of shape (1, ...), with two pixels "
            f"or more. Received: shape {x.shape}"
        )
    loss = base_losses.of_model(model, y) if loss is None else loss
    loss = base_losses.get(loss)
    x, y = checks.batch(model, loss, threat_model, x, y)
    loss = checks.decided(model, loss, x.shape, threat_model.bounds)
    pyplot = canvas.pyplot()
    ticks = extent * np.linspace(-1, 1, resolution)
    found = surface(model, loss, x, y, threat_model, seed, ticks)
    figure, axis = pyplot.subplots(layout="constrained")
    filled = axis.contourf(ticks, ticks, found.losses, _LEVELS, cmap="viridis")
    figure.colorbar(filled, label="loss of the image")
    _draw_errors(axis, found)
    _draw_ball(axis, found.outline)
    unit = rf"in units of $\epsilon$ = {threat_model.epsilon:.3g}"
    axis.set(
        xlim=ticks[[0, -1]],
        ylim=ticks[[0, -1]],
        xlabel=f"along the loss's steepest ascent, {unit}",
        ylabel=f"along a random direction, {unit}",
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    canvas.fit(figure, np.array([[axis]]), _PANEL, 1.0)
    axis.set_aspect("equal")
    return figure


def surface(model, loss, x, y, threat_model, seed, ticks):
    """Evaluates a loss in a plane around one image.

    Args:
        model, loss, x, y, threat_model: As `checks.batch` admits them.
        seed: Integer.
        ticks: Floats, steps along either direction in units of the radius.

    Returns:
        A `Surface`.
    """
    ascent, other = directions(model, loss, x, y, threat_model, seed)
    b, a = (
        tf.cast(tf.reshape(step, [-1]), x.dtype)
        for step in np.meshgrid(ticks, ticks, indexing="ij")
    )

    target, losses, leads = Target(model), [], []
    for rows in slices(a.shape[0]):
        step = _combined(a[rows], b[rows], ascent, other)
        x_adv = threat_model.clip(x + threat_model.epsilon * step)
        outputs = answers.finite(target.outputs(x_adv))
        repeated = tf.repeat(y, outputs.shape[0], axis=0)
        losses.append(base_losses.per_example(loss, repeated, outputs))
        outputs = columns(outputs, loss)
        labels = answers.labels(y, x, outputs.shape[1])
        leads.append(margins.margin(outputs, labels))
    losses, leads = (
        tf.reshape(tf.concat(part, axis=0), [len(ticks)] * 2).numpy()
        for part in (losses, leads)
    )
    return Surface(
        ticks, losses, leads, _outline(ascent, other, threat_model).numpy()
    )


def directions(model, loss, x, y, threat_model, seed):
    """Returns the steepest ascent of the loss, and a random direction.

    Returns:
        Two steps of norm 1, of the shape of `x`.

    Raises:
        ValueError: If the gradient is zero or not finite.
    """
    gradient, *_ = gradients.at(
        checks.inference(model),
        x,
        lambda outputs: base_losses.per_example(loss, y, outputs),
    )
    largest = float(tf.reduce_max(tf.abs(gradient)))
    if not 0 < largest < np.inf:
        raise ValueError(
            "The loss must have a finite gradient other than zero at the "
            "image. Received: a network whose gradient there is at most "
            f"{largest}"
        )
    # Scaled, so that squares neither under- nor overflow.
    gradient = gradient / largest
    noise = noise_lib.normal_noise(noise_lib.as_seed(seed), x)(0)
    # Two directions that are the same would make no plane.
    share = tf.reduce_sum(noise * gradient) / tf.reduce_sum(gradient**2)
    return (
        threat_model.ascent_direction(gradient),
        threat_model.ascent_direction(noise - share * gradient),
    )


def _outline(ascent, other, threat_model):
    """Returns where the plane leaves the ball, `(corners, 2)`, in radii."""
    angles = np.linspace(0, 2 * np.pi, _CORNERS + 1)
    around = tf.cast(np.stack([np.cos(angles), np.sin(angles)], 1), other.dtype)
    lengths = [
        threat_model.norm(_combined(*tf.transpose(around[rows]), ascent, other))
        for rows in slices(around.shape[0])
    ]
    return around / tf.concat(lengths, axis=0)[:, None]


def _combined(a, b, ascent, other):
    """Returns `a * ascent + b * other` for each pair, `(n, ...)`."""
    return per_example(a, ascent) * ascent + per_example(b, other) * other


def _draw_errors(axis, found):
    if found.margins.min() >= 0:
        return
    far = 2 * float(np.max(np.abs(found.margins)))
    plane = found.ticks, found.ticks, found.margins
    axis.contourf(*plane, [-far, 0], colors="none", hatches=["//"])
    if found.margins.max() > 0:
        axis.contour(*plane, [0], colors="black", linewidths=1.5)
    # For the legend alone.
    axis.fill(
        [], [], fill=False, hatch="////", linewidth=1.5, label="misclassified"
    )


def _draw_ball(axis, outline):
    from matplotlib import patheffects

    # White in black shows on every colour, and in the legend.
    edge = [patheffects.withStroke(linewidth=3.5, foreground="black")]
    axis.plot(
        *outline.T,
        color="white",
        linewidth=1.5,
        path_effects=edge,
        label="ball",
    )
    axis.plot(
        *np.zeros((2, 1)),
        color="white",
        marker="*",
        markersize=15,
        markeredgecolor="black",
        linestyle="",
        label="clean image",
    )


def _require(threat_model, extent):
    if not isinstance(threat_model, ThreatModel) or not threat_model.epsilon:
        raise TypeError(
            "`threat_model` must be an instance of "
            "`atent_keras.threat_models.ThreatModel` with a positive radius, "
            f"such as `Linf(8 / 255)`. Received: threat_model={threat_model!r}"
        )
    require_number(True, extent=extent)
