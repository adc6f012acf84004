"""The ResNet of 20 layers that He et al. train on CIFAR-10."""

import keras
from keras import layers

from atent_keras import checks
from atent_keras.architectures import parts
from atent_keras.architectures import weights_files
from atent_keras.types import Path


def ResNet20(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    width: int = 16,
    name: str = "resnet20",
    weights: Path | None = None,
) -> keras.Model:
    """Instantiates ResNet-20 in its form for CIFAR-10.

    A 3x3 convolution, then three stages of three blocks of two convolutions
    each, with 1, 2 and 4 times `width` filters; BatchNorm has momentum 0.9
    and epsilon 1e-5. The shortcuts have no parameters: where a stage begins,
    they take every second pixel and pad the channels with zeros (the paper's
    option A). At the default arguments there are 0.27 M trainable parameters.

    Args:
        input_shape: Tuple `(height, width, channels)`. Defaults to
            `(32, 32, 3)`.
        classes: Integer, the number of logits. Defaults to 10.
        width: Integer, filters in the first stage. Defaults to 16.
        name: String, the model's name. Defaults to `"resnet20"`.
        weights: The weights to start with: a name of
            `atent_keras.architectures.weights()`, or the path of an `.npz`,
            `.weights.h5` or `.keras` file with those of this network.
            Defaults to `None`, random ones.

    Returns:
        A `keras.Model` from images in [0, 1] to logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range, or if `weights` are
            unknown, damaged or those of another network.
        FileNotFoundError: If `weights` is a path without a file.

    Example:

    >>> model = atent_keras.architectures.ResNet20()

    References:
        - [He et al., 2016](https://arxiv.org/abs/1512.03385), section 4.2
    """
    source = weights_files.find(
        "ResNet20", weights, input_shape, classes, width=width
    )
    input_shape = parts.check_images(input_shape)
    checks.require_count(classes=classes, width=width)
    inputs = keras.Input(input_shape, name="image")
    x = parts.convolution(inputs, width, 3, name="conv")
    x = parts.normalized(x, "bn")
    for stage in range(3):
        for i in range(3):
            x = _block(
                x,
                filters=width * 2**stage,
                strides=2 if stage > 0 and i == 0 else 1,
                name=f"stage{stage + 1}_block{i + 1}",
            )
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    network = keras.Model(inputs, parts.logits(x, classes), name=name)
    return weights_files.load(network, source)


def _block(x, filters, strides, name):
    shortcut = x
    if strides != 1:
        shortcut = layers.AveragePooling2D(
            1, strides, name=f"{name}_subsample"
        )(x)
        missing = filters - x.shape[-1]
        shortcut = keras.ops.pad(
            shortcut, [[0, 0], [0, 0], [0, 0], [0, missing]]
        )
    x = parts.convolution(x, filters, 3, strides, name=f"{name}_conv1")
    x = parts.normalized(x, f"{name}_bn1")
    x = parts.convolution(x, filters, 3, name=f"{name}_conv2")
    x = parts.batch_norm(x, f"{name}_bn2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)
