"""What the losses of a batch, and of its replicas, come to."""

import keras
import tensorflow as tf


class Reduction(keras.losses.Loss):
    """Keras's reduction of a batch, for losses that are already known."""

    def call(self, y_true, y_pred):
        return y_pred


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
