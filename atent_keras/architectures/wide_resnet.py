"""Wide residual networks, the robustness literature's large networks."""

import keras
from keras import layers

from atent_keras.architectures import parts


def WideResNet(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    depth: int = 34,
    width: int = 10,
    name: str | None = None,
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

    Returns:
        A `keras.Model` from images in [0, 1] to logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> model = atent_keras.architectures.WideResNet(depth=28, width=10)

    References:
        - [Zagoruyko and Komodakis, 2016](https://arxiv.org/abs/1605.07146)
        - [Zhang et al., 2019](https://arxiv.org/abs/1901.08573), which trains
          WRN-34-10 robustly
    """
    input_shape = parts.check_images(input_shape)
    parts.check_counts(classes=classes, depth=depth, width=width)
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(
            "`depth` must be 4 plus a multiple of 6, such as 28 or 34. "
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
    return keras.Model(
        inputs, parts.logits(x, classes), name=name or f"wrn_{depth}_{width}"
    )
