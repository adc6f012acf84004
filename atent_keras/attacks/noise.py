"""The random numbers of a chain, as pure functions of a seed.

The noise of example `i` at step `k` depends on the seed, on `i` and on `k`,
and on nothing else: neither on the batch in which the example comes nor on
what was drawn before. Nothing random has to be saved to resume a training,
and chunking a batch can't be seen in the result.
"""

import tensorflow as tf


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


def normal_noise(seed, like, first=0):
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
        key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(
            seed=tf.random.experimental.stateless_fold_in(seed, k)
        )

        def draw(row, rows):
            offset = tf.cast(row * counts, tf.uint64)
            return tf.raw_ops.StatelessRandomNormalV2(
                shape=tf.stack([rows, tf.cast(counts, tf.int32) * per_count]),
                key=key,
                counter=counter + tf.stack([offset, tf.zeros_like(offset)]),
                alg=1,  # Philox on every device
                dtype=like.dtype,
            )[:, :size]

        rows = tf.shape(like)[0]
        values = (
            _rows(draw, first, rows, like.dtype)
            if first.shape.rank
            else draw(first, rows)
        )
        return tf.reshape(values, tf.concat([[rows], shape], axis=0))

    return noise


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
