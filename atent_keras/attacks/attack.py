"""The loop that every iterative attack shares."""

import copy
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Self

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import config
from atent_keras.attacks import gradients
from atent_keras.attacks import noise as noise_lib
from atent_keras.attacks.loop import while_loop
from atent_keras.compiler import any_batch
from atent_keras.compiler import compiled
from atent_keras.threat_models import ThreatModel
from atent_keras.threat_models import is_finite
from atent_keras.threat_models import require_number
from atent_keras.types import Array
from atent_keras.types import Classifier
from atent_keras.types import Loss
from atent_keras.types import Noise
from atent_keras.types import Shape

# Images on which a network is asked for a gradient.
_PROBES = 32

_SEED = tf.TensorSpec((2,), tf.int64)
_PLACES = tf.TensorSpec((None,), tf.int32)


@dataclasses.dataclass(frozen=True)
class Attack:
    """Base class: a point climbs a network's loss inside a threat model.

    ```python
    x_adv = attack.start(x, noise)
    for k in range(1, num_steps + 1):
        x_adv = attack.step(x, x_adv, gradient(x_adv), k, noise)
    ```

    A subclass says how an attack starts and steps; the loop lives here.
    Settings are read-only: they are constants of the compiled attack.

    Call arguments:
        model: A Keras model, run in inference mode, or any callable that maps
            images to the classes' logits, differentiably, in TensorFlow. A
            function is traced once: what it reads of Python stays as it was.
        x: Floating-point images within the threat model's bounds, of shape
            `(batch, ...)`; or integers, where the bounds are (0, 255). Large
            batches are attacked in chunks.
        y: Labels, integers of shape `(batch,)` or one-hot `(batch, classes)`.
            Those of a single output, which is that of the second of two
            classes, may be -1 and 1 if the loss takes them.
        seed: Integer; the same seed gives the same result, however the images
            are batched. Defaults to `None`, fresh randomness in every call.
        first: Integer, the place of the first image in its data set, where
            a data set is attacked batch by batch under one seed; or the places
            of all images, ascending, of shape `(batch,)`.
        batch_size: Positive integer, how many images are attacked together.
            Defaults to `None`: see `atent_keras.config.set_batch_size`.

    Returns (of a call):
        Adversarial images: a tensor like `x`, of dtype
        `keras.config.floatx()`. They are constants to a `tf.GradientTape`.

    Raises (in a call):
        ValueError, TypeError: If images, labels or network do not fit each
            other, the loss or the threat model; see `atent_keras.checks`.
        UserWarning: If the network's gradient is zero at all of the images
            first looked at.
    """

    threat_model: ThreatModel
    # Neither is a setting until a subclass makes it one.
    loss = None  # type: Any
    uses_gradient = True

    def __post_init__(self):
        if not isinstance(self.threat_model, ThreatModel):
            raise TypeError(
                "`threat_model` must be an instance of "
                "`atent_keras.threat_models.ThreatModel`, such as "
                f"`Linf(8 / 255)`. Received: {self.threat_model!r}"
            )
        if self.loss is not None:
            object.__setattr__(self, "loss", base_losses.get(self.loss))

    @property
    def name(self) -> str:
        """What tables call the attack."""
        return type(self).__name__

    def inapplicable(self, shape: Shape) -> str | None:
        """Returns why no batch of this shape can be attacked, if none can."""
        return None

    def left_out(self, shape: Shape) -> dict[str, str]:
        """Returns what is not run on a batch of this shape, and why.

        Args:
            shape: The shape of a batch of images.

        Returns:
            Dictionary from the names of attacks, of those that this one
            consists of, to the reasons.
        """
        return {}

    def _require_positive(self, **settings):
        require_number(True, **settings)
        for name, value in settings.items():
            object.__setattr__(self, name, float(value))

    def _require_count(self, **settings):
        checks.require_count(**settings)
        for name, value in settings.items():
            object.__setattr__(self, name, int(value))

    def _require_step_size(self):
        if isinstance(self.step_size, dict):
            schedule = keras.optimizers.schedules.deserialize(self.step_size)
            object.__setattr__(self, "step_size", schedule)
        if not is_schedule(self.step_size):
            self._require_positive(step_size=self.step_size)

    def _step_size_at(self, k, dtype):
        if callable(self.step_size):  # a schedule, or a part of it
            return tf.cast(self.step_size(k - 1), dtype)
        return self.step_size

    def start(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """Returns the chain's first point; `noise(0)` is its randomness."""
        raise NotImplementedError

    def step(
        self,
        x: tf.Tensor,
        x_adv: tf.Tensor,
        gradient: tf.Tensor,
        k: int | tf.Tensor,
        noise: Noise,
    ) -> tf.Tensor:
        """Returns point `k` of the chain (of 1 to `num_steps`).

        Args:
            x: Clean images, `(batch, ...)`.
            x_adv: Point `k - 1`, of the same shape.
            gradient: The gradient of each example's own loss at `x_adv`.
            k: Integer or scalar integer tensor.
            noise: Function of `k`, giving N(0, 1) draws in the shape of `x`.
        """
        raise NotImplementedError

    def climb(
        self,
        x: tf.Tensor,
        x_adv: tf.Tensor,
        gradient: Callable[..., Any],
        noise: Noise,
        state: Any = (),
        steps: range | None = None,
        unroll: bool = False,
    ) -> tuple[tf.Tensor, Any]:
        """Walks along the chain: the loop of every attack.

        Args:
            x: Clean images, `(batch, ...)`.
            x_adv: Where the chain stands before the first of `steps`.
            gradient: Function from `(x_adv, state)` to the gradient by
                `x_adv` and a new state of the same structure.
            noise: Function from `k` to N(0, 1) draws in the shape of `x`.
            state: Nested structure of tensors that travels along the chain.
            steps: `range` of the steps to take. Defaults to all of them.
            unroll: Boolean, whether the graph holds each step rather than a
                loop. The chain is the same.

        Returns:
            Where the chain stands after the last step, and the last state.
        """
        if steps is None:
            steps = range(1, self.num_steps + 1)

        def body(k, x_adv, state):
            direction, state = gradient(x_adv, state)
            x_adv = self.step(x, x_adv, direction, k, noise)
            x_adv.set_shape(x.shape)
            return k + 1, x_adv, state

        if unroll:
            for k in steps:
                _, x_adv, state = body(k, x_adv, state)
        elif steps:
            _, x_adv, state = while_loop(
                lambda k, *_: k < steps.stop,
                body,
                (tf.constant(steps.start), x_adv, state),
            )
        return x_adv, state

    def run(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        loss: Loss,
        x: tf.Tensor,
        y: tf.Tensor,
        noise_of: Callable[[Any], Noise],
    ) -> tf.Tensor:
        """Attacks one chunk of images.

        Args:
            predict: Function from images to the network's outputs.
            loss: What is climbed, as `atent_keras.base_losses.get` gives it.
            x: Clean images, `(batch, ...)`.
            y: Labels.
            noise_of: Function from the number of a restart to the `noise`
                function of its chain.
        """

        def climbed(y_pred):
            return base_losses.per_example(loss, y, y_pred)

        def gradient(x_adv, state):
            return gradients.at(predict, x_adv, climbed)[0], state

        noise = noise_of(0)
        return self.climb(x, self.start(x, noise), gradient, noise)[0]

    def __call__(
        self,
        model: Classifier,
        x: Array,
        y: Array,
        seed: int | None = None,
        first: int | Array = 0,
        batch_size: int | None = None,
    ) -> tf.Tensor:
        x = checks.images(x, self.threat_model.bounds)
        y, loss, classes = self._admit(model, x, checks.labels(y, x))
        seed = noise_lib.as_seed(seed)
        if not tf.executing_eagerly():
            x_adv = self._attack(model, loss, x, y, seed, first)
            return tf.stop_gradient(x_adv)
        if self.uses_gradient:
            self._look_for_a_gradient(model, x)
        places = noise_lib.places(x, first)
        with config.batches_of(batch_size):
            x_adv = self._perform(model, loss, x, y, seed, places, classes)
        return tf.stop_gradient(x_adv)

    def _admit(self, model, x, y):
        """Checks network and labels; returns labels, loss and classes."""
        loss, images = self.loss, (x.shape, self.threat_model.bounds)
        if loss is None:
            classes = checks.network(model, None, *images)
            loss = self._default_loss(model, y, classes)
        network = model, loss, *images
        classes = checks.network(*network)
        y = checks.labels_fit(y, loss, classes)
        return y, checks.decided(*network), classes

    def _default_loss(self, model, y, classes):
        """Returns what is climbed where the attack has no loss of its own."""
        return checks.default_loss(model, y, classes)

    def _perform(self, model, loss, x, y, seed, places, classes, progress=None):
        """Attacks images of any number.

        Args:
            model, loss, x, y, seed, classes: As they were admitted.
            places: The images' places in their data set, ascending.
            progress: Function of the share that is done, and of the margins
                where the attack knows them, else `None`.
        """
        attack, count, found = self._compiled(model, loss, x, y), x.shape[0], []
        for rows, x_adv in attack.over(
            count, lambda rows: (x[rows], y[rows], seed, places[rows])
        ):
            found.append(x_adv)
            if progress is not None:
                progress(rows.stop / count, None)
        return tf.concat(found, axis=0)

    def _attack(self, model, loss, x, y, seed, first):
        """Attacks one chunk, eagerly or while a graph is made."""
        predict, noise_of = self._means(model, seed, x, first)
        return self.run(predict, loss, x, y, noise_of)

    @staticmethod
    def _means(model, seed, x, first):
        """Returns what an attack works with: `predict` and `noise_of`."""
        xla = config.uses_xla()

        def noise_of(restart):
            own = noise_lib.fold_in(seed, restart, xla)
            return noise_lib.normal_noise(own, x, first, xla)

        return checks.inference(model), noise_of

    def _compiled(self, model, loss, x, y, *state):
        """Returns `_attack` as a compiled function of one chunk."""

        def attack(model, *arguments):
            return self._attack(model, loss, *arguments)

        # One trace, whatever the number of images.
        signature = (any_batch(x), any_batch(y), _SEED, _PLACES, *state)
        return compiled(model, (self, loss), attack, signature)

    def _look_for_a_gradient(self, model, x):
        def weighed(y_pred):
            # Different weights, since logits may have a constant sum.
            weights = tf.range(1, y_pred.shape[-1] + 1)
            return tf.linalg.matvec(y_pred, tf.cast(weights, y_pred.dtype))

        def largest(model, x):
            gradient, *_ = gradients.at(checks.inference(model), x, weighed)
            return tf.reduce_max(tf.abs(gradient), axis=range(1, x.shape.rank))

        few = x[:_PROBES]
        look = compiled(model, "gradient", largest, (any_batch(few),))
        if tf.reduce_max(look(few)) == 0:
            warnings.warn(
                f"The gradient of the network's outputs is zero at all of the "
                f"first {len(few)} images, so that {type(self).__name__} has "
                "nowhere to go and its result says nothing about robustness. "
                "Received: a network that is constant, saturated or not "
                "differentiable there; Square needs no gradient",
                stacklevel=3,
            )

    def scaled(self, share: tf.Tensor) -> Self:
        """Returns the attack within a share of the radius, in shorter steps.

        Args:
            share: Scalar tensor in [0, 1], by which `epsilon` and the length
                of a step are multiplied.
        """
        threat_model = self.threat_model.scaled(share)
        scaled = replaced(self, threat_model=threat_model)
        step_size = getattr(self, "step_size", None)
        if is_finite(step_size):
            return replaced(scaled, step_size=share * step_size)
        if step_size is not None:
            return replaced(
                scaled,
                step_size=lambda k: share * tf.cast(step_size(k), share.dtype),
            )
        return scaled

    def get_config(self) -> dict[str, Any]:
        config = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        for name in {"threat_model", "loss"} & config.keys():
            config[name] = keras.saving.serialize_keras_object(config[name])
        if is_schedule(config.get("step_size")):
            config["step_size"] = keras.optimizers.schedules.serialize(
                self.step_size
            )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        for name in ("threat_model", "loss"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name]
                )
        return cls(**config)


def is_schedule(setting):
    """Whether a setting is one of `keras.optimizers.schedules`."""
    kind = keras.optimizers.schedules.LearningRateSchedule
    return isinstance(setting, kind)


def replaced(frozen, **settings):
    """Returns a copy of a frozen dataclass with other settings.

    Unlike `dataclasses.replace` it takes tensors, being for use within one
    graph, and does without the class's `__init__`.
    """
    other = copy.copy(frozen)
    for name, value in settings.items():
        object.__setattr__(other, name, value)
    return other
