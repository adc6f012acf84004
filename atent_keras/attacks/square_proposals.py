"""What the Square attack proposes: pure functions of their noise.

An image has two axes of space, between those of the batch and of the channels;
a sequence has one, its time, and a volume three. `*space` stands for them.
"""

import functools
import math
import statistics

import numpy as np
import tensorflow as tf

from atent_keras.threat_models import per_example


def positions(noise, side, size):
    """Turns N(0, 1) draws into uniform integers in `0..size - side`."""
    uniform = (1 + tf.math.erf(noise / math.sqrt(2))) / 2
    places = tf.cast(size - side + 1, noise.dtype)
    return tf.minimum(tf.cast(uniform * places, tf.int32), size - side)


def square(corner, side, x):
    """Returns where squares are, booleans `(batch, *space, 1)`.

    Args:
        corner: Of the squares, where they begin: an integer tensor `(batch,)`
            for each axis of space.
        side: Integer, in pixels.
        x: Images, `(batch, *space, channels)`.
    """
    inside = tf.ones([1] * (len(corner) + 2), tf.bool)
    for axis, begin in enumerate(corner, start=1):
        offset = tf.range(x.shape[axis]) - begin[:, None]
        within = (offset >= 0) & (offset < side)
        inside &= _along(within, axis, x)
    return inside


def placed(values, corner, x):
    """Returns `values`, `(batch, side, ...)`, in images that are else 0."""
    values = tf.pad(values, [[0, 0], *[[1, 1]] * len(corner)])
    last = values.shape[1] - 1
    for axis, begin in enumerate(corner, start=1):
        index = tf.range(x.shape[axis]) - begin[:, None] + 1
        index = tf.clip_by_value(index, 0, last)
        values = tf.gather(values, index, axis=axis, batch_dims=1)
    return values[..., None]


def _along(values, axis, x):
    """Reshapes `(batch, size)` values to broadcast along an axis of `x`."""
    shape = [1] * x.shape.rank
    shape[0], shape[axis] = -1, x.shape[axis]
    return tf.reshape(values, shape)


def stripes(threat_model, x, noise):
    """Starts the l_inf form: vertical stripes of a random sign each.

    Args:
        threat_model: `Linf`.
        x: Clean images, `(batch, *space, channels)`.
        noise: N(0, 1) draws, `(batch, 1, width, channels)`, with as many 1 as
            there are other axes of space; or other images' worth of signs.
    """
    return threat_model.clip(x + threat_model.epsilon * tf.sign(noise))


def repainted(threat_model, x, x_adv, side, noise):
    """Proposes, in l_inf, a square of one random extreme colour.

    Args:
        threat_model: `Linf`.
        x: Clean images, `(batch, *space, channels)`.
        x_adv: Where the search stands.
        side: Integer tensor, the square's side in pixels.
        noise: N(0, 1) draws, `(batch, axes of space + channels)`.
    """
    space = x.shape[1:-1]
    corner = [
        positions(noise[:, i], side, size) for i, size in enumerate(space)
    ]
    signs = noise[(slice(None), *[None] * len(space), slice(len(space), None))]
    colour = stripes(threat_model, x, signs)
    return tf.where(square(corner, side, x), colour, x_adv)


def eta(side, axes=2):
    """Returns the windows of the l_2 form, of norm 1, one for each axis.

    Two pyramids of opposite sign, one above the other along that axis: where
    a convolution looks for an edge, it finds one.

    Args:
        side: Integer, in pixels.
        axes: Integer, the number of axes of space. Defaults to 2.
    """

    def pyramid(*shape):
        levels = np.arange(max(shape) // 2 + 1)
        above = np.cumsum(1 / (1.0 + levels[::-1]) ** 2)[::-1]
        away = [abs(np.arange(size) - size // 2) for size in shape]
        values = above[functools.reduce(np.maximum, np.ix_(*away))]
        return values / np.linalg.norm(values)

    half, others = side // 2, [side] * (axes - 1)
    parts = [pyramid(half, *others)] if half else []
    window = np.concatenate([*parts, -pyramid(side - half, *others)])
    window /= np.linalg.norm(window)
    return np.stack([np.moveaxis(window, 0, axis) for axis in range(axes)])


def orientation(noise, axes):
    """Turns N(0, 1) draws into uniform integers in `0..axes - 1`."""
    normal = statistics.NormalDist()
    found = tf.zeros_like(noise, tf.int32)
    for axis in range(1, axes):
        found += tf.cast(noise > normal.inv_cdf(axis / axes), tf.int32)
    return found


def grid(x):
    """Returns the side of the windows of `tiles`, and their number a side."""
    smaller = min(x.shape[1:-1])
    side = max(smaller // 5, 1)
    return side, min(5, smaller // side)


def tiles(threat_model, x, noise):
    """Starts the l_2 form: a grid of windows in the middle of the image.

    Args:
        threat_model: `L2`.
        x: Clean images, `(batch, *space, channels)`.
        noise: N(0, 1) draws, `(batch, count, ..., 1 + channels)`, with a count
            for each axis of space.
    """
    side, count = grid(x)
    space, channels = x.shape[1:-1], x.shape[-1]
    axes = len(space)
    window = tf.gather(
        tf.constant(eta(side, axes), x.dtype), orientation(noise[..., 0], axes)
    )
    signs = tf.sign(noise[(..., *[None] * axes, slice(1, None))])
    # Of each axis, what is within a window follows upon its number.
    order = [axis for i in range(1, axes + 1) for axis in (i, i + axes)]
    perturbation = tf.reshape(
        tf.transpose(window[..., None] * signs, [0, *order, 2 * axes + 1]),
        [-1, *[count * side] * axes, channels],
    )
    spare = [size - count * side for size in space]
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
        x: Clean images, `(batch, *space, channels)`.
        x_adv: Where the search stands.
        side: Integer tensor, the squares' side in pixels.
        window: `eta(side, axes)`, or more, padded by zeros.
        noise: N(0, 1) draws, `(batch, 2 * axes + 1 + channels)`, with so many
            axes of space.
    """
    space, channels = x.shape[1:-1], x.shape[-1]
    axes = len(space)

    def length(p):
        within = range(1, axes + 1)
        return tf.sqrt(tf.reduce_sum(p * p, axis=within, keepdims=True))

    perturbation = x_adv - x
    corners = [
        positions(noise[:, i], side, size)
        for i, size in enumerate([*space, *space])
    ]
    to, source = (
        square(corner, side, x) for corner in (corners[:axes], corners[axes:])
    )
    direction = tf.gather(window, orientation(noise[:, 2 * axes], axes))
    signs = slice(2 * axes + 1, None)
    sign = tf.sign(noise[(slice(None), *[None] * axes, signs)])
    there = tf.where(to, perturbation, 0)
    new = sign * placed(direction, corners[:axes], x)
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
