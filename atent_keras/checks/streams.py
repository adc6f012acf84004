"""Whether data on their way into Keras are fit to go there."""

import types

import keras
import tensorflow as tf

from atent_keras.checks.rules import require


def guard(x, y, check, replicas=1, batch_size=None):
    """Has `check` look at data on their way into Keras, undisturbed.

    Arrays are checked at once; a `tf.data.Dataset` batch by batch in a map,
    since peeking would shift the order of a shuffled one; a `PyDataset` and a
    generator in their first batch, which the generator then gives again.

    Args:
        x, y: What `fit` takes.
        check: Function of a batch `(x, y)` that returns both, or raises.
        replicas: Integer, the least number of images in the first batch.
        batch_size: Integer, how Keras will divide arrays. Defaults to Keras's
            own, 32.

    Returns:
        The pair `(x, y)` to hand on to Keras.

    Raises:
        ValueError: If there are no data, or not one image for each replica,
            besides what `check` raises.
    """

    def check_batch(batch, index=0):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        x, y = check(x, y)
        if replicas > 1:
            x = _require_share(x, tf.shape(x)[0], replicas, index)
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    if isinstance(x, tf.data.Dataset):
        _require_some(x, x.cardinality() != 0)
        return x.enumerate().map(
            tf.autograph.experimental.do_not_convert(
                lambda index, batch: check_batch(batch, index)
            )
        ), y
    if isinstance(x, keras.utils.PyDataset):
        _require_some(x, x.num_batches != 0)
        check_batch(x[0])
    elif isinstance(x, types.GeneratorType):
        first = next(x, None)
        _require_some(x, first is not None)
        check_batch(first)
        x = _chain(first, x)
    elif y is not None:
        check(x, y)
        _require_share(x, min(len(x), batch_size or 32), replicas)
    return x, y


def _require_some(data, some):
    if not some:
        raise ValueError(f"The data set is empty. Received: {data!r}")


def _require_share(x, size, replicas, index=0):
    """Returns `x` if it is a first batch with an image for each replica."""
    return require(
        (index > 0) | (size >= replicas),
        x,
        f"A batch must hold an image for each of the {replicas} replicas. "
        "Received: a batch of {}",
        tf.convert_to_tensor(size),
    )


def _chain(first, rest):
    # Keras knows a generator by its type, which `itertools.chain` is not.
    yield first
    yield from rest
