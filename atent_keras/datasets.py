"""Images in [0, 1] with integer labels, in an order that can be resumed."""

import urllib.request

import numpy as np
import tensorflow as tf

from atent_keras.types import Array
from atent_keras.types import Path


def mnist(
    split: str,
    batch_size: int = 128,
    *,
    shift: int = 0,
    seed: int = 0,
    first_epoch: int = 0,
    drop_remainder: bool = False,
    limit: int | None = None,
    endless: bool = False,
    validation_size: int = 5000,
    data_dir: Path | None = None,
) -> tf.data.Dataset:
    """Returns MNIST as batches of shape `(batch, 28, 28, 1)`.

    Read by TensorFlow Datasets, which downloads MNIST where it has to.

    Args:
        split: `"train"`, `"validation"` or `"test"`. Validation is the last
            `validation_size` of the 60,000 training images, in the order of
            the files; the rest is `"train"`.
        batch_size: Integer, images a batch. Defaults to 128.
        shift: Integer, by how many pixels the training images are moved at
            most; see `pipeline`. Defaults to 0.
        seed: Integer, the seed of the training order. Defaults to 0.
        first_epoch: Integer, the epoch to start with; see `pipeline`.
            Defaults to 0.
        drop_remainder: Whether to drop the last, smaller batch of the
            training set; the other splits stay whole. Defaults to `False`.
        limit: Integer, to take the first `limit` images of the split only.
            Defaults to `None`, all of them.
        endless: Whether the training set goes on for ever, as `pipeline`
            says. Defaults to `False`.
        validation_size: Integer, from 1 to one less than the training set.
            Defaults to 5000.
        data_dir: Path, the folder where TensorFlow Datasets keeps its data
            sets. Defaults to `None`: the environment variable
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, float32 in [0, 1] and
        int64, of known cardinality. The training set is shuffled as
        `pipeline` says; the other splits keep the order of the files.

    Raises:
        FileNotFoundError: If there is no prepared copy and none can be
            downloaded.
        ImportError: If TensorFlow Datasets is missing or broken.
        ValueError: If an argument is out of its range.

    Example:

    >>> train = atent_keras.datasets.mnist("train", batch_size=128)
    >>> validation = atent_keras.datasets.mnist("validation", batch_size=500)
    >>> model.fit(train, validation_data=validation, epochs=30)
    """
    return _dataset(
        "mnist",
        split,
        batch_size,
        limit,
        validation_size,
        data_dir,
        shuffle=True,
        shift=shift,
        seed=seed,
        first_epoch=first_epoch,
        drop_remainder=drop_remainder,
        endless=endless,
    )


def cifar10(
    split: str,
    batch_size: int = 128,
    *,
    augment: bool = True,
    seed: int = 0,
    first_epoch: int = 0,
    drop_remainder: bool = False,
    limit: int | None = None,
    endless: bool = False,
    validation_size: int = 5000,
    data_dir: Path | None = None,
) -> tf.data.Dataset:
    """Returns CIFAR-10 as batches of shape `(batch, 32, 32, 3)`.

    As `mnist`, out of 50,000 training and 10,000 test images. The training
    images are moved by up to 4 pixels and mirrored at random; there is no
    normalization, which belongs into the network.

    Args:
        split: As in `mnist`.
        batch_size: As in `mnist`.
        augment: Whether to crop and mirror the training images; the other
            splits stay as they are. Defaults to `True`.
        seed: As in `mnist`.
        first_epoch: As in `mnist`.
        drop_remainder: As in `mnist`.
        limit: As in `mnist`.
        endless: As in `mnist`.
        validation_size: As in `mnist`.
        data_dir: As in `mnist`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, as `mnist` does.

    Raises:
        FileNotFoundError, ImportError, ValueError: As `mnist` does.
    """
    return _dataset(
        "cifar10",
        split,
        batch_size,
        limit,
        validation_size,
        data_dir,
        shuffle=True,
        augment=augment,
        seed=seed,
        first_epoch=first_epoch,
        drop_remainder=drop_remainder,
        endless=endless,
    )


def digits(
    test_size: int = 500, seed: int = 0
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns scikit-learn's handwritten digits: 1,797 images of 8x8 pixels.

    Real data that come with a package, for whatever has to run anywhere.

    Args:
        test_size: Integer, images in the test set, from 10 to 1787. Every
            class keeps its share. Defaults to 500, which leaves 1,297 for
            training.
        seed: Integer, the seed of the division. Defaults to 0.

    Returns:
        `(x_train, y_train), (x_test, y_test)`, arrays as `keras.datasets`
        gives them: images `(n, 8, 8, 1)`, float32 in [0, 1], and labels
        `(n,)`, int64.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If `test_size` is out of its range.

    Example:

    >>> (x, y), test = atent_keras.datasets.digits()
    >>> train = atent_keras.datasets.pipeline(x, y, 64, shuffle=True)
    """
    _check_integer("test_size", test_size, 10, 1787)
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            '`digits` needs scikit-learn: pip install "atent_keras[examples]"'
        ) from error
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (x / 16).astype("float32").reshape(-1, 8, 8, 1),
        y.astype("int64"),
        test_size=test_size,
        random_state=seed,
        stratify=y,
    )
    return (x_train, y_train), (x_test, y_test)


def pipeline(
    images: Array,
    labels: Array,
    batch_size: int,
    *,
    shuffle: bool = False,
    augment: bool = False,
    shift: int = 0,
    seed: int = 0,
    first_epoch: int = 0,
    drop_remainder: bool = False,
    endless: bool = False,
) -> tf.data.Dataset:
    """Returns arrays as batches whose order follows from the epoch alone.

    The permutation of the whole set, and what augmentation draws for each
    image, are functions of `(seed, epoch)`. The epoch is `first_epoch` plus
    the number of times this object has given its last batch: every complete
    pass moves on by one, whoever makes it. So

    - `model.fit(dataset, epochs=n)` sees epochs `first_epoch`,
      `first_epoch + 1`, ..., and so does `dataset.repeat()`;
    - a look at the first batches, or a pass that was interrupted, changes
      nothing: the next pass gives the same epoch, from its start;
    - training that stopped in epoch `e` goes on, exactly, with a dataset made
      with `first_epoch=e`; if it stopped after `n` steps of it, with
      `dataset.skip(n)` first and `dataset` from then on.

    What reads ahead of its user, such as `prefetch` after this or a
    distribution strategy, has made a complete pass once it has read the last
    batch. For those there is `endless=True`: one epoch after the other in a
    single pass, of which nobody has to keep count. It wants `steps_per_epoch`
    in `fit`, and `skip(n)` begins `n` steps later, in the same order.

    Args:
        images: Array of shape `(n, height, width, channels)`: integers in
            0..255, which are divided by 255, or floats, which are kept.
        labels: Array whose first axis is `n`.
        batch_size: Integer, images a batch.
        shuffle: Whether each epoch has its own order. Defaults to `False`.
        augment: Whether to crop each image at random from itself padded by 4
            black pixels, and to mirror it half of the time. Defaults to
            `False`.
        shift: Integer, by how many pixels to crop each image so, from itself
            padded by as many, where it is not to be mirrored, as digits are
            not. Defaults to 0.
        seed: Integer, the seed of both. Defaults to 0.
        first_epoch: Integer, the epoch to start with. Defaults to 0.
        drop_remainder: Whether to drop the last batch if it is smaller than
            the others. Defaults to `False`.
        endless: Whether all epochs from `first_epoch` on come in one pass.
            Defaults to `False`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, the images float32, of
        known cardinality or, if `endless`, of infinite.

    Raises:
        ValueError: If an argument is out of its range.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    size = len(images)
    if images.ndim != 4 or size == 0 or labels.shape[:1] != (size,):
        raise ValueError(
            "`images` must have shape (n, height, width, channels), with n "
            "at least 1, and `labels` one entry each. Received: images of "
            f"shape {images.shape} and labels of shape {labels.shape}"
        )
    _check_integer("batch_size", batch_size, 1)
    _check_integer("shift", shift, 0)
    if augment and shift:
        raise ValueError(
            "`shift` must be 0 when augment=True, which moves images by its "
            f"own {_PADDING} pixels. Received: shift={shift}"
        )
    _check_integer("seed", seed)
    _check_integer("first_epoch", first_epoch, 0)
    if drop_remainder and batch_size > size:
        raise ValueError(
            "`batch_size` must not exceed the number of images when "
            "drop_remainder=True, or no batch is left. Received: "
            f"batch_size={batch_size} for {size} images"
        )
    padding = _PADDING if augment else shift
    steps = size // batch_size if drop_remainder else -(-size // batch_size)
    scale = 255 if images.dtype.kind in "iu" else 1
    with tf.device("CPU:0"):
        images, labels = tf.constant(images), tf.constant(labels)
    epochs = _Epochs(first_epoch)

    def batches(epoch):
        seeds = tf.unstack(tf.random.split([tf.cast(seed, tf.int64), epoch], 3))
        order = tf.range(size)
        if shuffle:
            order = permutation(size, seeds[0])
        offsets = tf.random.stateless_uniform(
            [size, 2], seeds[1], maxval=2 * padding + 1, dtype=tf.int32
        )
        mirrored = tf.random.stateless_uniform([size], seeds[2]) < 0.5
        mirrored &= augment

        def batch(index):
            x, y = tf.gather(images, index), tf.gather(labels, index)
            if padding:
                x = crop_and_mirror(
                    x,
                    tf.gather(offsets, index),
                    tf.gather(mirrored, index),
                    padding,
                )
            return tf.cast(x, tf.float32) / scale, y

        return (
            tf.data.Dataset.from_tensor_slices(order)
            .batch(batch_size, drop_remainder)
            .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    def current_epoch(_):
        return tf.ensure_shape(
            tf.numpy_function(epochs.current, [], tf.int64), ()
        )

    def count(step, batch):
        last = tf.equal(step, steps - 1)
        complete = tf.cond(
            last,
            lambda: tf.numpy_function(epochs.complete, [], tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        with tf.control_dependencies([complete]):
            return tf.nest.map_structure(tf.identity, batch)

    options = tf.data.Options()
    # Workers take turns at the batches; there are no files to share out.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    if endless:
        return (
            tf.data.Dataset.range(first_epoch, tf.int64.max)
            .flat_map(batches)
            .apply(
                tf.data.experimental.assert_cardinality(
                    tf.data.INFINITE_CARDINALITY
                )
            )
            .with_options(options)
        )
    # Nothing may read ahead of `count`, which stands for the user.
    options.experimental_optimization.inject_prefetch = False
    return (
        tf.data.Dataset.range(1)
        .map(current_epoch)
        .flat_map(batches)
        .enumerate()
        .map(count)
        .apply(tf.data.experimental.assert_cardinality(steps))
        .with_options(options)
    )


def permutation(size: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns a uniformly random permutation of `range(size)`, statelessly.

    Args:
        size: Integer.
        seed: Integers of shape `(2,)`.

    Returns:
        Integers of shape `(size,)`, int32.
    """
    # 64 random bits each: two alike are too rare to favour any order.
    keys = tf.random.stateless_uniform(
        [size], seed, minval=None, maxval=None, dtype=tf.int64
    )
    return tf.argsort(keys)


_PADDING = 4


def crop_and_mirror(
    images: tf.Tensor,
    offsets: tf.Tensor,
    mirrored: tf.Tensor,
    padding: int = _PADDING,
) -> tf.Tensor:
    """Moves images by a few pixels and mirrors some, left to right.

    `image[i, j]` becomes `padded[top + i, left + j]`, then
    `image[i, width - 1 - j]` where mirrored.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        offsets: Integers of shape `(batch, 2)`: `top` and `left`, the corner
            of the crop in the padded image, from 0 to twice the padding.
        mirrored: Booleans of shape `(batch,)`.
        padding: Integer, zeros on each side of an image. Defaults to 4.

    Returns:
        A tensor like `images`.
    """
    _, height, width, _ = images.shape
    rows = offsets[:, :1] + tf.range(height)
    columns = offsets[:, 1:] + tf.range(width)
    columns = tf.where(mirrored[:, None], columns[:, ::-1], columns)
    margin = [padding, padding]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


class _Epochs:
    """The number of the current epoch, on the host.

    A `tf.Variable` would be mirrored inside a strategy's scope.
    """

    def __init__(self, first):
        self.epoch = first

    def current(self):
        return np.int64(self.epoch)

    def complete(self):
        self.epoch += 1
        return np.int64(self.epoch)


def _dataset(
    name, split, batch_size, limit, validation_size, data_dir, **training
):
    """Returns the pipeline of one split; `training` is for `"train"` only."""
    if split not in ("train", "validation", "test"):
        raise ValueError(
            '`split` must be "train", "validation" or "test". Received: '
            f"split={split!r}"
        )
    _check_integer("batch_size", batch_size, 1)
    _check_integer("validation_size", validation_size, 1)
    if limit is not None:
        _check_integer("limit", limit, 1)
    builder = _prepared(name, data_dir)
    source = "test" if split == "test" else "train"
    size = builder.info.splits[source].num_examples
    start, stop = 0, size
    if source == "train":
        _check_integer("validation_size", validation_size, 1, size - 1)
        border = size - validation_size
        start, stop = (0, border) if split == "train" else (border, size)
    if limit is not None:
        stop = min(stop, start + limit)
    images, labels = builder.as_dataset(
        split=f"{source}[{start}:{stop}]", batch_size=-1, as_supervised=True
    )
    if split != "train":
        training = {}
    return pipeline(images, labels, batch_size, **training)


def _prepared(name, data_dir):
    """Returns TFDS's builder of a data set that is on the disk."""
    try:
        # A module without its contents is what a version conflict leaves.
        from tensorflow_datasets import builder as find_builder
    except ImportError as error:
        raise ImportError(
            f"`{name}` needs tensorflow-datasets, and importlib_resources and "
            "tensorflow-metadata in versions that suit it: "
            f'pip install "atent_keras[examples]" ({error})'
        ) from error
    builder = find_builder(name, data_dir=data_dir)
    if builder.is_prepared():
        return builder
    try:
        # TFDS itself retries for minutes where there is no network.
        url = next(iter(builder.url_infos))
        urllib.request.urlopen(url, timeout=10).close()
        builder.download_and_prepare()
    except Exception as error:
        raise FileNotFoundError(
            f"No prepared copy of {name} in {builder.data_dir}, and it could "
            f"not be downloaded ({error}). Pass `data_dir`, or set the "
            "environment variable TFDS_DATA_DIR before Python starts, to a "
            f"folder with {name}/{builder.version} in it"
        ) from error
    return builder


def _check_integer(name, value, smallest=None, largest=None):
    if largest is not None:
        rule = f"an integer from {smallest} to {largest}"
    elif smallest is not None:
        rule = "a positive integer" if smallest else "a non-negative integer"
        rule, largest = f"{rule} of 32 bits", 2**31 - 1
    else:
        rule, smallest, largest = "an integer of 64 bits", -(2**63), 2**63 - 1
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or not smallest <= value <= largest
    ):
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")
