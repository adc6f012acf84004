"""The small convolutional network of the MNIST experiments."""

import keras
from keras import layers

from atent_keras import checks
from atent_keras.architectures import parts
from atent_keras.architectures import weights_files
from atent_keras.types import Path


def SmallCNN(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    dropout: float = 0.5,
    padding: str = "valid",
    name: str = "small_cnn",
    weights: Path | None = None,
) -> keras.Model:
    """Instantiates the small network that TRADES trains on MNIST.

    Two pairs of 3x3 convolutions, each followed by max pooling, and three
    dense layers. The last one starts at zero, and with it all logits do. At
    the default arguments there are 312,202 parameters.

    Args:
        input_shape: Tuple `(height, width, channels)`, height and width at
            least 16 with valid padding and 4 with same padding. Defaults to
            `(28, 28, 1)`.
        classes: Integer, the number of logits. Defaults to 10.
        dropout: Float in [0, 1], the rate between the dense layers. Defaults
            to 0.5.
        padding: `"valid"`, as in TRADES, or `"same"`, for images too small
            for it. Defaults to `"valid"`.
        name: String, the model's name. Defaults to `"small_cnn"`.
        weights: The weights to start with: a name of
            `atent_keras.architectures.weights()`, or the path of an `.npz`,
            `.weights.h5` or `.keras` file with those of this network.
            Defaults to `None`, random ones.

    Returns:
        A `keras.Model` from images to logits `(batch, classes)`.

    Raises:
        ValueError: If `input_shape` is too small, or an argument out of its
            range, or if `weights` are
            unknown, damaged or those of another network.
        FileNotFoundError: If `weights` is a path without a file.

    Example:

    >>> model = atent_keras.architectures.SmallCNN()
    >>> model = atent_keras.architectures.SmallCNN(
    ...     (8, 8, 1), padding="same", weights="digits_linf_atent"
    ... )

    References:
        - [Zhang et al., 2019](https://arxiv.org/abs/1901.08573), the network
          of its MNIST experiments, after
          [Carlini and Wagner, 2017](https://arxiv.org/abs/1608.04644)
    """
    source = weights_files.find(
        "SmallCNN", weights, input_shape, classes, padding=padding
    )
    if padding not in ("valid", "same"):
        raise ValueError(
            '`padding` must be "valid" or "same". Received: '
            f"padding={padding!r}"
        )
    smallest = 16 if padding == "valid" else 4
    input_shape = parts.check_images(input_shape, smallest)
    checks.require_count(classes=classes)

    def convolution(filters, name):
        return layers.Conv2D(
            filters,
            3,
            padding=padding,
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )

    inputs = keras.Input(input_shape, name="image")
    x = convolution(32, "conv1")(inputs)
    x = convolution(32, "conv2")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = convolution(64, "conv3")(x)
    x = convolution(64, "conv4")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(200, activation="relu", name="dense1")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(200, activation="relu", name="dense2")(x)
    logits = parts.logits(x, classes, kernel_initializer="zeros")
    network = keras.Model(inputs, logits, name=name)
    return weights_files.load(network, source)
