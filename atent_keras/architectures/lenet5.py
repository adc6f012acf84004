"""The LeNet-5 of the MNIST adversarial examples challenge."""

import keras
from keras import layers

from atent_keras import checks
from atent_keras.architectures import parts
from atent_keras.architectures import weights_files
from atent_keras.types import Path


def LeNet5(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    name: str = "lenet5",
    weights: Path | None = None,
) -> keras.Model:
    """Instantiates the wide LeNet-5 that Madry et al. train on MNIST.

    Two 5x5 convolutions with same padding, each followed by max pooling, and
    two dense layers. At the default arguments there are 3,274,634 parameters.

    Args:
        input_shape: Tuple `(height, width, channels)`. Defaults to
            `(28, 28, 1)`.
        classes: Integer, the number of logits. Defaults to 10.
        name: String, the model's name. Defaults to `"lenet5"`.
        weights: The weights to start with: a name of
            `atent_keras.architectures.weights()`, or the path of an `.npz`,
            `.weights.h5` or `.keras` file with those of this network.
            Defaults to `None`, random ones.

    Returns:
        A `keras.Model` from images to logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range, or if `weights` are
            unknown, damaged or those of another network.
        FileNotFoundError: If `weights` is a path without a file.

    Example:

    >>> model = atent_keras.architectures.LeNet5()

    References:
        - [Madry et al., 2018](https://arxiv.org/abs/1706.06083), the network
          of its MNIST experiments
        - [LeCun et al., 1998](https://doi.org/10.1109/5.726791)
    """
    source = weights_files.find("LeNet5", weights, input_shape, classes)
    input_shape = parts.check_images(input_shape)
    checks.require_count(classes=classes)
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for i, filters in enumerate((32, 64), start=1):
        x = layers.Conv2D(
            filters, 5, padding="same", activation="relu", name=f"conv{i}"
        )(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"pool{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(1024, activation="relu", name="dense")(x)
    network = keras.Model(inputs, parts.logits(x, classes), name=name)
    return weights_files.load(network, source)
