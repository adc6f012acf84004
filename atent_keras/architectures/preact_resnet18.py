"""The ResNet of 18 layers with activations before its convolutions."""

import keras
from keras import layers

from atent_keras import checks
from atent_keras.architectures import parts
from atent_keras.architectures import weights_files
from atent_keras.types import Path


def PreActResNet18(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    width: int = 64,
    name: str = "preact_resnet18",
    weights: Path | None = None,
) -> keras.Model:
    """Instantiates PreActResNet-18 in the literature's form for CIFAR-10.

    A 3x3 convolution, then four stages of two blocks each, with 1, 2, 4 and 8
    times `width` filters, and BatchNorm and ReLU before each convolution and
    after the last one; BatchNorm has momentum 0.9 and epsilon 1e-5. At the
    default arguments there are 11.17 M trainable parameters.

    Args:
        input_shape: Tuple `(height, width, channels)`. Defaults to
            `(32, 32, 3)`.
        classes: Integer, the number of logits. Defaults to 10.
        width: Integer, filters in the first stage. Defaults to 64.
        name: String, the model's name. Defaults to `"preact_resnet18"`.
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

    >>> model = atent_keras.architectures.PreActResNet18()

    References:
        - [He et al., 2016](https://arxiv.org/abs/1603.05027), "Identity
          mappings in deep residual networks"
        - [Rice et al., 2020](https://arxiv.org/abs/2002.11569), which trains
          this form robustly
    """
    source = weights_files.find(
        "PreActResNet18", weights, input_shape, classes, width=width
    )
    input_shape = parts.check_images(input_shape)
    checks.require_count(classes=classes, width=width)
    inputs = keras.Input(input_shape, name="image")
    x = parts.convolution(inputs, width, 3, name="conv")
    for stage in range(4):
        for i in range(2):
            x = parts.preactivation_block(
                x,
                filters=width * 2**stage,
                strides=2 if stage > 0 and i == 0 else 1,
                name=f"stage{stage + 1}_block{i + 1}",
            )
    x = parts.normalized(x, "bn")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    network = keras.Model(inputs, parts.logits(x, classes), name=name)
    return weights_files.load(network, source)
