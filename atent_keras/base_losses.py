"""What is climbed and averaged: a Keras loss, one value per example."""

import dataclasses
import functools

import keras
import tensorflow as tf

# Keras's functions know no `from_logits` of their own; their classes do.
_CLASSES = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "binary_focal_crossentropy": keras.losses.BinaryFocalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "categorical_focal_crossentropy": keras.losses.CategoricalFocalCrossentropy,
    "sparse_categorical_crossentropy": (
        keras.losses.SparseCategoricalCrossentropy
    ),
}

_BINARY = (
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
)
# Of integer labels, and of one-hot ones.
_CATEGORICAL = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
)
# Between outputs and labels as numbers: of no classes.
_DISTANCES = (
    keras.losses.CosineSimilarity,
    keras.losses.Huber,
    keras.losses.LogCosh,
    keras.losses.MeanAbsoluteError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.MeanSquaredError,
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.Poisson,
)
_DISTANCE_FUNCTIONS = (
    keras.losses.cosine_similarity,
    keras.losses.huber,
    keras.losses.log_cosh,
    keras.losses.mean_absolute_error,
    keras.losses.mean_absolute_percentage_error,
    keras.losses.mean_squared_error,
    keras.losses.mean_squared_logarithmic_error,
    keras.losses.poisson,
)

_HINGES = (
    keras.losses.CategoricalHinge,
    keras.losses.Hinge,
    keras.losses.SquaredHinge,
)
_HINGE_FUNCTIONS = (
    keras.losses.categorical_hinge,
    keras.losses.hinge,
    keras.losses.squared_hinge,
)


@dataclasses.dataclass(frozen=True)
class Decided:
    """A loss that does not say what it expects, and what was found out.

    Attributes:
        loss: A Keras loss or a function `(y_true, y_pred) -> losses`.
        from_logits: Boolean, whether a single output is a logit.
    """

    loss: object
    from_logits: bool

    def __call__(self, y_true, y_pred):
        return per_example(self.loss, y_true, y_pred)


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
def _cross_entropy(kind, dtype):
    return kind(from_logits=True, dtype=dtype)


def compiled(model):
    """Returns the loss that a Keras model was compiled with, `None` if none.

    Raises:
        ValueError: If there are several.
    """
    loss = model.loss if isinstance(model, keras.Model) else None
    if isinstance(loss, dict) and "class_name" not in loss:
        loss = list(loss.values())
    if isinstance(loss, (list, tuple)):
        if len(loss) != 1:
            raise ValueError(
                "The model must be compiled with a single loss. Received: "
                f"loss={model.loss!r}"
            )
        (loss,) = loss
    return loss


def of_model(model, y):
    """Returns the model's compiled base loss, else cross-entropy from logits.

    Of a single output, the latter is that of two classes; see `is_default`.

    Args:
        model: A Keras model or another callable.
        y: Labels; their shape chooses the kind of cross-entropy.
    """
    loss = compiled(model)
    if loss is not None:
        return get(loss)
    sparse = y.shape.rank == 1 or y.shape[-1] == 1
    return _cross_entropy(_CATEGORICAL[not sparse], keras.config.floatx())


def is_default(loss):
    """Whether `loss` is what stands in where no loss was compiled.

    Nobody chose its kind, so that `per_example` may: a single logit, which is
    that of the second of two classes, has the binary cross-entropy.
    """
    dtype = keras.config.floatx()
    return any(loss is _cross_entropy(kind, dtype) for kind in _CATEGORICAL)


def unwrap(loss):
    """Returns the base loss of a robust one, else `loss` itself."""
    while getattr(loss, "loss", None) is not None:
        loss = loss.loss
    return loss


def is_settled(loss):
    """Whether a robust loss takes no other kind of base loss than its own."""
    while loss is not None:
        if getattr(loss, "settles_its_loss", False):
            return True
        loss = getattr(loss, "loss", None)
    return False


def from_logits(loss):
    """Whether `loss` expects logits; `None` where nobody can tell.

    Keras's cross-entropies say so, and a loss of one's own can: by an
    attribute `from_logits`.
    """
    if isinstance(loss, Decided):
        return loss.from_logits
    return getattr(unwrap(loss), "from_logits", None)


def is_binary(loss):
    """Whether `loss` is the cross-entropy of each output by itself."""
    return isinstance(unwrap(loss), _BINARY)


def is_distance(loss):
    """Whether `loss` is one between numbers rather than of classes."""
    loss = unwrap(loss)
    return isinstance(loss, _DISTANCES) or loss in _DISTANCE_FUNCTIONS


def is_elementwise(loss):
    """Whether `loss` compares each output with a label of its own."""
    kinds = keras.losses.KLDivergence, keras.losses.kl_divergence
    unwrapped = unwrap(loss)
    divergence = isinstance(unwrapped, kinds[0]) or unwrapped is kinds[1]
    return is_distance(loss) or divergence


def is_hinge(loss):
    """Whether `loss` is flat where the right class leads by enough."""
    loss = unwrap(loss)
    return isinstance(loss, _HINGES) or loss in _HINGE_FUNCTIONS


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
        ),
    ):
        return False
    return None


def counted(loss, y):
    """Returns which examples `loss` counts, `(batch,)`; `None` for all.

    Keras's cross-entropy of integer labels may have a class to ignore.

    Args:
        loss: The base loss, or a loss that has one.
        y: Labels.
    """
    ignored = getattr(unwrap(loss), "ignore_class", None)
    if ignored is None or not is_sparse(loss):
        return None
    labels = tf.reshape(tf.cast(y, keras.config.floatx()), [-1])
    return tf.not_equal(labels, tf.cast(ignored, labels.dtype))


def per_example(loss, y, y_pred):
    """Returns the loss of each example, of shape `(batch,)`.

    What `loss` does not count has none.

    Args:
        loss: A Keras loss or a function `(y_true, y_pred) -> losses`.
        y: Labels.
        y_pred: The network's outputs, `(batch, classes)`.

    Raises:
        ValueError: If `loss` gives anything but one value per example.
    """
    if is_default(loss) and y_pred.shape[-1] == 1:
        loss = _cross_entropy(
            keras.losses.BinaryCrossentropy, keras.config.floatx()
        )
    # As Keras casts them before it asks a loss.
    y, y_pred = (tf.cast(value, keras.config.floatx()) for value in (y, y_pred))
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss
    if function is loss:
        y, y_pred = _of_same_rank(y, y_pred)
    losses = tf.convert_to_tensor(function(y, y_pred))
    if losses.shape.rank != 1:
        raise ValueError(
            "`loss` must give one value per example, of shape (batch,). "
            f"Received: values of shape {losses.shape} from {loss!r}, for "
            f"labels of shape {y.shape} and outputs of shape {y_pred.shape}"
        )
    # Without Keras's mask, which some operations keep and others do not.
    return tf.identity(losses)


class NoGradientError(ValueError):
    """What is climbed does not depend on the images."""


def _of_same_rank(y, y_pred):
    """Matches `(batch,)` to `(batch, 1)`, as Keras does for a function.

    Or each of the examples would meet all of the others.
    """
    if y.shape.rank == 1 and y_pred.shape.rank == 2 and y_pred.shape[1] == 1:
        return y[:, None], y_pred
    if y_pred.shape.rank == 1 and y.shape.rank == 2 and y.shape[1] == 1:
        return y, y_pred[:, None]
    return y, y_pred


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
