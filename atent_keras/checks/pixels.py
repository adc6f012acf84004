"""Whether images are images."""

import keras
import tensorflow as tf

from atent_keras.checks import names
from atent_keras.checks.rules import require

# Resizing and decoding leave rounding errors outside the box; forgive those.
_TOLERANCE = 1e-5

_BYTES = (0.0, 255.0)


def images(x, bounds, whose="the threat model"):
    """Returns `x` as a tensor of dtype `keras.config.floatx()`.

    Args:
        x: Images, `(batch, ...)`, as an array or a tensor.
        bounds: Pair of floats, the images' range, or `None`.
        whose: String, what has these bounds, and may be given others.

    Raises:
        TypeError: If `x` is no single array of floating-point numbers, or of
            integers where the bounds are `(0, 255)`.
        ValueError: If `x` has no batch axis, is empty, or has values out of
            `bounds`, or that are not finite.
    """
    if isinstance(x, dict):
        raise TypeError(names.refusal(x, bounds))
    if isinstance(x, (list, tuple)):
        raise TypeError(
            "`x` must be a single array or tensor of images; networks with "
            f"dictionary or multiple inputs are not supported. Received: a "
            f"{type(x).__name__}"
        )
    x = tf.convert_to_tensor(x)
    image_spec(x, bounds, whose)
    x = tf.cast(x, keras.config.floatx())
    if bounds is None:
        return require(
            tf.reduce_all(tf.math.is_finite(x)),
            x,
            "`x` must hold finite numbers. Received: NaN or infinity",
        )
    lower, upper = bounds
    slack = _TOLERANCE * (upper - lower)
    smallest, largest = tf.reduce_min(x), tf.reduce_max(x)
    # Written so that a NaN fails.
    inside = (smallest >= lower - slack) & (largest <= upper + slack)
    return require(
        inside,
        x,
        f"Images must lie within the bounds ({lower}, {upper}) of {whose}. "
        "Received: values from {} to {}. Rescale the images (a division by "
        f"255 takes 0..255 to 0..1) or pass other `bounds` to {whose}",
        smallest,
        largest,
    )


def image_spec(x, bounds, whose="the threat model"):
    """Checks the shape and dtype of images; see `images`."""
    # Of integers nothing but these bounds says what they count.
    counted = x.dtype.is_integer and bounds == _BYTES
    if not x.dtype.is_floating and not counted:
        raise TypeError(
            "Images must be floating-point numbers, or integers in 0..255 "
            f"where the bounds are (0, 255). Received: dtype {x.dtype.name} "
            f"and bounds={bounds}. Rescale the images, e.g. `x / 255` to "
            f"0..1, or pass `bounds=(0, 255)` to {whose}"
        )
    if x.shape.rank is None or x.shape.rank < 2:
        raise ValueError(
            "Images must have a known shape (batch, ...). Received: shape "
            f"{x.shape}"
        )
    if x.shape[0] == 0:
        raise ValueError(f"The data set is empty. Received: shape {x.shape}")
