"""What is climbed and averaged: a Keras loss, one value per example."""

import functools

import keras
import tensorflow as tf

# Keras's functions know no `from_logits` of their own; their classes do.
_CLASSES = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "sparse_categorical_crossentropy": (
        keras.losses.SparseCategoricalCrossentropy
    ),
}


def get(identifier):
    """Returns a Keras loss, or a function `(y_true, y_pred) -> losses`.

    Args:
        identifier: Name of a Keras loss, its config, or an instance; or a
            function that gives one loss per example.

    Raises:
        ValueError, TypeError: If there is no such loss.
    """
    if isinstance(identifier, str):
        return _by_name(identifier, keras.config.floatx())
    try:
        loss = keras.losses.get(identifier)
    except (ValueError, TypeError, KeyError):
        loss = None
    if loss is None or isinstance(loss, type):
        raise ValueError(
            "`loss` must be a Keras loss (its name, config or an instance) or "
            f"a function of (y_true, y_pred). Received: loss={identifier!r}"
        )
    if loss is getattr(keras.losses, getattr(loss, "__name__", ""), None):
        return _by_name(loss.__name__, keras.config.floatx())
    return loss


@functools.cache
def _by_name(name, dtype):
    if name in _CLASSES:
        return _CLASSES[name](dtype=dtype)
    try:
        loss = keras.losses.get(name)
    except ValueError as error:
        raise ValueError(
            f"`loss` must name a Keras loss. Received: loss={name!r}"
        ) from error
    return loss


@functools.cache
def _cross_entropy(sparse, dtype):
    kind = (
        keras.losses.SparseCategoricalCrossentropy
        if sparse
        else keras.losses.CategoricalCrossentropy
    )
    return kind(from_logits=True, dtype=dtype)


def of_model(model, y):
    """Returns the model's compiled base loss, else cross-entropy from logits.

    Args:
        model: A Keras model or another callable.
        y: Labels; their shape chooses the kind of cross-entropy.
    """
    compiled = getattr(model, "loss", None)
    if isinstance(model, keras.Model) and compiled is not None:
        return get(compiled)
    sparse = y.shape.rank == 1 or y.shape[-1] == 1
    return _cross_entropy(sparse, keras.config.floatx())


def unwrap(loss):
    """Returns the base loss of a robust one, else `loss` itself."""
    while getattr(loss, "loss", None) is not None:
        loss = loss.loss
    return loss


def single(loss):
    """Takes a model's only loss out of the list or dictionary it came in."""
    losses = keras.tree.flatten(loss)
    return losses[0] if len(losses) == 1 else loss


def from_logits(loss):
    """Whether `loss` expects logits; `None` where nobody can tell."""
    return getattr(unwrap(loss), "from_logits", None)


def is_sparse(loss):
    """Whether `loss` wants integer labels; `None` where nobody can tell."""
    loss = unwrap(loss)
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        return True
    if isinstance(
        loss,
        (
            keras.losses.CategoricalCrossentropy,
            keras.losses.CategoricalFocalCrossentropy,
            keras.losses.CategoricalHinge,
            keras.losses.KLDivergence,
        ),
    ):
        return False
    return None


def per_example(loss, y, y_pred):
    """Returns the loss of each example, of shape `(batch,)`.

    Args:
        loss: A Keras loss or a function `(y_true, y_pred) -> losses`.
        y: Labels.
        y_pred: The network's outputs, `(batch, classes)`.

    Raises:
        ValueError: If `loss` gives anything but one value per example.
    """
    # As Keras casts them before it asks a loss.
    y, y_pred = (tf.cast(value, keras.config.floatx()) for value in (y, y_pred))
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss
    losses = tf.convert_to_tensor(function(y, y_pred))
    if losses.shape.rank != 1:
        raise ValueError(
            "`loss` must give one value per example, of shape (batch,). "
            f"Received: values of shape {losses.shape} from {loss!r}, for "
            f"labels of shape {y.shape} and outputs of shape {y_pred.shape}"
        )
    return losses


class NoGradientError(ValueError):
    """What is climbed does not depend on the images."""


def input_gradient(tape, losses, x_adv, output_gradients=None):
    """Returns the gradient of each example's own loss at `x_adv`.

    Args:
        tape: The `tf.GradientTape` that saw the losses.
        losses: One value per example, or several.
        x_adv: Images, `(batch, ...)`.
        output_gradients: The weights of the losses. Defaults to 1.

    Raises:
        NoGradientError: If the losses do not depend on `x_adv`.
    """
    gradient = tape.gradient(losses, x_adv, output_gradients)
    if gradient is None:
        raise NoGradientError(
            "The loss must depend on the images, differentiably in "
            "TensorFlow. Received: a network without a gradient by its input"
        )
    return gradient
