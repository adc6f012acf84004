"""Networks that others exported, as functions to attack."""

import os
import pathlib

import tensorflow as tf

from atent_keras.types import Path

NAMES = ("logits", "serving_default")  # that are tried first


def load_classifier(path: Path, signature: str | None = None) -> tf.Module:
    """Loads a SavedModel as a function from images to logits.

    It takes the signature `logits`, which `atent_keras.export_classifier`
    writes, else `serving_default`, which `keras.Model.export` writes, else the
    only one that fits: one floating-point argument with a batch axis and one
    floating-point result `(batch, classes)`, with a gradient from the one to
    the other. Whether the results are logits the file does not say;
    probabilities are refused by the attacks.

    Args:
        path: The folder.
        signature: String, the name of the signature. Defaults to `None`: the
            rule above.

    Returns:
        A `tf.Module` that maps images to the signature's result.

    Raises:
        FileNotFoundError: If there is no SavedModel.
        ValueError: If no signature fits, or the one asked for does not, or
            if the SavedModel is damaged.

    Example:

    >>> model.export("folder")
    >>> network = atent_keras.load_classifier("folder")
    >>> report = atent_keras.evaluate_robustness(network, data, attacks)
    """
    path = pathlib.Path(path)
    if not tf.saved_model.contains_saved_model(os.fspath(path)):
        hint = ""
        if path.suffix in (".keras", ".h5"):
            hint = "; `keras.models.load_model` loads this file"
        raise FileNotFoundError(
            "`model` must be a Keras model, a callable, or the folder of a "
            f"SavedModel. Received: {path}{hint}"
        )
    try:
        loaded = tf.saved_model.load(os.fspath(path))
    except Exception as error:
        raise ValueError(
            "`model` must be the folder of a whole SavedModel. Received: "
            f"{path}, which TensorFlow cannot load: {error}"
        ) from error
    signatures = dict(loaded.signatures)
    if signature is not None and signature not in signatures:
        raise ValueError(
            f"`signature` must be one of {', '.join(map(repr, signatures))}. "
            f"Received: signature={signature!r}"
        )
    asked = list(signatures) if signature is None else [signature]
    refusals = {name: _refusal(signatures[name]) for name in asked}
    fitting = [name for name in asked if refusals[name] is None]
    preferred = [name for name in NAMES if name in fitting]
    if preferred:
        return SavedClassifier(loaded, preferred[0])
    if len(fitting) == 1:
        return SavedClassifier(loaded, fitting[0])
    if fitting:
        raise ValueError(
            "`signature` must say which one to take. Received: a SavedModel "
            f"with {', '.join(map(repr, fitting))}"
        )
    reasons = "; ".join(f"{name!r} {why}" for name, why in refusals.items())
    raise ValueError(
        "A SavedModel must have a signature that is differentiable, from "
        "floating-point images to logits (batch, classes), such as "
        "`atent_keras.export_classifier` and `keras.Model.export` write. "
        f"Received: {path}, {f'where {reasons}' if reasons else 'without any'}"
    )


class SavedClassifier(tf.Module):
    """One signature of a SavedModel, as a function of images.

    Args:
        loaded: What `tf.saved_model.load` gave.
        signature: String, the signature's name.
    """

    def __init__(self, loaded, signature):
        super().__init__()
        self.loaded = loaded
        self.signature = signature
        (self._argument,), (self._result,) = _names(self._function)

    @property
    def _function(self):
        return self.loaded.signatures[self.signature]

    @property
    def variables(self):
        return self._function.variables

    @property
    def input_shape(self):
        """The shape of a batch of images, `None` where it takes any size."""
        return tuple(self._spec.shape)

    @property
    def _spec(self):
        (spec,) = self._function.structured_input_signature[1].values()
        return spec

    def __call__(self, images):
        images = tf.cast(images, self._spec.dtype)
        return self._function(**{self._argument: images})[self._result]


def _names(function):
    _, arguments = function.structured_input_signature
    return list(arguments), list(function.structured_outputs)


def _refusal(function):
    """Returns why a signature can't be attacked, `None` if it can."""
    _, arguments = function.structured_input_signature
    results = function.structured_outputs
    if len(arguments) != 1:
        return f"takes {len(arguments)} arguments"
    (name, images), *_ = arguments.items()
    if not images.dtype.is_floating or len(images.shape or ()) < 2:
        return f"takes {images.dtype.name} of shape {images.shape}"
    if images.shape[0] is not None:
        return f"takes batches of {images.shape[0]} alone"
    if len(results) != 1:
        return f"gives {', '.join(sorted(results))}"
    (outputs,) = results.values()
    if not outputs.dtype.is_floating or len(outputs.shape or ()) != 2:
        return f"gives {outputs.dtype.name} of shape {outputs.shape}"

    @tf.function(input_signature=[images], autograph=False)
    def gradient(images):
        (outputs,) = function(**{name: images}).values()
        return tf.gradients(outputs, images)

    try:
        # The graph of the gradient is made; nothing is computed.
        found = gradient.get_concrete_function().structured_outputs
    except (LookupError, ValueError, TypeError) as error:
        return f"has no gradient ({str(error).splitlines()[0]})"
    return "has no gradient by its argument" if found == [None] else None
