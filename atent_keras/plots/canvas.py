"""What all pictures share: matplotlib, where it is there, and its colours."""

import numpy as np

from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

# Of Okabe and Ito, which colour-blind eyes can tell apart; without the yellow,
# which nobody sees on white.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
# A grey print has only these. Of another number than the colours, so that
# pairs repeat late; dotted is left to what is no data.
LINES = ("-", "--", "-.", (0, (6, 1)), (0, (4, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX*"


def pyplot():
    """Returns `matplotlib.pyplot`, which the package does without.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "`atent_keras.plots` needs matplotlib, version 3.8 or newer: "
            f"`pip install matplotlib`. Received: {error}"
        ) from error
    return pyplot


def plain(name):
    """Returns a name as matplotlib draws it as it is.

    Which takes `$` for the mark of a formula, and leaves names that begin with
    an underscore out of legends.
    """
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def norm(threat_model):
    """Returns the name of a threat model's norm, as a label shows it."""
    names = {Linf: r"$\ell_\infty$", L2: r"$\ell_2$"}
    return names.get(type(threat_model), type(threat_model).__name__)


def fit(figure, axes, width, shape):
    """Sizes a figure so that its panels have a shape, and room for their text.

    A layout that must shrink panels for the sake of their shape lets titles,
    labels and legends overlap: they get the shape from the start.

    Args:
        figure: A figure with everything in it, in constrained layout.
        axes: The panels, of shape `(rows, columns)`.
        width: Float, the least width of a panel, in inches.
        shape: Float, the height of a panel over its width.
    """
    texts = [
        one for axis in axes.flat for one in (axis.title, axis.xaxis.label)
    ]
    # The labels of the ticks, which the second pass sees, depend on the size.
    for _ in range(2):
        figure.draw_without_rendering()
        sizes = np.array([axis.bbox.size for axis in axes.flat])
        sizes = sizes.reshape(*axes.shape, 2)
        around = figure.bbox.size - [
            sizes[0, :, 0].sum(),
            sizes[:, 0, 1].sum(),
        ]
        text = max(one.get_window_extent().width for one in texts)
        legend = max(
            (one.get_window_extent().width for one in figure.legends),
            default=0.0,
        )
        panel = max(
            width * figure.dpi,
            1.1 * text,
            (1.1 * legend - around[0]) / axes.shape[1],
        )
        size = around + panel * np.array([axes.shape[1], axes.shape[0] * shape])
        figure.set_size_inches(size / figure.dpi)


def require_named(argument, named, rule, fits):
    """Checks a dictionary from names to what a picture compares.

    Args:
        argument: String, what the caller knows the dictionary as.
        named: The dictionary.
        rule: String, what its values must be.
        fits: Function of a value, whether it is that.

    Raises:
        TypeError: If it is no dictionary, empty, or a value does not fit.
    """
    if (
        not isinstance(named, dict)
        or not named
        or not all(isinstance(name, str) for name in named)
        or not all(map(fits, named.values()))
    ):
        raise TypeError(
            f"`{argument}` must be a dictionary from names to at least one "
            f"{rule}. Received: {argument}={named!r}"
        )
