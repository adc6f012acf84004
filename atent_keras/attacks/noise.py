"""The random numbers of a chain, as pure functions of a seed.

The noise of example `i` at step `k` depends on the seed, on `i` and on `k`,
and on nothing else: neither on the batch in which the example comes nor on
what was drawn before. Nothing random has to be saved to resume a training,
and chunking a batch can't be seen in the result.
"""

import tensorflow as tf

from atent_keras.attacks import philox


def as_seed(seed):
    """Returns `seed` as a tensor of two integers; `None` draws a fresh one.

    Args:
        seed: `None`, an integer, or a tensor of two integers, e.g. from
            `tf.random.experimental.stateless_fold_in`. With `None`, the seed
            comes from TensorFlow's global generator, inside a `tf.function`
            anew at every call, so `keras.utils.set_random_seed` makes the
            sequence of draws reproducible.
    """
    if seed is None:
        return tf.random.uniform((2,), maxval=tf.int64.max, dtype=tf.int64)
    try:
        values = tf.convert_to_tensor(seed)
    except (TypeError, ValueError, OverflowError):
        values = None
    if (
        values is None
        or not values.dtype.is_integer
        or values.shape not in [(), (2,)]
    ):
        raise TypeError(
            "`seed` must be None, or an integer or a tensor of two, of 64 "
            "bits. "
            f"Received: seed={seed!r}"
        )
    values = tf.cast(values, tf.int64)
    return values if values.shape.rank else tf.stack([values, 0])


def places(like, first):
    """Returns the examples' places in their data set, integers `(batch,)`.

    Args:
        like: Tensor of shape `(batch, ...)`.
        first: Integer, the place of the first one; or the places themselves.

    Raises:
        ValueError: If they are no integers of 32 bits.
    """
    try:
        values = tf.convert_to_tensor(first)
        valid = values.dtype.is_integer
    except (TypeError, ValueError, OverflowError):
        valid = False
    if valid and tf.executing_eagerly():
        wide = tf.cast(values, tf.int64)
        valid = tf.reduce_all((wide >= 0) & (wide <= tf.int32.max))
    if not valid:
        raise ValueError(
            "`first` must be an integer, or one for each image, at least 0 "
            f"and of 32 bits. Received: first={first!r}"
        )
    first = tf.cast(values, tf.int32)
    return first if first.shape.rank else first + tf.range(like.shape[0])


def normal_noise(seed, like, first=0, xla=False):
    """Returns `noise(k)`, which draws N(0, 1) numbers in the shape of `like`.

    The examples of a data set share one endless draw per step, of which
    `like` gets its own rows: from row `first` on, or the rows `first`.
    Philox, the generator, is a counter: a row is reached without drawing
    those before it. `noise(k, shape)` draws so much per example instead.

    Args:
        seed: Tensor of two integers.
        like: Tensor of shape `(batch, ...)`.
        first: Integer, the index of the first row of `like` in its data set;
            or the indices of all of them, ascending, of shape `(batch,)`.
        xla: Boolean, whether XLA is to draw the same numbers, up to rounding.
            It draws others by itself, and none of single rows.

    References:
    - Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    per_count = 16 // like.dtype.size  # one counter value gives 128 bits
    first = tf.cast(first, tf.int64)

    def noise(k, shape=None):
        if shape is None:
            shape = tf.shape(like)[1:]
        size = tf.reduce_prod(tf.cast(shape, tf.int64))
        counts = (size + per_count - 1) // per_count
        rows = tf.shape(like)[0]
        draw = _compilable if xla else _draw
        values = draw(fold_in(seed, k, xla), first, rows, counts, like.dtype)
        return tf.reshape(values[:, :size], tf.concat([[rows], shape], axis=0))

    return noise


def fold_in(seed, data, xla=False):
    """Returns a seed of its own for `data`, a scalar integer.

    Args:
        seed: Tensor of two integers.
        data: Scalar integer.
        xla: Boolean, whether XLA is to find the same.
    """
    if xla:
        return philox.fold_in(seed, data)
    return tf.random.experimental.stateless_fold_in(seed, data)


def _compilable(seed, first, rows, counts, dtype):
    """Draws as `_draw` does, in operations that XLA compiles."""
    key, (low, high) = philox.key_and_counter(seed)
    if not first.shape.rank:
        first += tf.range(tf.cast(rows, tf.int64))
    counter = low + tf.cast(
        first[:, None] * counts + tf.range(counts), low.dtype
    )
    high = tf.fill(tf.shape(counter), high)
    return tf.reshape(philox.normal(key, (counter, high), dtype), [rows, -1])


def _draw(seed, first, rows, counts, dtype):
    """Draws `counts` counter values for each of the rows."""
    per_count = 16 // dtype.size
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)

    def draw(row, rows):
        offset = tf.cast(row * counts, tf.uint64)
        return tf.raw_ops.StatelessRandomNormalV2(
            shape=tf.stack([rows, tf.cast(counts, tf.int32) * per_count]),
            key=key,
            counter=counter + tf.stack([offset, tf.zeros_like(offset)]),
            alg=1,  # Philox on every device
            dtype=dtype,
        )

    if first.shape.rank:
        return _rows(draw, first, rows, dtype)
    return draw(first, rows)


def _rows(draw, indices, rows, dtype):
    """Draws the rows `indices`, with those between them if they are few."""
    span = tf.cast(indices[-1] - indices[0] + 1, tf.int32)
    return tf.cond(
        span <= 4 * rows,
        lambda: tf.gather(draw(indices[0], span), indices - indices[0]),
        lambda: tf.map_fn(
            lambda row: draw(row, 1)[0], indices, fn_output_signature=dtype
        ),
    )
