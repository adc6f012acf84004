"""Whether a network's answers are right."""

import tensorflow as tf

from atent_keras import base_losses
from atent_keras import margins


def is_correct(y, y_pred, loss=None):
    """Returns whether each prediction is right, booleans of shape `(batch,)`.

    Args:
        y: Labels: integers of shape `(batch,)` or `(batch, 1)`, or one-hot
            `(batch, classes)`; those of a single output may be -1 and 1, too.
        y_pred: The network's outputs, `(batch, classes)`. A single output is
            that of the second of two classes.
        loss: The loss that the network is trained with, as `checks.decided`
            gives it; it tells whether a single output is a logit (above 0) or
            a probability (above 0.5).
    """
    if y_pred.shape[-1] == 1:
        threshold = 0.0 if base_losses.from_logits(loss) else 0.5
        predicted = tf.cast(y_pred[:, 0] > threshold, tf.int64)
    else:
        predicted = tf.argmax(y_pred, axis=-1)
    labels = margins.class_labels(y, y_pred.shape[-1])
    return tf.equal(tf.cast(labels, tf.int64), predicted)
