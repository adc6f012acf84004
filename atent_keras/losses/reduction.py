"""What the losses of a batch, and of its replicas, come to."""

import keras
import tensorflow as tf

from atent_keras import base_losses


class Reduction(keras.losses.Loss):
    """Keras's reduction of a batch, for losses that are already known."""

    def call(self, y_true, y_pred):
        return y_pred


def counting_weights(loss, y, sample_weight):
    """Returns sample weights by which the examples that do not count are 0.

    As Keras has it, a mean is one over the others; a mean over the weights
    divides by theirs anyway.

    Args:
        loss: A robust loss, whose base loss may ignore a class.
        y: Labels.
        sample_weight: Weights, `(batch,)` or `(batch, 1)`, or `None`.
    """
    counted = base_losses.counted(loss, y)
    if counted is None:
        return sample_weight
    weights = tf.cast(counted, loss.dtype)
    if loss.reduction in ("mean", "sum_over_batch_size"):
        size = tf.cast(tf.size(weights), weights.dtype)
        weights *= tf.math.divide_no_nan(size, tf.reduce_sum(weights))
    if sample_weight is None:
        return weights
    return weights * tf.reshape(tf.cast(sample_weight, weights.dtype), [-1])


def add(one, other):
    """Adds gradients, of which either may be missing."""
    return other if one is None else one if other is None else one + other


def share_of_replica(penalties, dtype):
    """Sums regularization losses, once for all replicas together."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    total = tf.zeros((), dtype)
    for penalty in penalties:
        total += tf.cast(tf.reduce_sum(penalty), dtype)
    return total / replicas
