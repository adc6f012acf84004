"""The examples that an evaluation goes through, batch by batch."""

import hashlib

import keras
import numpy as np
import tensorflow as tf

from atent_keras.checks.names import paired

_BATCH_SIZE = 512  # of arrays


def batches(data, bounds=None):
    """Returns an iterable of `(x, y)` from batches, or from two arrays.

    Args:
        data: What a user gave.
        bounds: Pair of floats, the range that images ought to have, for
            advice; `None` for any.
    """
    if isinstance(data, dict):
        raise TypeError(
            "`data` must be batches of (x, y), or two arrays. Received: a "
            f"dictionary with the keys {', '.join(map(repr, data))}. "
            + paired(data, bounds)
        )
    if _are_arrays(data):
        x, y = data
        if len(x) != len(y):
            raise ValueError(
                "`data` must hold one label per image. Received: "
                f"{len(x)} images and {len(y)} labels"
            )
        rows = range(0, len(x), _BATCH_SIZE)
        return ((x[i : i + _BATCH_SIZE], y[i : i + _BATCH_SIZE]) for i in rows)
    if endless(data):
        raise ValueError(
            f"`data` must have an end. Received: data={data!r}, which has none"
        )
    if isinstance(data, keras.utils.PyDataset):
        return (data[i][:2] for i in range(data.num_batches))
    if not hasattr(data, "__iter__"):
        raise TypeError(
            "`data` must be batches of (x, y), or two arrays. Received: "
            f"{type(data).__name__}"
        )
    return (keras.utils.unpack_x_y_sample_weight(batch)[:2] for batch in data)


def endless(data):
    """Whether batches are known to have no end."""
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    return (
        isinstance(data, tf.data.Dataset)
        and data.cardinality() == tf.data.INFINITE_CARDINALITY
    )


def _are_arrays(data):
    """Whether data are two arrays, and not, say, a list of two batches."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    first = data[0]
    return not isinstance(first, (tuple, list)) or not any(
        hasattr(part, "shape") for part in first[:1]
    )


def split(batches, size):
    """Yields the same examples in batches of at most so many."""
    for x, y in batches:
        for start in range(0, len(x), size):
            yield x[start : start + size], y[start : start + size]


def count(data):
    """Returns the number of batches, `None` where nobody can tell."""
    if _are_arrays(data):
        return -(-len(data[0]) // _BATCH_SIZE)
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches
    if isinstance(data, tf.data.Dataset):
        size = int(data.cardinality())
        return size if size >= 0 else None
    return len(data) if hasattr(data, "__len__") else None


class Digest:
    """A fingerprint of the examples so far, however they are batched."""

    def __init__(self):
        self._parts = hashlib.sha256(), hashlib.sha256()

    def update(self, *batch):
        """Adds a batch `(x, y)`; returns the fingerprint of all so far."""
        for part, tensor in zip(self._parts, batch):
            values = np.ascontiguousarray(tensor)
            if values.dtype.kind in "iu":  # labels are the same in any type
                values = values.astype("int64")
            part.update(values.tobytes())
        return self.value

    @property
    def value(self):
        return "".join(part.hexdigest()[:32] for part in self._parts)
