"""What goes into a training step, and what comes out."""

from typing import NamedTuple

import tensorflow as tf


class Step(NamedTuple):
    """What one training step needs to know.

    Attributes:
        loss: Scalar, the robust loss plus the regularization losses.
        gradients: The loss's gradients, in the order of
            `model.trainable_variables`, not scaled: an optimizer that divides
            by a loss scale wants them through its `scale_loss`.
        x_adv: The last points that were found, `(batch, ...)`.
        y_pred: The network's outputs there, `(batch, classes)`.
    """

    loss: tf.Tensor
    gradients: list[tf.Tensor | None]
    x_adv: tf.Tensor
    y_pred: tf.Tensor


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        x: Images, `(batch, ...)`.
        y: Labels.
        sample_weight: Weights of shape `(batch,)`, or `None`.
        weight: What the mean over the batch counts; 0 for a stand-in where a
            replica got no image.
    """

    x: tf.Tensor
    y: tf.Tensor
    sample_weight: tf.Tensor | None
    weight: float


class Losses(NamedTuple):
    """What a method says of one set of points.

    Attributes:
        values: The loss of each example, `(batch,)`.
        y_pred: The network's outputs at the points, `(batch, classes)`.
        state: The network's state after the passes.
        penalties: The regularization losses of one of the passes.
    """

    values: tf.Tensor
    y_pred: tf.Tensor
    state: list
    penalties: list
