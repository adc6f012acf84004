"""What the networks are made of."""

import keras
from keras import layers

from atent_keras.architectures.batch_normalization import BatchNormalization


def check_images(input_shape, smallest=1):
    """Returns `input_shape` as a tuple of three positive integers.

    Args:
        input_shape: Sequence `(height, width, channels)`.
        smallest: Integer, the least height and width.

    Raises:
        ValueError: If it is anything else.
    """
    input_shape = tuple(input_shape)
    if len(input_shape) != 3 or not all(
        isinstance(size, int) and least <= size < 2**31
        for size, least in zip(input_shape, (smallest, smallest, 1))
    ):
        raise ValueError(
            "`input_shape` must be (height, width, channels), all positive "
            "integers of 32 bits"
            + (f", height and width at least {smallest}" * (smallest > 1))
            + f". Received: input_shape={input_shape}"
        )
    return input_shape


def convolution(x, filters, size, strides=1, name=None):
    """A convolution without bias, for BatchNorm to follow.

    It starts as He et al. (2015) say, keeping the variance of the gradients
    on their way back ("fan out").
    """
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        ),
        name=name,
    )(x)


def normalized(x, name):
    """BatchNorm with PyTorch's defaults, then ReLU."""
    x = batch_norm(x, name)
    return layers.ReLU(name=f"{name}_relu")(x)


def batch_norm(x, name):
    # What PyTorch calls a momentum of 0.1 is 0.9 here.
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def preactivation_block(x, filters, strides, name):
    """Two convolutions, each after BatchNorm and ReLU, beside a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution that shares the
    first BatchNorm and ReLU with the other branch.
    """
    active = normalized(x, f"{name}_bn1")
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = convolution(
            active, filters, 1, strides, name=f"{name}_shortcut"
        )
    x = convolution(active, filters, 3, strides, name=f"{name}_conv1")
    x = normalized(x, f"{name}_bn2")
    x = convolution(x, filters, 3, name=f"{name}_conv2")
    return layers.Add(name=f"{name}_add")([x, shortcut])


def logits(x, classes, **kwargs):
    """The last layer: one logit a class."""
    return layers.Dense(
        classes,
        # Under mixed precision, logits keep the precision of the weights.
        dtype=keras.config.dtype_policy().variable_dtype,
        name="logits",
        **kwargs,
    )(x)
