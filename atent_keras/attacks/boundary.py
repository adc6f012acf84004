"""A network's decision boundaries, as seen from a point."""

import tensorflow as tf

from atent_keras import margins
from atent_keras.attacks import gradients
from atent_keras.threat_models import per_example


def inner(one, other):
    """Returns the inner product of each example's values, `(batch,)`."""
    product = tf.reshape(one * other, [tf.shape(one)[0], -1])
    return tf.reduce_sum(product, axis=1)


def towards(predict, point, labels, target):
    """Linearizes the boundary to a class; returns its gap and its normal.

    The network is, to first order, undecided at `point + p` where
    `gap + sum(normal * p) == 0`.

    Args:
        predict: Function from images to logits.
        point: Images, `(batch, ...)`.
        labels: Integer labels, `(batch,)`.
        target: The other class, integers `(batch,)`.

    Returns:
        `logits[target] - logits[label]` of shape `(batch,)`, and its gradient.
    """

    def gap(logits):
        return margins.difference(logits, labels, target)

    normal, gaps, _ = gradients.at(predict, point, gap)
    return gaps, normal


def nearest(predict, threat_model, point, labels, most):
    """Linearizes the boundaries to several classes; returns the nearest one.

    Args:
        predict: Function from images to logits.
        threat_model: In whose norm distances are taken.
        point: Images, `(batch, ...)`.
        labels: Integer labels, `(batch,)`.
        most: Integer, how many classes to look at, the likeliest first.

    Returns:
        As `towards`.
    """
    with tf.GradientTape(
        persistent=True, watch_accessed_variables=False
    ) as tape:
        tape.watch(point)
        logits = margins.of_classes(tf.cast(predict(point), point.dtype))
    others = margins.likeliest_others(logits, labels)
    count = min(most, others.shape[1])

    def body(rank, best, gap, normal):
        target = others[:, rank]
        towards = tf.one_hot(target, logits.shape[1], dtype=logits.dtype)
        away = tf.one_hot(labels, logits.shape[1], dtype=logits.dtype)
        # One pass back, from outputs that were computed once for all classes.
        slope = gradients.through(tape, logits, point, towards - away)
        rise = margins.difference(logits, labels, target)
        dual = inner(slope, threat_model.ascent_direction(slope))
        # A class that nothing leads to is infinitely far.
        distance = tf.where(dual > 0, tf.abs(rise) / dual, point.dtype.max)
        nearer = distance < best
        return (
            rank + 1,
            tf.where(nearer, distance, best),
            tf.where(nearer, rise, gap),
            tf.where(per_example(nearer, point), slope, normal),
        )

    zeros = tf.zeros_like(logits[:, 0])
    return tf.while_loop(
        lambda rank, *_: rank < count,
        body,
        (
            tf.constant(0),
            zeros + point.dtype.max,
            zeros,
            tf.zeros_like(point),
        ),
        maximum_iterations=count,
    )[2:]
