"""The network under evaluation: what it answers, and what fools it."""

import hashlib
import time
import types
import typing

import keras
import numpy as np
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import margins
from atent_keras.attacks import accuracy
from atent_keras.compiler import any_batch
from atent_keras.compiler import compiled
from atent_keras.evaluation.precision import precision
from atent_keras.threat_models import per_example

# Images by whose answers a network is known again.
_PROBES = 4


class Attempt(typing.NamedTuple):
    """What came of an attack on images.

    Attributes:
        fooled: Which images the network now misclassifies, booleans `(batch,)`.
        norm: The norms of the perturbations, floats `(batch,)`.
        seconds: Float, the time that the attack took.
        x_adv: The images that it found, as a tensor.
        outputs: What the network gives for them, `(batch, classes)`; `None`
            of no images.
    """

    fooled: np.ndarray
    norm: np.ndarray
    seconds: float
    x_adv: tf.Tensor
    outputs: tf.Tensor | None


class Target:
    """A network, as an evaluation sees it.

    Args:
        model: A Keras model, run in inference mode, or a callable from images
            to logits.
        bounds: Pair of floats, the images' range, or `None` for data without
            bounds. Defaults to `(0.0, 1.0)`.
    """

    def __init__(self, model, bounds=(0.0, 1.0)):
        known = (keras.Layer, tf.Module, types.FunctionType)
        if not isinstance(model, known):
            model = Function(model)
        self.model, self.bounds = model, bounds
        self.predict = checks.inference(model)
        # Compiled anew for each evaluation: a network may have changed.
        self._key = object()

    def outputs(self, x):
        """Returns the network's outputs, `(batch, classes)`."""

        def answer(model, x):
            return checks.inference(model)(x)

        answer = compiled(self.model, self._key, answer, (any_batch(x),))
        parts = answer.over(x.shape[0], lambda rows: (x[rows],))
        return tf.concat([found for _, found in parts], axis=0)

    def correct(self, x, y, outputs, finite=False):
        """Returns which images are classified right, booleans `(batch,)`.

        An answer that is not finite is none, and with `finite` an error.
        """
        right = accuracy.is_correct(y, outputs, self._loss(x, y, outputs))
        answered = tf.reduce_all(tf.math.is_finite(outputs), axis=-1)
        if finite:
            checks.require_finite(tf.reduce_all(answered))
        return (right & answered).numpy()

    def probabilities(self, x, y, outputs):
        """Returns those of two or more classes, `(batch, classes)`."""
        found = columns(outputs, self._loss(x, y, outputs))
        return probabilities(tf.cast(found, keras.config.floatx()))

    def _loss(self, x, y, outputs):
        loss = base_losses.of_model(self.model, y)
        if outputs.shape[-1] > 1:
            return loss
        return checks.decided(self.model, loss, x.shape, self.bounds)

    def attempt(self, attack, x, y, seed, places, through=None):
        """Attacks images that the network classifies right.

        What the attack returns is projected to its threat model's ball and
        box before it is judged; what is not finite is no image, and counts as
        the clean one.

        Args:
            attack: An `atent_keras.attacks` attack.
            x, y: Images and labels, as the attack admits them.
            seed: Integer.
            places: The images' places in their data set, integers `(batch,)`.
            through: Another network that the attack is led by. Defaults to
                `None`: this one.

        Returns:
            An `Attempt`.
        """
        start = time.perf_counter()
        if not len(places):
            norm = np.zeros(0, x.dtype.as_numpy_dtype)
            return Attempt(np.zeros(0, bool), norm, 0.0, x, None)
        model = self.model if through is None else through
        x_adv = self.admissible(
            attack.threat_model,
            x,
            attack(model, x, y, seed=seed, first=places),
        )
        norm = attack.threat_model.norm(x_adv - x).numpy()
        outputs = self.outputs(x_adv)
        fooled = ~self.correct(x_adv, y, outputs)
        return Attempt(
            fooled, norm, time.perf_counter() - start, x_adv, outputs
        )

    @staticmethod
    def admissible(threat_model, x, x_adv):
        """Returns what an attack found, within its ball and box."""
        x_adv = tf.cast(tf.convert_to_tensor(x_adv), x.dtype)
        if x_adv.shape != x.shape:
            raise ValueError(
                "An attack must return one image for each that it was given. "
                f"Received: shape {x_adv.shape} for images of shape {x.shape}"
            )
        finite = tf.reduce_all(
            tf.math.is_finite(x_adv), axis=range(1, x.shape.rank)
        )
        x_adv = tf.where(per_example(finite, x), x_adv, x)
        return threat_model.clip(threat_model.project(x, x_adv))


class Function(tf.Module):
    """A callable, as something that attacks are compiled for only once.

    Args:
        function: Callable from images to logits.
    """

    def __init__(self, function):
        super().__init__()
        self.function = function

    def __call__(self, images):
        return self.function(images)

    @property
    def variables(self):
        return getattr(self.function, "variables", ())


def columns(outputs, loss):
    """Returns outputs with a partner for a single one.

    That is the output of the second of two classes, which gets a partner with
    which the larger one is the answer.

    Args:
        outputs: `(batch, classes)`.
        loss: The loss, which tells a single logit from a probability.
    """
    if outputs.shape[-1] > 1 or base_losses.from_logits(loss):
        return margins.of_classes(outputs)
    return tf.concat([1 - outputs, outputs], axis=-1)


def probabilities(outputs):
    """Returns the probabilities that outputs `(batch, classes)` stand for.

    Those that are probabilities already stay as they are.
    """
    if checks.are_probabilities(outputs.numpy()):
        return outputs
    return tf.nn.softmax(outputs)


def fingerprint(model, shape, bounds):
    """Returns what tells a network from others, a dictionary for JSON.

    That is a digest of its weights, and its outputs for images of noise, which
    tell apart what has the same weights or none; `"random"` where two passes
    differ.

    Args:
        model: A Keras model, or a callable from images to outputs.
        shape: The shape of a batch of images.
        bounds: Pair of floats, the images' range, or `None`.
    """
    levels = checks.typical(bounds)
    noise = np.random.default_rng(0).uniform(*levels, (_PROBES, *shape[1:]))
    images = tf.constant(noise, keras.config.floatx())
    predict = checks.inference(model)
    one, other = (np.asarray(predict(images), "float64") for _ in range(2))
    found = {
        "outputs": one.tolist() if np.allclose(one, other) else "random",
        "precision": precision(model),
    }
    # Not `variables`: the state of a generator of random numbers moves.
    variables = getattr(model, "weights", None)
    if not isinstance(model, keras.Layer):
        variables = getattr(model, "variables", ())
    if variables:
        found["weights"] = digest(np.asarray(v) for v in variables)
    return found


def digest(arrays):
    """Returns a fingerprint of arrays, of their values and their shapes."""
    found = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:32]
