"""Whether a network can be attacked, and what its outputs are."""

import functools
import inspect

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import margins
from atent_keras.checks.classes import name_classes
from atent_keras.checks.endings import ends_in_probabilities
from atent_keras.checks.rules import name_of
from atent_keras.memory import Memory

# What was found of a network: it is probed once.
_probed = Memory()


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


def network(model, loss, shape, bounds):
    """Builds and probes a network; returns the number of its outputs.

    Args:
        model: A Keras model, or any callable from images to outputs.
        loss: The loss that will judge its outputs.
        shape: The shape of a batch of images.
        bounds: Pair of floats, the images' range, or `None`.

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


def require_logits(attack, model, loss, shape, bounds):
    """Returns the number of a network's outputs, checked to be logits.

    Those are compared with each other, a single one with 0.

    Args:
        attack: String, what asks for them.
        model: A Keras model, or any callable from images to outputs.
        loss: What the model was compiled with, as `base_losses.of_model`
            gives it.
        shape: The shape of a batch of images.
        bounds: Pair of floats, the images' range.

    Raises:
        ValueError: If the outputs are probabilities, or a single one has its
            boundary elsewhere; as `network` and `decided` do.
    """
    probabilities = (
        f"{attack} expects logits. Received: a network whose outputs are "
        "probabilities, which have no gradient left where it is sure. "
    )

    def probe():
        outputs = _probe(model, tuple(shape)[1:], bounds)
        if _are_probabilities(model, loss, tuple(shape)[1:], outputs):
            raise ValueError(probabilities + _to_the_logits(model))
        return outputs.shape[-1]

    alone = base_losses.is_binary(loss)
    count = _once(model, ("logits", alone, tuple(shape)[1:], bounds), probe)
    if count > 1:
        return count
    network(model, loss, shape, bounds)
    if base_losses.from_logits(decided(model, loss, shape, bounds)):
        return count
    if base_losses.is_distance(loss):
        raise ValueError(
            f"{attack} expects a single output to be a logit, which stands "
            "for the second class above 0. Received: a network that was "
            f"compiled with {name_of(loss)}, whose labels 0 and 1 meet at "
            "0.5. Move its boundary: `logits = lambda x: model(x) - 0.5`"
        )
    raise ValueError(probabilities + _to_the_logits(model))


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
                "Received: a network of another kind, and "
                f"{name_of(compiled)}. Compile it with "
                "`keras.losses.BinaryCrossentropy(from_logits="
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


def default_loss(model, y, classes):
    """Returns what attacks climb by default.

    That is the model's compiled base loss, else cross-entropy. A distance
    rises on the far side of the right answer too, and a hinge is flat where
    the network is sure: instead of these, the lead of the best wrong class is
    climbed. A distance from the numbers of a regression is climbed itself.

    Args:
        model: A Keras model or another callable.
        y: Labels; their shape chooses the kind of cross-entropy.
        classes: Integer, the number of the network's outputs.
    """
    loss = base_losses.of_model(model, y)
    if base_losses.is_distance(loss) and tf.executing_eagerly():
        if not tf.reduce_all(name_classes(y, classes)):
            return loss
    if base_losses.is_distance(loss) or base_losses.is_hinge(loss):
        return margins.OutputMargin()
    return loss


def typical(bounds):
    """Returns the range of the images that a network is asked about.

    Without bounds these are as data are that were standardized.
    """
    return (-1.0, 1.0) if bounds is None else bounds


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
        levels = tf.linspace(*map(float, typical(bounds)), 3)
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
    binary = single or base_losses.is_binary(loss)
    if tf.is_tensor(outputs):
        values = tf.cast(outputs, tf.float32).numpy()
        if not binary and are_probabilities(values):
            return True
        # Sigmoids, which have no sum to be known by, or logits.
        if values.min() < 0 or values.max() > 1:
            return False
    elif not single:
        return None
    try:
        return ends_in_probabilities(inference(model), shape)
    except Exception:
        if not binary:
            return False
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
            f"{name_of(loss)} expects logits (`from_logits=True`). Received: a "
            f"network whose outputs are probabilities. {_to_the_logits(model)}"
            + _or_another_loss(model, loss, outputs.shape[-1])
        )
    if not expected and not probabilities:
        raise ValueError(
            f"{name_of(loss)} expects probabilities (`from_logits=False`). "
            "Received: a network whose outputs are logits. Use a loss with "
            "`from_logits=True`"
        )


def _to_the_logits(model):
    """Says how to get at the logits of a network, in lines to paste if it can.

    A copy gets another end: the model, which has been compiled for training
    and attacks, would keep its old one there.
    """
    last = (getattr(model, "layers", None) or [None])[-1]
    ends = (keras.activations.softmax, keras.activations.sigmoid)
    squashes = getattr(last, "activation", None) in ends
    output = (getattr(model, "outputs", None) or [None])[0]
    if output is None or getattr(last, "output", None) is not output:
        # What layers a `call` of one's own ends in, nobody knows.
        squashes, last = False, None
    if isinstance(last, keras.layers.Softmax) or (
        squashes and isinstance(last, keras.layers.Activation)
    ):
        lines = "logits = keras.Model(model.inputs[0], model.layers[-1].input)"
    elif squashes:
        lines = (
            "logits = keras.models.clone_model(model); "
            "logits.set_weights(model.get_weights()); "
            "logits.layers[-1].activation = None; "
            # Without what the copy was compiled with, as the model was.
            "logits = keras.Model(logits.inputs[0], logits.outputs[0])"
        )
    else:
        return "Let the network return what goes into its softmax or sigmoid"
    return f"Take its logits instead: `{lines}`"


def _or_another_loss(model, loss, classes):
    """Says what else will do, where probabilities have a loss."""
    nobodys = base_losses.is_default(loss) and not isinstance(
        model, keras.Model
    )
    lead = isinstance(base_losses.unwrap(loss), margins.Lead)
    if nobodys or lead or base_losses.is_settled(loss):
        return ""
    if classes == 1:
        return ". Or use `keras.losses.BinaryCrossentropy()`"
    return ". Or use a loss with `from_logits=False`"
