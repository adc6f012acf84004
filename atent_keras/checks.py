"""What may enter: images, labels and networks that fit each other.

Shapes and types are checked wherever a tensor is seen, while tracing too.
Values are checked on the host, where they can be seen: eagerly at once, in
`fit` by a map over the data, so that the compiled step stays as it is. An
assertion guards the values inside a user's own `tf.function`; XLA drops it.
"""

import contextlib
import functools
import inspect
import numbers
import re
import types

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import margins
from atent_keras import outputs as outputs_lib
from atent_keras.memory import Memory

# Resizing and decoding leave rounding errors outside the box; forgive those.
_TOLERANCE = 1e-5


def images(x, bounds):
    """Returns `x` as a tensor of dtype `keras.config.floatx()`.

    Args:
        x: Images, `(batch, ...)`, as an array or a tensor.
        bounds: Pair of floats, the images' range.

    Raises:
        TypeError: If `x` is no single array of floating-point numbers.
        ValueError: If `x` has no batch axis, is empty, or has values out of
            `bounds`.
    """
    if isinstance(x, (dict, list, tuple)):
        raise TypeError(
            "`x` must be a single array or tensor of images; networks with "
            f"dictionary or multiple inputs are not supported. Received: a "
            f"{type(x).__name__}"
        )
    x = tf.convert_to_tensor(x)
    image_spec(x)
    x = tf.cast(x, keras.config.floatx())
    lower, upper = bounds
    slack = _TOLERANCE * (upper - lower)
    smallest, largest = tf.reduce_min(x), tf.reduce_max(x)
    # Written so that a NaN fails.
    inside = (smallest >= lower - slack) & (largest <= upper + slack)
    return _require(
        inside,
        x,
        f"Images must lie within the threat model's bounds ({lower}, {upper})."
        " Received: values from {} to {}. Rescale the images (a division by "
        "255 takes 0..255 to 0..1) or pass other `bounds` to the threat model",
        smallest,
        largest,
    )


def require_count(least=1, /, **settings):
    """Checks that settings are integers, at least `least`.

    Raises:
        ValueError: If one is not.
    """
    for name, value in settings.items():
        integer = isinstance(value, numbers.Integral)
        if not integer or isinstance(value, bool) or value < least:
            raise ValueError(
                f"`{name}` must be an integer, at least {least}. Received: "
                f"{name}={value!r}"
            )


def image_spec(x):
    """Checks the shape and dtype of images; see `images`."""
    if not x.dtype.is_floating:
        raise TypeError(
            "Images must be floating-point numbers, e.g. float32 in [0, 1]. "
            f"Received: dtype {x.dtype.name}"
        )
    if x.shape.rank is None or x.shape.rank < 2:
        raise ValueError(
            "Images must have a known shape (batch, ...). Received: shape "
            f"{x.shape}"
        )
    if x.shape[0] == 0:
        raise ValueError(f"The data set is empty. Received: shape {x.shape}")


def labels(y, x):
    """Returns `y` as a tensor of shape `(batch,)` or `(batch, classes)`.

    Args:
        y: Labels, as an array or a tensor.
        x: The images they belong to.

    Raises:
        ValueError: If there is not one label, or one row, per image.
    """
    if y is None:
        raise ValueError("`y` must hold the images' labels. Received: y=None")
    y = tf.convert_to_tensor(y)
    if (
        y.shape.rank not in (1, 2)
        or not y.shape[:1].is_compatible_with(x.shape[:1])
        or y.dtype == tf.string
    ):
        raise ValueError(
            "Labels must have shape (batch,) or, one-hot, (batch, classes). "
            f"Received: labels of shape {y.shape} and dtype {y.dtype.name} "
            f"for images of shape {x.shape}"
        )
    return tf.cast(y, tf.int32) if y.dtype == tf.bool else y


def labels_fit(y, loss, classes):
    """Returns `y`, its values checked against the network's classes.

    Args:
        y: Labels, as a tensor.
        loss: The base loss, which says what kind of labels it wants.
        classes: Integer, the number of the network's outputs.

    Raises:
        ValueError: If labels are of the wrong kind for `loss` or out of
            range.
    """
    sparse, unwrapped = base_losses.is_sparse(loss), base_losses.unwrap(loss)
    one_hot = y.shape.rank == 2 and y.shape[1] == classes and classes > 1
    if isinstance(unwrapped, margins.OutputMargin):
        return one_class(y, loss, classes)
    if isinstance(unwrapped, margins.Lead):
        if classes < 2:
            raise ValueError(
                f"{_name(loss)} needs a network with one output for each of "
                f"two or more classes. Received: a network with {classes} "
                "output"
            )
        sparse = not one_hot
    if base_losses.is_binary(loss):
        return _binary(y, loss, classes)
    if sparse is None:
        return y
    if sparse and not (y.shape.rank == 1 or y.shape[1] == 1):
        raise ValueError(
            f"{_name(loss)} expects integer labels of shape (batch,). "
            f"Received: labels of shape {y.shape}"
        )
    if not sparse and not one_hot:
        raise ValueError(
            f"{_name(loss)} expects one-hot labels of shape (batch, "
            f"{classes}). Received: labels of shape {y.shape}"
        )
    if sparse and classes == 1:
        raise ValueError(
            f"{_name(loss)} needs one output for each class. Received: a "
            "network with a single output. Compile it with "
            "`keras.losses.BinaryCrossentropy(from_logits=True)`, or give it "
            "an output for the other class, too"
        )
    return _within(y, classes - 1 if sparse else 1, classes)


def _binary(y, loss, classes):
    """Returns labels that cross-entropy takes for each output by itself."""
    single = classes == 1 and (y.shape.rank == 1 or y.shape[1] == 1)
    if not single and (y.shape.rank == 1 or y.shape[1] != classes):
        shape = "(batch,)" if classes == 1 else f"(batch, {classes})"
        raise ValueError(
            f"{_name(loss)} expects labels of shape {shape} for a network with "
            f"{_outputs(classes)}. Received: labels of shape {y.shape}"
        )
    return _within(y, 1, classes)


def _within(y, top, classes):
    smallest, largest = tf.reduce_min(y), tf.reduce_max(y)
    if y.dtype.is_integer:
        # A small type may not hold the number of classes.
        smallest, largest = (
            tf.cast(value, tf.int64) for value in (smallest, largest)
        )
    return _require(
        (smallest >= 0) & (largest <= tf.cast(top, largest.dtype)),
        y,
        f"Labels must lie in 0..{top} for a network with {_outputs(classes)}. "
        "Received: labels from {} to {}",
        smallest,
        largest,
    )


def one_class(y, loss, classes):
    """Returns `y`, checked to name one class for each image.

    Args:
        y: Labels, as a tensor.
        loss: The base loss: those of a single output may be -1 and 1, as
            hinge losses have them, but for cross-entropies and distances.
        classes: Integer, the number of the network's outputs.

    Raises:
        ValueError: If some name another class, none or several.
    """
    if y.shape.rank == 2 and y.shape[1] not in (1, classes):
        raise ValueError(
            "Labels must have shape (batch,) or, one-hot, (batch, "
            f"{classes}). Received: labels of shape {y.shape}"
        )
    if y.shape.rank == 2 and classes > 1 and y.shape[1] == classes:
        largest = tf.equal(y, tf.reduce_max(y, axis=1, keepdims=True))
        named = tf.reduce_sum(tf.cast(largest, tf.int32), axis=1)
        return _require(
            tf.reduce_all(named == 1),
            y,
            "One-hot labels must have one largest value for each image, since "
            "an accuracy counts one class. Received: rows with {} to {}",
            tf.reduce_min(named),
            tf.reduce_max(named),
        )
    signed = not (base_losses.is_binary(loss) or base_losses.is_distance(loss))
    if classes > 1 or not signed:
        return _within(y, max(classes - 1, 1), classes)
    values = tf.cast(y, tf.float32)
    return _require(
        tf.reduce_all((values == 0) | (values == 1))
        | tf.reduce_all(tf.abs(values) == 1),
        y,
        "Labels of two classes must be -1 and 1, or lie in 0..1. Received: "
        "labels from {} to {}",
        tf.reduce_min(y),
        tf.reduce_max(y),
    )


def _outputs(count):
    return f"{count} output" + "s" * (count != 1)


def inference(model):
    """Returns the function from images to outputs, in inference mode."""
    if isinstance(model, keras.Layer):
        return functools.partial(call, model, training=False)
    return model


def call(model, x, training):
    """Calls a Keras model, whether or not its `call` knows `training`."""
    if takes_training(model):
        return model(x, training=training)
    return model(x)


def takes_training(model):
    """Whether the model's `call` has a `training` argument."""
    return "training" in inspect.signature(model.call).parameters


def batch(model, loss, threat_model, x, y):
    """Returns one batch as tensors, checked against each other and the model.

    Args:
        model: A Keras model, or any callable from images to outputs.
        loss: The base loss, or a loss that has one.
        threat_model: Whose bounds the images keep.
        x: Images, `(batch, ...)`.
        y: Labels.

    Raises:
        ValueError, TypeError: As `images`, `labels`, `network` and
            `labels_fit` do.
    """
    x = images(x, threat_model.bounds)
    y = labels(y, x)
    classes = network(model, loss, x.shape, threat_model.bounds)
    return x, labels_fit(y, loss, classes)


# What was found of a network: it is probed once.
_probed = Memory()


def network(model, loss, shape, bounds):
    """Builds and probes a network; returns the number of its outputs.

    Args:
        model: A Keras model, or any callable from images to outputs.
        loss: The loss that will judge its outputs.
        shape: The shape of a batch of images.
        bounds: Pair of floats, the images' range.

    Raises:
        ValueError: If the network has several inputs or outputs, gives
            anything but one row of classes per image, or gives logits where
            `loss` expects probabilities, or the reverse.
    """
    shape = tuple(shape)[1:]

    def probe():
        outputs = _probe(model, shape, bounds)
        _check_logits(model, loss, shape, outputs)
        return outputs.shape[-1]

    return _once(model, (loss, shape, bounds), probe)


def decided(model, loss, shape, bounds):
    """Returns `loss`, which tells what a single output is if it did not.

    That is what the compiled loss says; where it says nothing, `loss`, which
    an attack may have of its own; where neither does, the network's end: a
    sigmoid gives probabilities, a linear layer or tanh logits, of which those
    above 0 stand for the second class; and last, outputs outside of [0, 1]
    are logits. Distances compare outputs with labels of 0 and 1, so that 0.5
    is half way, as it is of probabilities.

    Args:
        model, loss, shape, bounds: As `network` takes them.

    Raises:
        ValueError: If nothing tells.
    """
    if network(model, None, shape, bounds) > 1:
        return loss
    compiled = base_losses.compiled(model)
    compiled = loss if compiled is None else base_losses.get(compiled)
    for one in (compiled, loss):
        logits = base_losses.from_logits(one)
        if logits is None and base_losses.is_distance(one):
            logits = False
        if logits is not None:
            break
    else:
        probable = gives_probabilities(model, loss, shape, bounds)
        if probable is None:
            raise ValueError(
                "A network with a single output must end in a sigmoid or in a "
                "linear layer, or the loss must say whether that is a logit. "
                f"Received: a network of another kind, and {_name(compiled)}. "
                "Compile it with `keras.losses.BinaryCrossentropy(from_logits="
                "...)`, or set the attribute `from_logits` of your loss to "
                "True or False"
            )
        logits = not probable
    if logits == base_losses.from_logits(loss):
        return loss
    return base_losses.Decided(loss, logits)


def gives_probabilities(model, loss, shape, bounds):
    """Whether a network's outputs are probabilities, and not logits.

    The network tells; where it does not, `loss`.

    Args:
        model, loss, shape, bounds: As `network` takes them.

    Returns:
        A boolean, or `None` where nobody can tell.
    """
    alone, shape = base_losses.is_binary(loss), tuple(shape)[1:]

    def look():
        outputs = _probe(model, shape, bounds)
        return _are_probabilities(model, loss, shape, outputs)

    found = _once(model, ("probabilities", alone, shape, bounds), look)
    if found is None and base_losses.from_logits(loss) is not None:
        found = not base_losses.from_logits(loss)
    return found


def default_loss(model, y):
    """Returns what attacks climb by default.

    That is the model's compiled base loss, else cross-entropy. A distance
    rises on the far side of the right answer too, and a hinge is flat where
    the network is sure: instead of these, the lead of the best wrong class is
    climbed.

    Args:
        model: A Keras model or another callable.
        y: Labels; their shape chooses the kind of cross-entropy.
    """
    loss = base_losses.of_model(model, y)
    if base_losses.is_distance(loss) or base_losses.is_hinge(loss):
        return margins.OutputMargin()
    return loss


def _once(model, key, find):
    """Returns what `find()` gives; asks a model until it gives something."""

    def lifted():
        # Out of the graph that is being traced, if one is.
        with tf.init_scope():
            return find()

    return _probed.get(model, key, lifted)


def _probe(model, shape, bounds):
    """Returns the outputs of three images, `(3, classes)`.

    Symbolic ones, of which only the shape is known, where images may have any
    size.
    """
    if len(getattr(model, "inputs", None) or [1]) != 1:
        raise ValueError(
            "The network must have a single input. Received: "
            f"{len(model.inputs)} inputs, "
            f"{[tensor.name for tensor in model.inputs]}"
        )
    if None not in shape:
        # One dark, one grey, one bright image.
        levels = tf.linspace(*map(float, bounds), 3)
        levels = tf.reshape(levels, [3] + [1] * len(shape))
        probes = tf.cast(levels, keras.config.floatx()) * tf.ones(
            shape, keras.config.floatx()
        )
        outputs = inference(model)(probes)
    elif getattr(model, "built", True):
        # Convolutions take any size; no single one would be typical.
        outputs = keras.Layer.compute_output_spec(
            model, keras.KerasTensor((None, *shape))
        )
    else:
        raise ValueError(
            "The shape of the images must be known to build the network. "
            f"Received: shape (batch, {', '.join(map(str, shape))}). Give the "
            "network a `keras.Input`, or the data set a static shape"
        )
    if not hasattr(outputs, "shape") or len(outputs.shape) != 2:
        received = keras.tree.map_structure(
            lambda tensor: tuple(tensor.shape), outputs
        )
        raise ValueError(
            "The network must give one tensor of shape (batch, classes). "
            f"Received: outputs of shape {received}"
        )
    return outputs


def require_finite(finite, images="images"):
    """Checks that a network's outputs are numbers.

    Args:
        finite: Boolean, whether all of them are.
        images: String, what the network was asked about.

    Raises:
        ValueError: If they are not.
    """
    if not finite:
        raise ValueError(
            "The network's outputs must be finite. Received: a network that "
            f"gives NaN or infinity for some of the {images}"
        )


def are_probabilities(outputs):
    """Whether rows of outputs, an array, are not negative and sum to 1.

    Up to rounding: bfloat16 has eight bits.
    """
    off = abs(outputs.sum(axis=-1) - 1).max()
    return bool(outputs.min() >= 0 and off < 1e-2)


def _are_probabilities(model, loss, shape, outputs):
    """Whether outputs of `_probe` are; `None` where nobody can tell."""
    single = outputs.shape[-1] == 1
    if tf.is_tensor(outputs):
        values = tf.cast(outputs, tf.float32).numpy()
        if not single and not base_losses.is_binary(loss):
            return are_probabilities(values)
        if values.min() < 0 or values.max() > 1:
            return False
    elif not single:
        return None
    try:
        return outputs_lib.ends_in_probabilities(inference(model), shape)
    except Exception:
        # What runs eagerly need not make a graph.
        if getattr(model, "run_eagerly", False):
            return None
        raise


def _check_logits(model, loss, shape, outputs):
    expected = base_losses.from_logits(loss)
    if expected is None:
        return
    probabilities = _are_probabilities(model, loss, shape, outputs)
    if probabilities is None:
        return
    if expected and probabilities:
        raise ValueError(
            f"{_name(loss)} expects logits (`from_logits=True`). Received: a "
            "network whose outputs are probabilities. Remove its last softmax "
            "or sigmoid (better), or pass a loss with `from_logits=False`"
        )
    if not expected and not probabilities:
        raise ValueError(
            f"{_name(loss)} expects probabilities (`from_logits=False`). "
            "Received: a network whose outputs are logits. Pass a loss with "
            "`from_logits=True`"
        )


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
    return _require(
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


@contextlib.contextmanager
def plain_errors():
    """Turns the failed check of a graph into the `ValueError` it stands for."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # The form is "[<mark>message<mark>] [value] [value]".
        _, *found = error.message.split(_MARK)
        if not found:
            raise
        message, values = found[0], re.findall(r"\[([^][]*)\]", found[1])
        # TensorFlow shows the message as a literal.
        message = message.replace("\\'", "'")
        raise ValueError(message.format(*values)) from None


# Delimits the messages of this module in TensorFlow's own.
_MARK = "\u2063"


def _require(condition, tensor, message, *received):
    """Returns `tensor` once `condition` holds, now or when a graph runs."""
    if tf.executing_eagerly():
        if not condition:
            values = (value.numpy() for value in received)
            raise ValueError(message.format(*values))
        return tensor
    # XLA knows assertions, which it drops, but no formatting of strings.
    data = [_MARK + message + _MARK, *received]
    with tf.control_dependencies([tf.debugging.Assert(condition, data)]):
        return tf.identity(tensor)


def _name(loss):
    if loss is None:
        return "no loss"
    loss = base_losses.unwrap(loss)
    return getattr(loss, "__name__", type(loss).__name__)
