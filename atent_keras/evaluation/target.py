"""The network under evaluation: what it answers, and what fools it."""

import hashlib
import time
import types

import keras
import numpy as np
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras.attacks import accuracy
from atent_keras.compiler import any_batch
from atent_keras.compiler import compiled
from atent_keras.evaluation.precision import precision
from atent_keras.threat_models import per_example

# Images by whose answers a network is known again.
_PROBES = 4


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

    def correct(self, x, y, finite=False):
        """Returns which images are classified right, booleans `(batch,)`.

        An answer that is not finite is none, and with `finite` an error.
        """
        outputs = self.outputs(x)
        loss = base_losses.of_model(self.model, y)
        if outputs.shape[-1] == 1:
            loss = checks.decided(self.model, loss, x.shape, self.bounds)
        right = accuracy.is_correct(y, outputs, loss)
        answered = tf.reduce_all(tf.math.is_finite(outputs), axis=-1)
        if finite:
            checks.require_finite(tf.reduce_all(answered))
        return (right & answered).numpy()

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
            Which images the attack made the network misclassify, booleans
            `(batch,)`; the norms of the perturbations, floats `(batch,)`; and
            the seconds that the attack took.
        """
        start = time.perf_counter()
        if not len(places):
            return np.zeros(0, bool), np.zeros(0, x.dtype.as_numpy_dtype), 0.0
        model = self.model if through is None else through
        x_adv = self.admissible(
            attack.threat_model,
            x,
            attack(model, x, y, seed=seed, first=places),
        )
        norm = attack.threat_model.norm(x_adv - x).numpy()
        return ~self.correct(x_adv, y), norm, time.perf_counter() - start

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
