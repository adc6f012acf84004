"""Whether labels fit their images, the loss, and the network."""

import tensorflow as tf

from atent_keras import base_losses
from atent_keras import margins
from atent_keras.checks.rules import name_of
from atent_keras.checks.rules import require

_SHARES = 1e-2  # by which rows of shares may miss 1: float16 has 11 bits


def labels(y, x):
    """Returns `y` as a tensor of shape `(batch,)` or `(batch, classes)`.

    Args:
        y: Labels, as an array or a tensor.
        x: The images they belong to.

    Raises:
        ValueError: If there is not one label, or one row, per image.
    """
    if y is None:
        raise ValueError("`y` must hold the images' labels. Received: y=None")
    y = tf.convert_to_tensor(y)
    if (
        y.shape.rank not in (1, 2)
        or not y.shape[:1].is_compatible_with(x.shape[:1])
        or y.dtype == tf.string
    ):
        raise ValueError(
            "Labels must have shape (batch,) or, one-hot, (batch, classes). "
            f"Received: labels of shape {y.shape} and dtype {y.dtype.name} "
            f"for images of shape {x.shape}"
        )
    return tf.cast(y, tf.int32) if y.dtype == tf.bool else y


def labels_fit(y, loss, classes):
    """Returns `y`, its values checked against the network's classes.

    Args:
        y: Labels, as a tensor.
        loss: The base loss, which says what kind of labels it wants.
        classes: Integer, the number of the network's outputs.

    Raises:
        ValueError: If labels are of the wrong kind for `loss` or out of
            range.
    """
    sparse, unwrapped = base_losses.is_sparse(loss), base_losses.unwrap(loss)
    one_hot = y.shape.rank == 2 and y.shape[1] == classes and classes > 1
    if isinstance(unwrapped, margins.Lead):
        if classes == 1 or isinstance(unwrapped, margins.OutputMargin):
            return one_class(y, loss, classes)
        sparse = not one_hot
    if base_losses.is_default(loss):
        # Nobody said that these are classes.
        y = _not_of_a_regression(y, loss, classes)
    alone = base_losses.is_default(loss) and classes == 1
    if base_losses.is_binary(loss) or alone:
        return _binary(y, loss, classes)
    if base_losses.is_elementwise(loss):
        return _like_outputs(y, loss, classes)
    if sparse is None:
        return y
    if sparse and not (y.shape.rank == 1 or y.shape[1] == 1):
        raise ValueError(
            f"{name_of(loss)} expects integer labels of shape (batch,). "
            f"Received: labels of shape {y.shape}"
        )
    if classes == 1:
        other = "use `keras.losses.BinaryCrossentropy(from_logits=True)`"
        raise ValueError(
            f"{name_of(loss)} needs one output for each class. Received: a "
            "network with a single output. Give it an output for the other "
            "class, too" + f", or {other}" * (not base_losses.is_settled(loss))
        )
    if not sparse and not one_hot:
        raise ValueError(
            f"{name_of(loss)} expects one-hot labels of shape (batch, "
            f"{classes}). Received: labels of shape {y.shape}"
        )
    if sparse and y.dtype.is_floating:
        y = require(
            tf.reduce_all(tf.equal(y, tf.round(y))),
            y,
            f"{name_of(loss)} expects labels that are whole numbers. Received: "
            "labels from {} to {}",
            tf.reduce_min(y),
            tf.reduce_max(y),
        )
    counted = base_losses.counted(loss, y)
    return _within(y, classes - 1 if sparse else 1, classes, counted)


def sample_weights(weights, x):
    """Returns sample weights as a tensor, or `None` if there are none.

    Args:
        weights: Weights of shape `(batch,)` or `(batch, 1)`, or `None`.
        x: The images they belong to.

    Raises:
        ValueError: If there is not one weight per image.
    """
    if weights is None:
        return None
    weights = tf.convert_to_tensor(weights)
    flat = weights.shape.rank == 1 or weights.shape[1:] == (1,)
    if not flat or not weights.shape[:1].is_compatible_with(x.shape[:1]):
        raise ValueError(
            "`sample_weight` must have shape (batch,). Received: weights of "
            f"shape {weights.shape} for images of shape {x.shape}"
        )
    return weights


def _binary(y, loss, classes):
    """Returns labels that cross-entropy takes for each output by itself."""
    return _within(_like_outputs(y, loss, classes), 1, classes)


def _like_outputs(y, loss, classes):
    """Returns labels that a loss compares with the outputs, one by one."""
    single = classes == 1 and (y.shape.rank == 1 or y.shape[1] == 1)
    if not single and (y.shape.rank == 1 or y.shape[1] != classes):
        shape = "(batch,)" if classes == 1 else f"(batch, {classes})"
        raise ValueError(
            f"{name_of(loss)} expects labels of shape {shape} for a network "
            f"with {_outputs(classes)}. Received: labels of shape {y.shape}"
        )
    return y


def _within(y, top, classes, counted=None):
    looked_at = y
    if counted is not None:
        counted = tf.reshape(counted, tf.shape(y))
        looked_at = tf.where(counted, y, tf.zeros_like(y))
    smallest, largest = tf.reduce_min(looked_at), tf.reduce_max(looked_at)
    if y.dtype.is_integer:
        # A small type may not hold the number of classes.
        smallest, largest = (
            tf.cast(value, tf.int64) for value in (smallest, largest)
        )
    return require(
        (smallest >= 0) & (largest <= tf.cast(top, largest.dtype)),
        y,
        f"Labels must lie in 0..{top} for a network with {_outputs(classes)}. "
        "Received: labels from {} to {}",
        smallest,
        largest,
    )


def one_class(y, loss, classes):
    """Returns `y`, checked to name one class for each image.

    Args:
        y: Labels, as a tensor.
        loss: The base loss: those of a single output may be -1 and 1, as
            hinge losses have them, but for cross-entropies and distances.
        classes: Integer, the number of the network's outputs.

    Raises:
        ValueError: If some name another class, none or several, as those of a
            regression do.
    """
    if y.shape.rank == 2 and y.shape[1] not in (1, classes):
        raise ValueError(
            "Labels must have shape (batch,) or, one-hot, (batch, "
            f"{classes}). Received: labels of shape {y.shape}"
        )
    y = _not_of_a_regression(y, loss, classes)
    if y.shape.rank == 2 and classes > 1 and y.shape[1] == classes:
        largest = tf.equal(y, tf.reduce_max(y, axis=1, keepdims=True))
        named = tf.reduce_sum(tf.cast(largest, tf.int32), axis=1)
        return require(
            tf.reduce_all(named == 1),
            y,
            "One-hot labels must have one largest value for each image, for a "
            "network to be right or wrong about it. Received: rows with {} to "
            "{}. Labels of several classes are for `PGD` and `FGSM`, which "
            "climb the network's own loss",
            tf.reduce_min(named),
            tf.reduce_max(named),
        )
    signed = not (base_losses.is_binary(loss) or base_losses.is_distance(loss))
    if classes > 1 or not signed:
        return _within(y, max(classes - 1, 1), classes)
    values = tf.cast(y, tf.float32)
    return require(
        tf.reduce_all((values == 0) | (values == 1))
        | tf.reduce_all(tf.abs(values) == 1),
        y,
        "Labels of two classes must be -1 and 1, or lie in 0..1. Received: "
        "labels from {} to {}",
        tf.reduce_min(y),
        tf.reduce_max(y),
    )


def class_names(names, classes):
    """Returns the classes' names as a list, `None` being their numbers.

    Args:
        names: Sequence of strings, one for each class, or `None`.
        classes: Integer, the number of classes.

    Raises:
        ValueError: If there is not one string for each class.
    """
    if names is None:
        return [str(number) for number in range(classes)]
    found = list(names) if hasattr(names, "__iter__") else []
    if len(found) != classes or not all(isinstance(n, str) for n in found):
        raise ValueError(
            f"`class_names` must be {classes} strings, one for each class. "
            f"Received: class_names={names!r}"
        )
    return found


def name_classes(y, classes):
    """Returns which labels name classes, and are no numbers of a regression.

    Those that do are whole: a class, one-hot, or 0, 1 and -1 for a single
    output; or they are rows of shares, which add up to 1.

    Args:
        y: Labels, as a tensor.
        classes: Integer, the number of the network's outputs.

    Returns:
        Booleans, of shape `(batch,)`.
    """
    y = tf.cast(y, tf.float32)
    if y.shape.rank == 2 and y.shape[1] == classes > 1:
        hot = tf.reduce_all((y == 0) | (tf.abs(y) == 1), axis=1)
        off = tf.abs(tf.reduce_sum(y, axis=1) - 1)
        return hot | (tf.reduce_all(y >= 0, axis=1) & (off < _SHARES))
    y = tf.reshape(y, [-1])
    return (y == tf.round(y)) & ((classes > 1) | (tf.abs(y) <= 1))


def _not_of_a_regression(y, loss, classes):
    """Returns `y`, unless these are numbers to come near to."""
    distance, rows = base_losses.is_distance(loss), y.shape.rank == 2
    if distance or not (rows and y.shape[1] == classes > 1):
        if base_losses.is_binary(loss):
            return y  # from 0 to 1, which may be smoothed
        if classes == 1 and not distance:
            # Others that are whole are more likely classes, wrongly counted.
            named = tf.cast(y, tf.float32) == tf.round(tf.cast(y, tf.float32))
        else:
            named = name_classes(y, classes)
    else:
        named = tf.abs(y) <= 1
    return require(
        tf.reduce_all(named),
        y,
        "Labels must name classes, for a network to be right or wrong. "
        "Received: numbers from {} to {}, as those of a regression are. What "
        "needs no classes is `PGD` or `FGSM` with the network's own `loss`, "
        "`perturb`, and `evaluate`, which gives the loss at the points that "
        "they find",
        tf.reduce_min(y),
        tf.reduce_max(y),
    )


def _outputs(count):
    return f"{count} output" + "s" * (count != 1)
