"""Wide residual networks, the robustness literature's large networks."""

import keras
from keras import layers

from atent_keras import checks
from atent_keras.architectures import parts
from atent_keras.architectures import weights_files
from atent_keras.types import Path

_DEEPEST = 1000  # far beyond any that was ever trained


def WideResNet(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    depth: int = 34,
    width: int = 10,
    name: str | None = None,
    weights: Path | None = None,
) -> keras.Model:
    """Instantiates a wide residual network, by default WRN-34-10.

    A 3x3 convolution to 16 filters, then three stages of `(depth - 4) / 6`
    blocks of two convolutions each, with 16, 32 and 64 times `width` filters,
    and BatchNorm and ReLU before each of these convolutions and after the
    last one; BatchNorm has momentum 0.9 and epsilon 1e-5. There is no
    dropout, as in TRADES, and none of the unused blocks of its code. At the
    default arguments there are 46.16 M trainable parameters.

    Args:
        input_shape: Tuple `(height, width, channels)`. Defaults to
            `(32, 32, 3)`.
        classes: Integer, the number of logits. Defaults to 10.
        depth: Integer, the number of convolutions along a path: 10, 16, 22,
            28, 34, ... Defaults to 34.
        width: Integer, the factor of widening. Defaults to 10.
        name: String, the model's name. Defaults to `"wrn_34_10"`, according
            to depth and width.
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

    >>> model = atent_keras.architectures.WideResNet(depth=28, width=10)

    References:
        - [Zagoruyko and Komodakis, 2016](https://arxiv.org/abs/1605.07146)
        - [Zhang et al., 2019](https://arxiv.org/abs/1901.08573), which trains
          WRN-34-10 robustly
    """
    source = weights_files.find(
        "WideResNet", weights, input_shape, classes, depth=depth, width=width
    )
    input_shape = parts.check_images(input_shape)
    checks.require_count(classes=classes, depth=depth, width=width)
    if not 10 <= depth <= _DEEPEST or (depth - 4) % 6:
        raise ValueError(
            "`depth` must be 4 plus a multiple of 6, such as 28 or 34, and at "
            f"most {_DEEPEST}. "
            f"Received: depth={depth}"
        )
    inputs = keras.Input(input_shape, name="image")
    x = parts.convolution(inputs, 16, 3, name="conv")
    for stage in range(3):
        for i in range((depth - 4) // 6):
            x = parts.preactivation_block(
                x,
                filters=16 * width * 2**stage,
                strides=2 if stage > 0 and i == 0 else 1,
                name=f"stage{stage + 1}_block{i + 1}",
            )
    x = parts.normalized(x, "bn")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    network = keras.Model(
        inputs, parts.logits(x, classes), name=name or f"wrn_{depth}_{width}"
    )
    return weights_files.load(network, source)
