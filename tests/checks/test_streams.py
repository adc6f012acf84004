"""Data sets on their way into Keras."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.experimental.ops import distribute

from atent_keras import checks


@pytest.mark.parametrize("policy", ["FILE", "AUTO"])
@pytest.mark.parametrize("replicas, counted", [(1, True), (2, False)])
def test_files_are_divided_among_processes(policy, replicas, counted, tmp_path):
    """As TensorFlow does it before the guard, each reads files of its own."""
    files = [str(tmp_path / f"{i}.tfrecord") for i in range(2)]
    for i, file in enumerate(files):
        with tf.io.TFRecordWriter(file) as writer:
            for j in range(4):
                writer.write(np.float32([i, j]).tobytes())
    data = tf.data.TFRecordDataset(tf.data.Dataset.from_tensor_slices(files))
    data = data.map(lambda record: tf.io.decode_raw(record, tf.float32))
    data = data.map(lambda pair: (pair[1:], pair[0])).batch(2)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = getattr(
        tf.data.experimental.AutoShardPolicy, policy
    )
    guarded, _ = checks.guard(
        data.with_options(options),
        None,
        lambda x, y: (x, y),
        replicas,
        counted=counted,
    )
    mine = distribute._AutoShardDataset(guarded, 2, 1)
    assert [list(y) for _, y in mine.as_numpy_iterator()] == [[1, 1], [1, 1]]
