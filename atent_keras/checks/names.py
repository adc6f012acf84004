"""Batches that are dictionaries, as TFDS gives them: how pairs are made."""

import tensorflow as tf

_LABELS = ("label", "labels", "target", "targets", "class", "y")


def refusal(batch, bounds):
    """Returns what to say of a dictionary in the place of images.

    Args:
        batch: Dictionary of arrays or tensors.
        bounds: Pair of floats, the range that images ought to have, or `None`.
    """
    fix = ""
    if batch:
        arguments, found = "batch", _pair(batch, bounds, "batch")
        if _label(batch) is None:
            arguments, found = "x, y", f"({_images(batch, 'x', bounds)}, y)"
            fix = ", and no labels, which have to come beside it as `y`"
        if all(map(tf.is_tensor, batch.values())):
            found = f"data = data.map(lambda {arguments}: {found})"
        fix += f". For images and labels make pairs: `{found}`"
    keys = ", ".join(map(repr, batch)) or "none"
    return (
        "`x` must be a single array or tensor of images; networks with "
        "dictionary or multiple inputs are not supported. Received: a "
        f"dictionary with the keys {keys}{fix}"
    )


def paired(data, bounds):
    """Returns how a dictionary in the place of data becomes a pair of arrays.

    Args:
        data: Dictionary of arrays or tensors.
        bounds: Pair of floats, the range that images ought to have, or `None`.
    """
    if not data or _label(data) is None:
        return "It has no labels, which `data` has to hold"
    return f"Of images and labels make a pair: `{_pair(data, bounds, 'data')}`"


def _pair(batch, bounds, name):
    """Returns the expression that makes images and labels of a dictionary."""
    return f"({_images(batch, name, bounds)}, {_item(name, _label(batch))})"


def _images(batch, name, bounds):
    """Returns the expression of the images, brought into the bounds."""
    key = _image(batch)
    found, dtype = _item(name, key), getattr(batch[key], "dtype", "float32")
    if tf.as_dtype(dtype) != tf.uint8 or bounds in (None, (0, 255)):
        return found
    lower, upper = bounds
    # TensorFlow divides integers by integers alone.
    scaled = f"{found} / 255"
    if upper - lower != 1:
        scaled += f" * {upper - lower:g}"
    if lower:
        scaled += f" {'-' if lower < 0 else '+'} {abs(lower):g}"
    return scaled


def _image(batch):
    """Returns the key of the images: by its name, else by most dimensions."""
    named = [key for key in batch if "image" in str(key).lower()]
    return named[0] if named else max(batch, key=lambda k: _rank(batch[k]))


def _label(batch):
    """Returns the key of the labels, `None` if they are not there."""
    others = [key for key in batch if key != _image(batch)]
    named = [key for key in others if str(key).lower() in _LABELS]
    if named or len(others) == 1:
        return (named or others)[0]
    return None


def _item(name, key):
    return f'{name}["{key}"]' if isinstance(key, str) else f"{name}[{key!r}]"


def _rank(value):
    shape = getattr(value, "shape", ())
    return (shape.rank or 0) if hasattr(shape, "rank") else len(shape)
