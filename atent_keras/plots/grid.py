"""Images, what an attack made of them, and what the network says of both."""

from collections.abc import Sequence

import numpy as np

from atent_keras import checks
from atent_keras.evaluation.target import probabilities
from atent_keras.plots import answers
from atent_keras.plots import canvas
from atent_keras.threat_models import Linf
from atent_keras.types import Array
from atent_keras.types import Bounds
from atent_keras.types import Classifier
from atent_keras.types import Figure

# As many as a page takes.
_MOST = 20
_IMAGE = 1.25  # inches, the longer side


def adversarial_images(
    model: Classifier,
    x: Array,
    x_adv: Array,
    y: Array,
    *,
    class_names: Sequence[str] | None = None,
    bounds: Bounds = (0.0, 1.0),
) -> Figure:
    """Draws clean images, adversarial ones, and how they differ.

    Each image has its column, and above it the network's answer with its
    probability; a wrong one says so, and is framed. The last row shows the
    change of each pixel, on one scale for all; of a colour image that of the
    channel which changed most.

    Args:
        model: A Keras model, run in inference mode, or a callable from images
            to outputs `(batch, classes)`, logits or probabilities. A single
            output is that of the second of two classes: a logit, or a
            probability if the model's compiled loss says so.
        x: Clean images, `(n, height, width, channels)` with 1 or 3 channels,
            or `(n, height, width)`; at most 20.
        x_adv: Adversarial images, of the same shape.
        y: Labels, integers `(n,)` or one-hot `(n, classes)`.
        class_names: Sequence of strings, one for each class. Defaults to
            `None`: their numbers.
        bounds: Pair of floats, the images' range; `None` draws from the
            smallest to the largest value there is. Defaults to `(0.0, 1.0)`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError, TypeError: If images, labels, names and network do not fit
            each other.
        ImportError: If matplotlib is not installed.

    Example:

    >>> x_adv = attack(model, x_test[:8], y_test[:8], seed=0)
    >>> figure = atent_keras.plots.adversarial_images(
    ...     model, x_test[:8], x_adv, y_test[:8]
    ... )
    >>> figure.savefig("images.png")
    """
    bounds = Linf(0.0, bounds).bounds
    x, x_adv = _admit(x, x_adv, bounds)
    y = checks.labels(y, x)
    pyplot = canvas.pyplot()
    rows = [answers.outputs(model, one, y, bounds) for one in (x, x_adv)]
    classes = rows[0].shape[-1]
    truth = answers.labels(y, x, classes).numpy()
    names = checks.class_names(class_names, classes)
    names = [canvas.plain(name) for name in names]
    figure, axes = pyplot.subplots(
        3, x.shape[0], squeeze=False, layout="constrained"
    )
    x, x_adv = x.numpy(), x_adv.numpy()
    if bounds is None:
        bounds = min(x.min(), x_adv.min()), max(x.max(), x_adv.max())
    for row, images, outputs in zip(axes, (x, x_adv), rows):
        shares = probabilities(outputs).numpy()
        for axis, image, share, label in zip(row, images, shares, truth):
            axis.imshow(
                _pixels(image, bounds),
                cmap="gray",
                vmin=0,
                vmax=1,
                aspect="auto",
            )
            answer = int(np.argmax(share))
            _caption(axis, names[answer], share[answer], answer == label)
    changes = [_change(one) for one in x_adv - x]
    largest = max(np.max(np.abs(change)) for change in changes)
    for axis, change, label in zip(axes[2], changes, truth):
        picture = axis.imshow(
            change,
            cmap="RdBu_r",
            vmin=-(largest or 1),
            vmax=largest or 1,
            aspect="auto",
        )
        axis.set_xlabel(f"truth: {names[label]}")
    for axis, name in zip(axes[:, 0], ("clean", "adversarial", "difference")):
        axis.set_ylabel(name)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    # Part of the last image, so that columns stay columns.
    bar = axes[2, -1].inset_axes([1.1, 0, 0.08, 1])
    figure.colorbar(picture, cax=bar, label="change of a pixel")
    shape = x.shape[1] / x.shape[2]
    canvas.fit(figure, axes, _IMAGE / max(shape, 1.0), shape)
    for axis in axes.flat:
        axis.set_aspect("equal")
    return figure


def _admit(x, x_adv, bounds):
    x, x_adv = (
        checks.images(one, bounds, "`adversarial_images`") for one in (x, x_adv)
    )
    if x.shape != x_adv.shape:
        raise ValueError(
            "`x` and `x_adv` must have the same shape. Received: "
            f"{x.shape} and {x_adv.shape}"
        )
    drawable = x.shape.rank == 3 or (
        x.shape.rank == 4 and x.shape[-1] in (1, 3)
    )
    if not drawable or x.shape[0] > _MOST:
        raise ValueError(
            "`x` must hold images of shape (n, height, width, channels), with "
            f"1 or 3 channels, or (n, height, width), and n at most {_MOST}. "
            f"Received: shape {x.shape}"
        )
    return x, x_adv


def _caption(axis, name, share, right):
    word = "" if right else "wrong, "
    axis.set_title(
        f"{name}\n{word}{100 * share:.0f} %",
        color=canvas.BLACK if right else canvas.VERMILLION,
        fontsize="medium",
    )
    if not right:
        axis.spines[:].set(color=canvas.VERMILLION, linewidth=3)


def _pixels(image, bounds):
    """Returns what matplotlib draws: values in [0, 1], a channel or three."""
    lower, upper = bounds
    image = np.clip((image - lower) / ((upper - lower) or 1), 0, 1)
    return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image


def _change(difference):
    """Returns the change of each pixel, `(height, width)`."""
    if difference.ndim == 2:
        return difference
    most = np.argmax(np.abs(difference), axis=-1, keepdims=True)
    return np.take_along_axis(difference, most, axis=-1)[..., 0]
