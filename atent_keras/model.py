"""Who trains: a Keras model whose training step is that of a robust loss."""

from typing import Any

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import distribution
from atent_keras import functional
from atent_keras import version
from atent_keras.losses import outside
from atent_keras.types import Array


@keras.saving.register_keras_serializable("atent_keras")
class RobustModel(keras.Model):
    """A Keras model that `fit` trains to be adversarially robust.

    ```python
    step = loss.value_and_gradients(model, x, y)
    optimizer.apply_gradients(zip(step.gradients, model.trainable_variables))
    ```

    Everything else is Keras's: `fit` takes whatever Keras takes and logs the
    robust loss, and the metrics at the last points that it found. `evaluate`,
    `predict` and `export` see a plain classifier. Images are floating-point
    numbers within the bounds of the loss's threat model, or integers where
    these are (0, 255), of shape `(batch, ...)`; the network gives one row of
    classes per image.

    It is used in Keras's three ways: from tensors, `RobustModel(inputs,
    outputs)`, which also wraps a model that exists; by subclassing, with a
    `call` of one's own; and by subclasses that pass tensors to
    `super().__init__(inputs, outputs)`.

    `compile` wants one of `atent_keras.losses`, or another loss with a method
    `value_and_gradients` of the same form, which `evaluate` calls as Keras
    does: `loss(y_true, y_pred)`.

    What is random in a step is a function of the model's `seed_generator`,
    whose seed `keras.utils.set_random_seed` determines, and of the number of
    steps that the optimizer has seen.

    Example:

    >>> inputs = keras.Input((28, 28, 1))
    >>> x = keras.layers.Flatten()(inputs)
    >>> model = atent_keras.RobustModel(inputs, keras.layers.Dense(10)(x))
    >>> loss = atent_keras.TRADESLoss.from_preset("mnist_linf")
    >>> model.compile("adam", loss=loss, metrics=["accuracy"])
    >>> model.fit(x_train, y_train, epochs=10)
    """

    def __new__(cls, *args, **kwargs):
        if functional.from_tensors(args, kwargs):
            cls = functional.twin(cls)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if functional.from_tensors(args, kwargs):
            self.__class__ = functional.twin(type(self))  # type: ignore[arg-type]
            # `network.inputs` is a list, also of a single tensor.
            single = functional.single
            args = tuple(single(tensors) for tensors in args)
            kwargs = {key: single(value) for key, value in kwargs.items()}
        super().__init__(*args, **kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._require_robust()
        (weight,) = keras.tree.flatten(_compiled(self, "_user_loss_weights"))
        settings = {} if weight is None else {"loss_weight": weight}
        step = self._robust_loss.value_and_gradients(
            self, x, y, sample_weight, seed=self._step_seed(), **settings
        )
        self.optimizer.apply_gradients(
            # The optimizer divides by its loss scale, if it has one.
            (None if g is None else self.optimizer.scale_loss(g), variable)
            for g, variable in zip(step.gradients, self.trainable_variables)
        )
        return self._log(step.loss, x, y, step.y_pred, sample_weight)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = distribution.predict(self, x)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self._log(loss, x, y, y_pred, sample_weight)

    def compute_loss(self, *args, **kwargs):
        with outside.within_robust_model():
            return super().compute_loss(*args, **kwargs)

    def predict_step(self, data):
        x, *_ = keras.utils.unpack_x_y_sample_weight(data)
        return distribution.predict(self, x)

    def _log(self, loss, x, y, y_pred, sample_weight):
        """Updates the metrics by one batch; the loss is a replica's share."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(
                    loss * replicas, sample_weight=tf.shape(x)[0]
                )
        logs = self.compute_metrics(x, y, y_pred, sample_weight)
        return distribution.reducible(logs)

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            with distribution.without_xla(self):
                super().make_train_function(force)
            self.train_function = distribution.step_by_step(
                self, self.train_function
            )
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            with distribution.without_xla(self):
                super().make_test_function(force)
            self.test_function = distribution.step_by_step(
                self, self.test_function
            )
        return self.test_function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras's own fails across workers and on batches that leave a replica
        # without images, and shifts the order of shuffled data by a look.
        if iterator is not None:
            data = iterator.data_adapter.get_tf_dataset()
            data_batch = distribution.one_replica(data)
        if distribution.is_distributed(self):
            super()._maybe_symbolic_build(data_batch=data_batch)
        elif (
            not self.run_eagerly
            and callable(self._robust_loss)
            and _is_known(data_batch)
        ):
            # A `tf.function` that makes the variables of optimizer and metrics
            # is traced twice, so that they are made before.
            self._symbolic_build(data_batch=data_batch)

    def perturb(self, x: Array, y: Array, seed: int | None = None) -> tf.Tensor:
        """Returns what the compiled loss's attack finds, in inference mode.

        The attack climbs its own loss, else the base loss, in the whole radius.

        Args:
            x: Floating-point images within the threat model's bounds, of
                shape `(batch, ...)`.
            y: Labels, as the compiled loss wants them.
            seed: Integer, from which the noise follows. Defaults to `None`:
                fresh randomness in every call.

        Returns:
            A tensor of images, of the shape of `x`.

        Raises:
            ValueError, TypeError: If the model is not compiled with a robust
                loss that has an attack, or images and labels do not fit.
        """
        self._require_robust()
        if not hasattr(self._robust_loss, "attack"):
            raise ValueError(
                "The compiled loss must have an `attack`. Received: "
                f"loss={self._robust_loss!r}"
            )
        return self._robust_loss.attack(self, x, y, seed=seed)

    # Keras's own loops, with a look at the data before they start.

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        validation_data: Any = None,
        steps_per_epoch: int | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        self._require_robust()
        distribution.check(self)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            distribution.check_length(x, steps_per_epoch)
        counted = not distribution.is_multi_worker(self.distribute_strategy)
        x, y = checks.guard(
            x, y, self._check, replicas, batch_size, counted=counted
        )
        if isinstance(validation_data, (tuple, list)):
            validation_data = (
                *checks.guard(*validation_data[:2], self._check),  # type: ignore[call-arg]
                *validation_data[2:],
            )
        elif validation_data is not None:
            validation_data, _ = checks.guard(
                validation_data, None, self._check
            )
        with checks.plain_errors(), distribution.lost_workers(self):
            history = super().fit(
                x,
                y,
                batch_size,
                *args,
                validation_data=validation_data,
                steps_per_epoch=steps_per_epoch,
                **kwargs,
            )
        if history.epoch and not history.history:
            raise ValueError("The data set is empty. Received: no batch")
        return history

    def evaluate(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        distribution.check(self)
        robust = hasattr(self._robust_loss, "value_and_gradients")
        if robust and not callable(self._robust_loss):
            raise ValueError(
                "The compiled loss must be callable, `loss(y_true, y_pred)`, "
                "to be evaluated. Received: "
                f"loss={self._robust_loss!r}"
            )
        # `fit` has looked at its validation data already.
        looked_at = kwargs.get("_use_cached_eval_dataset", False)
        if hasattr(self._robust_loss, "threat_model") and not looked_at:
            x, y = checks.guard(x, y, self._check)
        with checks.plain_errors(), distribution.lost_workers(self):
            return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(
        self, x: Any, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        self._require_robust()
        distribution.check(self)
        x, y = checks.guard(x, y, self._check)
        return super().train_on_batch(x, y, *args, **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            # Keras saves no generator, and the noise is to go on as it was.
            seed = keras.ops.convert_to_numpy(self.seed_generator.state)
            config["seed"] = seed.tolist()
        return config

    def compile_from_config(self, config):
        config = dict(config)
        seed = config.pop("seed", None)
        if seed is not None:
            self.seed_generator.state.assign(seed)
        try:
            super().compile_from_config(config)
        except TypeError as error:
            raise ValueError(
                "The loss, the optimizer and the metrics must be known to this "
                f"version of atent_keras, {version.__version__}, or be given "
                f"as `custom_objects`. Received: {error}"
            ) from error

    def __reduce__(self):
        # Pickle finds the functional twin of a class under no name; what
        # loads a model is the same for all.
        unpickle, arguments = super().__reduce__()
        return getattr(RobustModel, unpickle.__name__), arguments

    @property
    def loss(self) -> Any:
        """The compiled loss, which only `compile` can change."""
        return self.__dict__.get("_compiled_loss")

    @loss.setter
    def loss(self, loss):
        parts = keras.tree.flatten(loss)
        known = keras.tree.flatten(_compiled(self, "_user_loss", loss))
        if list(map(id, parts)) != list(map(id, known)):
            raise AttributeError(
                "The loss is a constant of the compiled step. Call `compile` "
                "with the other one; a radius that changes during training is "
                f"a robust loss's `radius_schedule`. Received: loss={loss!r}"
            )
        self.__dict__["_compiled_loss"] = loss

    @property
    def _robust_loss(self):
        return base_losses.compiled(self)

    def _require_robust(self):
        loss, name = self._robust_loss, type(self).__name__
        if not hasattr(loss, "value_and_gradients"):
            raise ValueError(
                f"{name} must be compiled with a robust loss, since with a "
                "plain Keras loss it would train a plain, not a robust "
                "network. Wrap the loss: `model.compile(optimizer, "
                "loss=atent_keras.ATENTRegularizedLoss(loss, sampler))`, or "
                "take another one of atent_keras.losses. Received: "
                f"loss={loss!r}"
            )

    def _check(self, x, y):
        loss = self._robust_loss
        # A model that this builds belongs to its strategy.
        with self.distribute_strategy.scope():
            if hasattr(loss, "check"):
                return loss.check(self, x, y)
            return x, y

    def _step_seed(self):
        """The seed of this step on this replica."""
        fold_in = tf.random.experimental.stateless_fold_in
        seed = tf.cast(self.seed_generator.state.value, tf.int64)
        seed = fold_in(seed, self._steps_seen.value)
        context = tf.distribute.get_replica_context()
        return fold_in(seed, context.replica_id_in_sync_group)

    @property
    def _steps_seen(self):
        """The optimizer's count of steps, each of an accumulation its own."""
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        return next(v for v in optimizer.variables if v.name == "iteration")


@keras.saving.register_keras_serializable("atent_keras")
class ATENTModel(RobustModel):
    """A Keras model that `fit` trains by ATENT.

    It is a `RobustModel`, under the name of the method that this package is
    about, and takes the other robust losses, too.

    Example:

    >>> inputs = keras.Input((28, 28, 1))
    >>> x = keras.layers.Flatten()(inputs)
    >>> model = atent_keras.ATENTModel(inputs, keras.layers.Dense(10)(x))
    >>> loss = atent_keras.ATENTRegularizedLoss.from_preset("mnist_linf")
    >>> model.compile("adam", loss=loss, metrics=["accuracy"])
    >>> model.fit(x_train, y_train, epochs=10)

    References:
    - Jagatap et al., "Adversarially robust learning via entropic
      regularization", Frontiers in AI 2022, https://arxiv.org/abs/2008.12338.
    """


def _is_known(batch):
    """Whether it is known how many axes each part of a batch has."""
    return all(
        hasattr(part, "shape") and tf.TensorShape(part.shape).rank is not None
        for part in keras.tree.flatten(batch)
        if part is not None
    )


def _compiled(model, name, default=None):
    """What `compile` was given, which Keras keeps under no public name."""
    compiled = model.__dict__.get("_compile_loss")
    return getattr(compiled, name, default)
