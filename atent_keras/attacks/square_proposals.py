"""What the Square attack proposes: pure functions of their noise."""

import math

import numpy as np
import tensorflow as tf

from atent_keras.threat_models import per_example


def positions(noise, side, size):
    """Turns N(0, 1) draws into uniform integers in `0..size - side`."""
    uniform = (1 + tf.math.erf(noise / math.sqrt(2))) / 2
    places = tf.cast(size - side + 1, noise.dtype)
    return tf.minimum(tf.cast(uniform * places, tf.int32), size - side)


def square(row, column, side, x):
    """Returns where squares are, booleans `(batch, height, width, 1)`.

    Args:
        row, column: Of the squares' upper left corners, `(batch,)`.
        side: Integer, in pixels.
        x: Images, `(batch, height, width, channels)`.
    """
    down = tf.range(x.shape[1]) - row[:, None]
    across = tf.range(x.shape[2]) - column[:, None]
    down, across = ((i >= 0) & (i < side) for i in (down, across))
    return (down[:, :, None] & across[:, None, :])[..., None]


def placed(values, row, column, x):
    """Returns `values`, `(batch, side, side)`, in images that are else 0."""
    values = tf.pad(values, [[0, 0], [1, 1], [1, 1]])
    last = values.shape[1] - 1
    for axis, corner in ((1, row), (2, column)):
        index = tf.range(x.shape[axis]) - corner[:, None] + 1
        index = tf.clip_by_value(index, 0, last)
        values = tf.gather(values, index, axis=axis, batch_dims=1)
    return values[..., None]


def stripes(threat_model, x, noise):
    """Starts the l_inf form: vertical stripes of a random sign each.

    Args:
        threat_model: `Linf`.
        x: Clean images, `(batch, height, width, channels)`.
        noise: N(0, 1) draws, `(batch, 1, width, channels)`; or other images'
            worth of signs.
    """
    return threat_model.clip(x + threat_model.epsilon * tf.sign(noise))


def repainted(threat_model, x, x_adv, side, noise):
    """Proposes, in l_inf, a square of one random extreme colour.

    Args:
        threat_model: `Linf`.
        x: Clean images, `(batch, height, width, channels)`.
        x_adv: Where the search stands.
        side: Integer tensor, the square's side in pixels.
        noise: N(0, 1) draws, `(batch, 2 + channels)`.
    """
    row = positions(noise[:, 0], side, x.shape[1])
    column = positions(noise[:, 1], side, x.shape[2])
    colour = stripes(threat_model, x, noise[:, None, None, 2:])
    return tf.where(square(row, column, side, x), colour, x_adv)


def eta(side):
    """Returns the window of the l_2 form and its transpose, of norm 1.

    Two pyramids of opposite sign, one above the other: where a convolution
    looks for an edge, it finds one.
    """

    def pyramid(height, width):
        rows = abs(np.arange(height) - height // 2)[:, None]
        columns = abs(np.arange(width) - width // 2)
        levels = np.arange(max(height, width) // 2 + 1)
        above = np.cumsum(1 / (1.0 + levels[::-1]) ** 2)[::-1]
        values = above[np.maximum(rows, columns)]
        return values / np.linalg.norm(values)

    half = side // 2
    parts = [pyramid(half, side)] if half else []
    window = np.concatenate([*parts, -pyramid(side - half, side)])
    window /= np.linalg.norm(window)
    return np.stack([window, window.T])


def grid(x):
    """Returns the side of the windows of `tiles`, and their number a side."""
    smaller = min(x.shape[1:3])
    side = max(smaller // 5, 1)
    return side, min(5, smaller // side)


def tiles(threat_model, x, noise):
    """Starts the l_2 form: a grid of windows in the middle of the image.

    Args:
        threat_model: `L2`.
        x: Clean images, `(batch, height, width, channels)`.
        noise: N(0, 1) draws, `(batch, count, count, 1 + channels)`.
    """
    side, count = grid(x)
    window = tf.gather(
        tf.constant(eta(side), x.dtype), tf.cast(noise[..., 0] > 0, tf.int32)
    )
    signs = tf.sign(noise[:, :, :, None, None, 1:])
    perturbation = tf.reshape(
        tf.transpose(window[..., None] * signs, [0, 1, 3, 2, 4, 5]),
        [-1, count * side, count * side, x.shape[3]],
    )
    spare = [size - count * side for size in x.shape[1:3]]
    perturbation = tf.pad(
        perturbation,
        [[0, 0], *[[room // 2, room - room // 2] for room in spare], [0, 0]],
    )
    return _at_radius(threat_model, x, perturbation)


def moved(threat_model, x, x_adv, side, window, noise):
    """Proposes, in l_2, to move what one square has into another.

    ```python
    unused = epsilon**2 - norm(p) ** 2
    new = sign * eta + p[to] / norm(p[to])
    new *= sqrt(norm(p[to | source]) ** 2 + unused / channels) / norm(new)
    p[source], p[to] = 0, new
    ```

    Args:
        threat_model: `L2`.
        x: Clean images, `(batch, height, width, channels)`.
        x_adv: Where the search stands.
        side: Integer tensor, the squares' side in pixels.
        window: `eta(side)`, or more, padded by zeros.
        noise: N(0, 1) draws, `(batch, 5 + channels)`.
    """
    height, width, channels = x.shape[1:]

    def length(p):
        return tf.sqrt(tf.reduce_sum(p * p, axis=[1, 2], keepdims=True))

    perturbation = x_adv - x
    corners = [
        positions(noise[:, i], side, size)
        for i, size in enumerate((height, width, height, width))
    ]
    to, source = (
        square(row, column, side, x)
        for row, column in (corners[:2], corners[2:])
    )
    direction = tf.gather(window, tf.cast(noise[:, 4] > 0, tf.int32))
    sign = tf.sign(noise[:, None, None, 5:])
    there = tf.where(to, perturbation, 0)
    new = sign * placed(direction, *corners[:2], x)
    new += tf.math.divide_no_nan(there, length(there))
    unused = threat_model.epsilon**2 - threat_model.norm(perturbation) ** 2
    unused = per_example(tf.maximum(unused, 0) / channels, x)
    both = length(tf.where(to | source, perturbation, 0))
    new *= tf.math.divide_no_nan(tf.sqrt(both**2 + unused), length(new))
    rest = tf.where(source, tf.zeros_like(x), perturbation)
    return _at_radius(threat_model, x, tf.where(to, new, rest))


def _at_radius(threat_model, x, perturbation):
    direction = threat_model.ascent_direction(perturbation)
    return threat_model.clip(x + threat_model.epsilon * direction)
