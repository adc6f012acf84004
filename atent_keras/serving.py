"""What leaves training: a classifier that TensorFlow alone can serve."""

import pathlib
import shutil
import tempfile
from collections.abc import Sequence

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras.types import Path

# Refused by their headers, before their pixels take up memory.
LARGEST_IMAGE = 8192


def export_classifier(
    model: keras.Model,
    path: Path,
    labels: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> None:
    """Exports a classifier as a SavedModel with signatures for a server.

    - `serving_default` takes floats within the network's bounds, of shape
      `(batch, height, width, channels)`;
    - `uint8` takes integers in 0..255, of the same shape;
    - `encoded` takes PNG or JPEG files, strings of shape `(batch,)`; grey or
      colour, of any size, they are resized bilinearly;
    - `logits` takes floats, of the same shape, within the bounds or not, for
      whoever evaluates the network: see `atent_keras.load_classifier`.

    The argument is `images`. The last gives `logits`, float32 `(batch,
    classes)`, with their gradient by the images, and is left out where the
    network gives probabilities. Each of the others gives `probabilities`,
    float32 `(batch, classes)`, `class_index`, int64 `(batch,)`, the likeliest,
    and `label`, strings `(batch,)`. The batch is of any size but 0. A request
    that does not fit is answered by an `InvalidArgumentError`, which servers
    pass on.

    Logits become probabilities as the base loss has them: by a sigmoid each
    where that is binary cross-entropy, so that several classes may be likely
    at once, else by a softmax. A single output is that of the second of two
    classes, with the logits 0 and its own.

    The bounds are those of the compiled robust loss, else (0, 1). If it has
    none, nothing says what 0..255 stand for: `uint8` and `encoded` are left
    out.
    The folder is written beside its place first, so that it is there either
    whole or not at all.

    Args:
        model: A built Keras model from images to one row of classes each,
            logits or probabilities.
        path: The folder; versions are up to you: servers want `dir/1`.
        labels: List of strings, one a class. Defaults to `None`: the
            classes' numbers.
        image_size: `(height, width)` to which files are resized. Defaults to
            `None`: the network's own.
        overwrite: Whether to replace `path` if it exists.

    Raises:
        FileExistsError: If `path` exists and `overwrite` is false.
        ValueError: If the model is not built, takes or gives anything else,
            or is compiled with several losses or for other than classes, or
            if `labels` or `image_size` do not fit.

    Example:

    >>> atent_keras.export_classifier(model, "digits/1", labels="0123456789")
    """
    path = pathlib.Path(path)
    height, width, channels = _image_shape(model, image_size)
    loss = base_losses.compiled(model)
    if loss is not None:
        loss = base_losses.get(loss)
    threat_model = getattr(loss, "threat_model", None)
    bounds = threat_model.bounds if threat_model else (0.0, 1.0)
    shape = (None, height, width, channels)
    outputs = checks.network(model, loss, shape, bounds)
    probable = _gives_probabilities(model, loss, shape, bounds)
    classes = max(outputs, 2)
    labels = [str(i) for i in range(classes)] if labels is None else labels
    if len(labels) != classes or not all(isinstance(n, str) for n in labels):
        raise ValueError(
            f"`labels` must be {classes} strings, one for each class of the "
            f"network. Received: labels={labels!r}"
        )
    if path.exists() and not overwrite:
        raise FileExistsError(
            "`path` must not exist unless overwrite=True. Received: "
            f"path={str(path)!r}"
        )
    lower, upper = bounds or (tf.float32.min, tf.float32.max)
    squash = tf.nn.softmax
    if outputs > 1 and base_losses.is_binary(loss):
        squash = tf.sigmoid
    names = tf.constant(list(labels))
    classify = checks.inference(model)

    def run(images):
        checked = tf.debugging.assert_positive(
            tf.shape(images)[0], "The batch must not be empty"
        )
        with tf.control_dependencies([checked]):
            found = tf.cast(classify(images), tf.float32)
        if outputs > 1:
            return found
        # The softmax of 0 and a logit is the sigmoid of the logit.
        first = 1 - found if probable else tf.zeros_like(found)
        return tf.concat([first, found], axis=1)

    def answer(images):
        found = run(images)
        probabilities = found if probable else squash(found)
        index = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "class_index": index,
            "label": tf.gather(names, index),
        }

    def serve_floats(images):
        # Of finite numbers all are inside where there are no bounds.
        slack = 1e-5 * (upper - lower) if bounds else 0.0
        inside = (images >= lower - slack) & (images <= upper + slack)
        checked = tf.debugging.Assert(
            tf.reduce_all(inside),
            [
                f"Images must lie in ({lower}, {upper})"
                + ("; 0..255 is for uint8" if upper < 255 else "")
                if bounds
                else "Images must hold finite numbers"
            ],
        )
        with tf.control_dependencies([checked]):
            return answer(tf.identity(images))

    def serve_logits(images):
        # Not checked: smoothing adds noise, which leaves the bounds.
        return {"logits": run(images)}

    def from_bytes(images):
        return lower + (upper - lower) * tf.cast(images, tf.float32) / 255

    def serve_bytes(images):
        return answer(from_bytes(images))

    def serve_files(images):
        decoded = tf.map_fn(
            lambda file: tf.image.resize(
                _decode(file, channels), (height, width), antialias=True
            ),
            images,
            fn_output_signature=tf.TensorSpec((height, width, channels)),
        )
        return answer(from_bytes(tf.clip_by_value(decoded, 0, 255)))

    archive = keras.export.ExportArchive()
    archive.track(model)
    endpoints = [("serving_default", serve_floats, tf.TensorSpec(shape))]
    if bounds:
        endpoints += [
            ("uint8", serve_bytes, tf.TensorSpec(shape, tf.uint8)),
            ("encoded", serve_files, tf.TensorSpec((None,), tf.string)),
        ]
    if not probable:
        endpoints.append(("logits", serve_logits, tf.TensorSpec(shape)))
    for name, serve, spec in endpoints:
        spec = tf.TensorSpec(spec.shape, spec.dtype, "images")
        archive.add_endpoint(name, serve, [spec])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        archive.write_out(draft, verbose=False)
        pathlib.Path(draft).chmod(0o755)
        _put(pathlib.Path(draft), path, overwrite)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(draft, path, overwrite):
    """Renames a folder, in whose place another one may be."""
    if not (overwrite and path.exists()):
        draft.rename(path)
        return
    old = pathlib.Path(
        tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    )
    try:
        path.rename(old / "old")
    except BaseException:
        old.rmdir()
        raise
    try:
        draft.rename(path)
    except BaseException:
        (old / "old").rename(path)
        old.rmdir()
        raise
    shutil.rmtree(old)


def _gives_probabilities(model, loss, shape, bounds):
    """Whether a classifier gives probabilities rather than logits.

    Raises:
        ValueError: If it is no classifier, or nobody can tell.
    """
    probable = checks.gives_probabilities(model, loss, shape, bounds)
    if base_losses.is_distance(loss) and not probable:
        raise ValueError(
            "`model` must be a classifier, with probabilities to answer with. "
            "Received: a network without a sigmoid or softmax at its end, "
            f"compiled with {loss!r}. Compile it with a cross-entropy, or "
            "serve its outputs as they are with `model.export`"
        )
    if checks.network(model, loss, shape, bounds) == 1:
        decided = checks.decided(model, loss, shape, bounds)
        probable = not base_losses.from_logits(decided)
    return bool(probable)


def _image_shape(model, image_size):
    """Returns `(height, width, channels)` of what the network takes."""
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "`model` must be a built Keras model; call it on a batch of images "
            f"first. Received: {model!r}"
        )
    # Models with a `call` of their own know only how they were built.
    built = model.get_build_config() or {}
    shape = getattr(model, "input_shape", built.get("input_shape"))
    if shape is None:
        shape = next(iter(built.get("shapes_dict", {}).values()), ())
    shape = tuple(shape)
    if len(shape) != 4 or shape[-1] not in (1, 3):
        raise ValueError(
            "`model` must take images (batch, height, width, channels) of 1 or "
            f"3 channels. Received: a network for inputs of shape {shape}"
        )
    own, channels = shape[1:3], shape[3]
    if image_size is None:
        image_size = own
    image_size = tuple(image_size)
    if len(image_size) != 2 or any(
        not isinstance(size, int) or size < 1 or fixed not in (None, size)
        for size, fixed in zip(image_size, own)
    ):
        raise ValueError(
            "`image_size` must be (height, width), positive, as the network "
            f"takes images: {own}. Received: image_size={image_size}"
        )
    return *image_size, channels


def _decode(file, channels):
    """Decodes a PNG or JPEG file of a decent size."""
    png = tf.equal(tf.strings.substr(file, 0, 8), b"\x89PNG\r\n\x1a\n")
    jpeg = tf.equal(tf.strings.substr(file, 0, 3), b"\xff\xd8\xff")
    known = tf.debugging.Assert(
        (png | jpeg) & (tf.strings.length(file) > 32),
        ["An image must be a whole PNG or JPEG file"],
    )
    with tf.control_dependencies([known]):
        size = tf.cond(
            png,
            # The header holds width and height, most significant byte first.
            lambda: tf.reduce_sum(
                tf.cast(
                    tf.reshape(
                        tf.io.decode_raw(
                            tf.strings.substr(file, 16, 8), tf.uint8
                        ),
                        [2, 4],
                    ),
                    tf.int64,
                )
                * tf.constant([2**24, 2**16, 2**8, 1], tf.int64),
                axis=1,
            ),
            lambda: tf.cast(tf.image.extract_jpeg_shape(file)[:2], tf.int64),
        )
    decent = tf.debugging.Assert(
        tf.reduce_all((size >= 1) & (size <= LARGEST_IMAGE)),
        [f"An image must be 1 to {LARGEST_IMAGE} pixels high and wide", size],
    )
    with tf.control_dependencies([decent]):
        image = tf.io.decode_image(file, channels, expand_animations=False)
    return tf.ensure_shape(image, (None, None, channels))
