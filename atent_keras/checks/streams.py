"""Whether data on their way into Keras are fit to go there."""

import types

import keras
import numpy as np
import tensorflow as tf

from atent_keras.checks.rules import require


def guard(x, y, check, replicas=1, batch_size=None, counted=True):
    """Has `check` look at data on their way into Keras, undisturbed.

    Arrays are checked at once; a `tf.data.Dataset` batch by batch in a map,
    since peeking would shift the order of a shuffled one; a `PyDataset` and a
    generator in their first batch, which the generator then gives again.
    Integers that pass for images go on as floating-point numbers, since
    layers want these.

    Args:
        x, y: What `fit` takes.
        check: Function of a batch `(x, y)` that returns both, or raises.
        replicas: Integer, the least number of images in the first batch.
        batch_size: Integer, how Keras will divide arrays. Defaults to Keras's
            own, 32.
        counted: Boolean, whether a `Dataset` may be changed so that its first
            batch is known. TensorFlow then no longer sees the files in it,
            by which it divides one among several processes.

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
        as_it_is = tf.autograph.experimental.do_not_convert
        if replicas > 1 and counted:
            numbered = x.enumerate()
            return numbered.map(
                as_it_is(lambda index, batch: check_batch(batch, index))
            ), y
        return x.map(as_it_is(lambda *batch: check_batch(batch, 1))), y
    if isinstance(x, keras.utils.PyDataset):
        _require_some(x, x.num_batches != 0)
        first = x[0]
        check_batch(first)
        if _are_integers(first[0]):
            x = _AsFloats(x)
    elif isinstance(x, types.GeneratorType):
        first = next(x, None)
        _require_some(x, first is not None)
        check_batch(first)
        x = _chain(first, x)
    elif y is not None or isinstance(x, dict):
        checked, _ = check(x, y)
        if _are_integers(x):
            x = checked
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
    yield _as_floats(first)
    yield from map(_as_floats, rest)


def _are_integers(x):
    dtype = getattr(x, "dtype", None)
    return dtype is not None and tf.as_dtype(dtype).is_integer


def _as_floats(batch):
    """Returns a batch with its images as floating-point numbers."""
    x, *others = batch
    if not _are_integers(x):
        return batch
    # Not TensorFlow's cast: this may run in a worker process of Keras's.
    return (np.asarray(x, keras.config.floatx()), *others)


class _AsFloats(keras.utils.PyDataset):
    """A data set whose images are floating-point numbers."""

    def __init__(self, data):
        super().__init__(
            workers=data.workers,
            use_multiprocessing=data.use_multiprocessing,
            max_queue_size=data.max_queue_size,
        )
        self.data = data

    @property
    def num_batches(self):
        return self.data.num_batches

    def __getitem__(self, index):
        return _as_floats(self.data[index])

    def on_epoch_begin(self):
        self.data.on_epoch_begin()

    def on_epoch_end(self):
        self.data.on_epoch_end()
