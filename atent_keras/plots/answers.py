"""What a network answers, in the form that pictures need."""

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import margins
from atent_keras.evaluation.target import Target
from atent_keras.evaluation.target import columns


def outputs(model, x, y, bounds):
    """Returns the outputs of a network in inference mode, one for each class.

    A single output, which is that of the second of two classes, gets a partner
    with which the larger one is the answer.

    Args:
        model: A Keras model, or a callable from images to outputs.
        x: Images, as `checks.images` gives them.
        y: Labels, whose shape tells what an uncompiled network's loss is.
        bounds: Pair of floats, the images' range, or `None`.

    Returns:
        Floats `(batch, classes)`.

    Raises:
        TypeError: If the model can't be called.
        ValueError: If the outputs are no rows of finite numbers, or a single
            output is not what the model's loss expects.
    """
    require_model(model)
    loss = base_losses.of_model(model, y)
    if checks.network(model, None, x.shape, bounds) == 1:
        # Nothing but the loss tells its logit from its probability.
        checks.network(model, loss, x.shape, bounds)
        loss = checks.decided(model, loss, x.shape, bounds)
    return columns(finite(Target(model).outputs(x)), loss)


def require_model(model):
    """Raises a `TypeError` for what can't be called."""
    if not callable(model):
        raise TypeError(
            "`model` must be a Keras model or a callable from images to "
            f"logits. Received: model={model!r}"
        )


def finite(found):
    """Returns outputs as numbers of the default precision, if they are any."""
    checks.require_finite(tf.reduce_all(tf.math.is_finite(found)))
    return tf.cast(found, keras.config.floatx())


def labels(y, x, classes):
    """Returns labels of any kind as integers `(batch,)`.

    Args:
        y: Integers `(batch,)`, or one-hot `(batch, classes)`.
        x: The images they belong to.
        classes: Integer, the number of classes.

    Raises:
        ValueError: If they do not fit images or classes.
    """
    y = checks.labels(y, x)
    if classes == 2 and (y.shape.rank == 1 or y.shape[1] == 1):
        # Two classes may be those of a single output.
        classes = 1
    return margins.class_labels(checks.one_class(y, None, classes), classes)
