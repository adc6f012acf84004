"""Gradients by images, which float16 can hold."""

import tensorflow as tf

from atent_keras import base_losses
from atent_keras.threat_models import per_example

# Where the largest of an image's gradients by the outputs lies on the way
# back. float16 reaches from 2**-24 to 2**16: so much may a network weaken a
# gradient by the images, or strengthen it in between.
LARGEST = 2.0**4


def at(predict, x, objective, coupled=False):
    """Looks at a network at a point, and which way is up.

    Args:
        predict: Function from images to the network's outputs.
        x: Images, `(batch, ...)`.
        objective: Function from the outputs, in the dtype of `x`, to one
            value per image.
        coupled: Whether an image's outputs depend on the others of its batch,
            as behind BatchNorm in training mode. Defaults to `False`.

    Returns:
        The gradient by `x` of the sum of the values (of each image's own, if
        images are not coupled), the values, and the outputs.

    Raises:
        NoGradientError: If the values do not depend on `x`.
    """
    with tf.GradientTape(watch_accessed_variables=False) as network:
        network.watch(x)
        outputs = tf.cast(predict(x), x.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as above:
            above.watch(outputs)
            values = objective(outputs)
    slope = above.gradient(values, outputs)
    if slope is None:
        # Keras's cross-entropies look past a softmax, at its logits.
        gradient = base_losses.input_gradient(network, values, x)
    else:
        gradient = through(network, outputs, x, slope, coupled)
    return gradient, values, outputs


def through(tape, outputs, x, slope, coupled=False):
    """Returns the gradient by `x` that follows from one by the outputs.

    A network in float16 loses what is below 6e-8, such as the gradient of a
    loss at an image that the network is sure of. Each image's gradient is
    therefore brought to one size before the way back and scaled again in the
    end, by powers of two: that changes nothing else. Coupled images share the
    way back, on which their sizes have to stay as they are to each other.

    Args:
        tape: The `tf.GradientTape` that saw the outputs.
        outputs: The network's outputs, `(batch, classes)`.
        x: Images, `(batch, ...)`.
        slope: The gradient by the outputs, of their shape.
        coupled: As in `at`.
    """
    largest = tf.reduce_max(tf.abs(slope), axis=1)
    if coupled:
        size = tf.ones_like(largest)
    else:
        size = tf.cast(_power_of_two(largest), slope.dtype)
    scaled = slope / size[:, None] * LARGEST
    gradient = base_losses.input_gradient(tape, outputs, x, scaled)
    return gradient * per_example(size, x) / LARGEST


def _power_of_two(values):
    """Returns the largest powers of two up to positive values, else 1."""
    values = tf.cast(values, tf.float32)
    # A float32 without its sign and its fraction, which are powers of two.
    bits = tf.bitcast(values, tf.int32) & 0x7F800000
    power = tf.bitcast(bits, tf.float32)
    regular = (power > 0) & tf.math.is_finite(power)
    return tf.where(regular, power, 1)
