"""What every robust loss has: checks, noise, replicas, state, one step."""

import operator
from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Self

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import distribution
from atent_keras import presets
from atent_keras import version
from atent_keras.attacks import PGD
from atent_keras.attacks import noise as noise_lib
from atent_keras.attacks.attack import Attack
from atent_keras.losses import inner_attack
from atent_keras.losses import outside
from atent_keras.losses import radius
from atent_keras.losses.network import Network
from atent_keras.losses.reduction import Reduction
from atent_keras.losses.reduction import add
from atent_keras.losses.reduction import counting_weights
from atent_keras.losses.reduction import share_of_replica
from atent_keras.losses.step import Batch
from atent_keras.losses.step import Losses
from atent_keras.losses.step import Step
from atent_keras.threat_models import ThreatModel
from atent_keras.types import Array
from atent_keras.types import Loss
from atent_keras.types import Schedule
from atent_keras.types import State


class RobustLoss(keras.losses.Loss):
    """Base class: finds points around each image, and learns from them.

    ```python
    points = loss.points(network, x, y)                 # constants
    gradient(mean(loss.losses(network, points, x, y)))  # by the weights
    ```

    A method of robust training says in `points` where it looks, and in
    `losses` what it minimizes there. Both are pure functions of a `Network`
    and its state, so that steps compile, also on each replica of a
    `tf.distribute` strategy; everything else lives here. Settings are
    read-only: they are constants of the compiled step.

    As a plain Keras loss, `loss(y_true, y_pred)` is the base loss, so that
    `evaluate` judges the network on the data as they are.

    Args:
        loss: The base loss: a Keras loss (name, config or instance), which
            gives one value per example.
        attack: One of `atent_keras.attacks`, by which points are found.
        radius_schedule: A schedule of `keras.optimizers.schedules`: its value
            at the optimizer's iteration, clipped to [0, 1], multiplies
            `epsilon` and the length of a step. Evaluation, and training
            without an optimizer, know the whole radius only. Defaults to
            `None`: the whole radius throughout.
        reduction: Keras's reduction over the batch, `"sum_over_batch_size"`
            (the default), `"sum"`, `"mean"` or `"mean_with_sample_weight"`.
        name: Optional name of the loss.
        dtype: The dtype of the loss's own computations, float32 or float64.
            Defaults to `None`, `keras.config.floatx()`, in which a Keras
            loss within it always is.

    Raises:
        ValueError, TypeError: If a setting is out of its range.
    """

    # Names of the arguments, for configurations and `repr`.
    arguments: tuple[str, ...] = ("loss", "attack", "radius_schedule")
    # Published settings by name, of an attack of this kind.
    presets: dict[str, Any] = {}
    preset_attack: type[Attack] = PGD
    # Whether `loss` is a robust loss itself.
    around_robust = False

    def __init__(
        self,
        loss: Loss,
        attack: Attack,
        radius_schedule: Schedule | None = None,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        inner_attack.require_single(attack)
        if self.reduction in (None, "none"):
            raise ValueError(
                "`reduction` must reduce the batch to a scalar. Received: "
                f"reduction={reduction!r}"
            )
        if self.dtype not in ("float32", "float64"):
            raise ValueError(
                "`dtype` must be float32 or float64, since a half can't hold a "
                "sure network's losses; the network itself may have any "
                f"policy. Received: dtype={self.dtype!r}"
            )
        self._loss = base_losses.get(loss)
        if isinstance(self.loss, RobustLoss) and not self.around_robust:
            raise ValueError(
                f"The `loss` of {type(self).__name__} must be a plain loss, "
                "since a robust one would only lend it its base loss. "
                f"Received: loss={loss!r}"
            )
        self._attack = attack
        self._radius_schedule = radius.checked(radius_schedule)
        self._reduce = Reduction("reduction", self.reduction, dtype)

    # Constants of the compiled step, hence read-only.
    loss = property(operator.attrgetter("_loss"))
    attack = property(operator.attrgetter("_attack"))
    radius_schedule = property(operator.attrgetter("_radius_schedule"))

    @property
    def threat_model(self) -> ThreatModel:
        """Where the points may be."""
        return self.attack.threat_model

    @classmethod
    def from_preset(
        cls, name: str, loss: Loss | None = None, **overrides: Any
    ) -> Self:
        """Returns the loss with its authors' settings for a data set.

        Args:
            name: Which ones; see `atent_keras.presets`. Only what was
                published is there.
            loss: The base loss. Defaults to `None`: cross-entropy of integer
                labels from logits.
            **overrides: `epsilon`, `bounds`, and arguments of the attack and
                of this class. A step that the preset gives in units of
                `epsilon` follows an overridden `epsilon`; everything follows
                the width of `bounds`.

        Raises:
            ValueError: If there is no such preset or setting.
        """
        return cls._published(cls.presets, name, loss, overrides)

    @classmethod
    def _published(cls, published, name, loss, overrides):
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        attack, settings = presets.resolve(
            published, name, cls.preset_attack, overrides
        )
        settings["attack" if "attack" in cls.arguments else "sampler"] = attack
        try:
            return cls(loss=loss, **settings)
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            raise ValueError(
                "Overrides of a preset must be `epsilon`, `bounds` or settings "
                "of the attack or the loss. Received: "
                f"{', '.join(overrides)}"
            ) from error

    def points(
        self,
        network: Network,
        state: State,
        batch: Batch,
        attack: Attack,
        seed: tf.Tensor,
    ) -> tuple[list[tf.Tensor], State]:
        """Finds the points to learn from.

        Args:
            network: A `Network`.
            state: Its state.
            batch: A `Batch`.
            attack: `self.attack`, at the radius of this step.
            seed: Tensor of two integers, from which all randomness follows.

        Returns:
            List of points, each `(batch, ...)`, the last one being the one to
            show; and the new state.
        """
        raise NotImplementedError

    def losses(
        self, network: Network, state: State, x_adv: tf.Tensor, batch: Batch
    ) -> Losses:
        """Returns the `Losses` at one set of points: here the base loss."""
        one = network(x_adv, state, training=True)
        values = self.call(batch.y, one.y_pred)
        return Losses(values, one.y_pred, one.state, one.penalties)

    def shares(self, count: int) -> list[float]:
        """Returns what each of so many sets of points counts."""
        return [1.0] * count

    def call(self, y_true: Array, y_pred: Array) -> tf.Tensor:
        losses = base_losses.per_example(self.loss, y_true, y_pred)
        return tf.cast(losses, self.dtype)

    def __call__(
        self, y_true: Array, y_pred: Array, sample_weight: Array | None = None
    ) -> tf.Tensor:
        outside.warn(self)
        weights = counting_weights(self, y_true, sample_weight)
        return super().__call__(y_true, y_pred, weights)

    def check(
        self, model: keras.Model, x: Array, y: Array
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns images and labels, checked against model and loss.

        Raises:
            ValueError, TypeError: If they do not fit each other.
        """
        return checks.batch(model, self, self.threat_model, x, y)

    def value_and_gradients(
        self,
        model: keras.Model,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        seed: int | Array | None = None,
        loss_weight: float = 1.0,
    ) -> Step:
        """Returns the robust loss and its gradients, for one batch.

        The network's non-trainable state (BatchNorm's statistics, the seeds
        of Dropout) is updated; its weights are not.

        Args:
            model: A Keras model; built from the images' shape if need be.
            x: Floating-point images within the threat model's bounds, of
                shape `(batch, ...)`.
            y: Labels, as the base loss wants them.
            sample_weight: Optional weights of shape `(batch,)`. They weigh
                the loss of the network, not the ascent.
            seed: Integer or tensor of two integers, from which all of the
                chain's noise follows. Defaults to `None`: fresh randomness in
                every call.
            loss_weight: Float, by which the loss is multiplied, but not the
                regularization losses: `compile`'s `loss_weights`. Defaults to
                1.

        Returns:
            A `Step`: `loss`, `gradients`, `x_adv` and `y_pred`. Under a
            `tf.distribute` strategy, `loss` and `gradients` are the replica's
            share of the global batch's.

        Raises:
            ValueError, TypeError: If images, labels, network and loss do not
                fit each other.
        """
        if not isinstance(model, keras.Model):
            raise TypeError(
                f"`model` must be a Keras model. Received: model={model!r}"
            )
        x, y = self.check(model, x, y)
        sample_weight = checks.sample_weights(sample_weight, x)
        seed = noise_lib.as_seed(seed)
        attack = radius.at_iteration(
            self.radius_schedule, getattr(model, "optimizer", None), self.attack
        )

        def on_one(part, weights, state, batch):
            return self._step(part, model, weights, state, batch, attack, seed)

        step, state = distribution.on_replica(
            model,
            on_one,
            [tf.convert_to_tensor(v) for v in model.trainable_variables],
            [tf.convert_to_tensor(v) for v in model.non_trainable_variables],
            Batch(x, y, sample_weight, loss_weight),
        )
        for variable, value in zip(model.non_trainable_variables, state):
            variable.assign(value)
        return step

    def _step(self, part, model, weights, state, batch, attack, seed):
        """Makes a step; `part` compiles what one replica does by itself."""

        def whole(weights, state, batch):
            network = Network(model, weights, self.dtype)
            return self.find_and_learn(network, state, batch, attack, seed)

        return part(whole)(weights, state, batch)

    def find_and_learn(
        self,
        network: Network,
        state: State,
        batch: Batch,
        attack: Attack,
        seed: tf.Tensor,
    ) -> tuple[Step, State]:
        """Finds the points and learns from them; see `points`.

        Returns:
            A `Step`, and the new state.
        """
        points, state = self.points(network, state, batch, attack, seed)
        return self.learn(network, state, points, batch)

    def learn(
        self,
        network: Network,
        state: State,
        points: list[tf.Tensor],
        batch: Batch,
        penalized: bool = True,
    ) -> tuple[Step, State]:
        """Returns the loss at given points, and its gradients by weights.

        Args:
            network: A `Network`, whose weights may be others than the ones
                with which the points were found.
            state: Its state.
            points: List of points, each `(batch, ...)`.
            batch: The `Batch` that they belong to.
            penalized: Boolean, whether regularization losses count.

        Returns:
            A `Step`, and the new state.
        """
        loss, gradients = 0.0, [None] * len(network.weights)
        shares = self.shares(len(points))
        for number, (share, point) in enumerate(zip(shares, points), start=1):
            # The weights' own penalties count once.
            last = number == len(points)
            step, state = self._learn_at(
                network, state, point, batch, share, penalized and last
            )
            loss += step.loss
            gradients = list(map(add, gradients, step.gradients))
        return step._replace(loss=loss, gradients=gradients), state

    def _learn_at(self, network, state, x_adv, batch, share, penalized):
        """Passes one set of points; see `learn`."""
        scale = network.loss_scale
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(network.weights)
            losses = self.losses(network, state, x_adv, batch)
            loss = share * self.mean(losses.values, batch)
            if penalized:
                loss += share_of_replica(losses.penalties, loss.dtype)
            scaled = tf.cast(scale, loss.dtype) * loss
        # A weight that nothing depends on has no gradient, as in Keras.
        gradients = [
            None if one is None else tf.convert_to_tensor(one) / scale
            for one in tape.gradient(scaled, network.weights)
        ]
        return Step(loss, gradients, x_adv, losses.y_pred), losses.state

    def mean(self, values: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Reduces one value per example to the batch's loss, a scalar."""
        weights = counting_weights(self, batch.y, batch.sample_weight)
        reduced = self._reduce(values, values, weights)
        weight = batch.weight
        if tf.is_tensor(weight):
            weight = tf.cast(weight, reduced.dtype)
        return reduced * weight

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "version": version.__version__}
        config["dtype"] = self.dtype
        for name in self.arguments:
            value = getattr(self, name)
            if name == "loss" and not isinstance(value, keras.losses.Loss):
                value = keras.losses.serialize(value)
            config[name] = keras.saving.serialize_keras_object(value)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        written_by = config.pop("version", "0.1.0")
        try:
            for name, value in config.items():
                if isinstance(value, dict):
                    config[name] = keras.saving.deserialize_keras_object(value)
            return cls(**config)
        except TypeError as error:
            raise ValueError(
                "The settings must be known to this version of atent_keras, "
                f"{version.__version__}. Received: those of version "
                f"{written_by}: {error}"
            ) from error

    def __repr__(self):
        settings = {name: getattr(self, name) for name in self.arguments}
        if settings.get("radius_schedule") is None:
            settings.pop("radius_schedule", None)
        listed = ", ".join(f"{name}={v!r}" for name, v in settings.items())
        return f"{type(self).__name__}({listed})"
