"""Who trains: a Keras model whose training step runs the chain."""

import functools

import keras
import tensorflow as tf

from atent_keras import checks
from atent_keras import distribution


@keras.saving.register_keras_serializable("atent_keras")
class ATENTModel(keras.Model):
    """A Keras model that `fit` trains to be adversarially robust.

    ```python
    step = loss.value_and_gradients(model, x, y)
    optimizer.apply_gradients(zip(step.gradients, model.trainable_variables))
    ```

    Everything else is Keras's: `fit` takes whatever Keras takes and logs the
    averaged loss, and the metrics at the chain's last point. `evaluate`,
    `predict` and `export` see a plain classifier. Images are floating-point
    numbers within the bounds of the loss's threat model, of shape
    `(batch, ...)`; the network gives one row of classes per image.

    It is used in Keras's three ways: from tensors, `ATENTModel(inputs,
    outputs)`, which also wraps a model that exists; by subclassing, with a
    `call` of one's own; and by subclasses that pass tensors to
    `super().__init__(inputs, outputs)`.

    `compile` wants an `atent_keras.ATENTRegularizedLoss`, or another loss
    with a method `value_and_gradients` of the same form.

    The chain's noise is a function of the model's `seed_generator`, whose
    seed `keras.utils.set_random_seed` determines, and of the optimizer's
    iteration.

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

    def __new__(cls, *args, **kwargs):
        if _from_tensors(args, kwargs):
            cls = _functional(cls)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args, **kwargs):
        if _from_tensors(args, kwargs):
            self.__class__ = _functional(type(self))
            # `network.inputs` is a list, also of a single tensor.
            args = [_single(tensors) for tensors in args]
            kwargs = {key: _single(value) for key, value in kwargs.items()}
        super().__init__(*args, **kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        _require_robust(self.loss)
        step = self.loss.value_and_gradients(
            self, x, y, sample_weight, seed=self._step_seed()
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
        if iterator is not None and distribution.is_distributed(self):
            data = iterator.data_adapter.get_tf_dataset()
            data_batch = distribution.one_replica(data)
        super()._maybe_symbolic_build(data_batch=data_batch)

    def perturb(self, x, y, seed=None):
        """Returns the chain's last points, with the network in inference mode.

        Args:
            x: Floating-point images within the threat model's bounds, of
                shape `(batch, ...)`.
            y: Labels, as the compiled loss wants them.
            seed: Integer, from which the noise follows. Defaults to `None`:
                fresh randomness in every call.

        Returns:
            A tensor of images, of the shape of `x`.

        Raises:
            ValueError, TypeError: If the model is not compiled with an
                `ATENTRegularizedLoss`, or images and labels do not fit.
        """
        _require_robust(self.loss)
        return self.loss.sampler(self, x, y, seed=seed)

    # Keras's own loops, with a look at the data before they start.

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        *args,
        validation_data=None,
        steps_per_epoch=None,
        **kwargs,
    ):
        _require_robust(self.loss)
        distribution.check(self)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            distribution.check_length(x, steps_per_epoch)
        x, y = checks.guard(x, y, self._check, replicas, batch_size)
        if isinstance(validation_data, (tuple, list)):
            checks.guard(*validation_data[:2], self._check)
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

    def evaluate(self, x=None, y=None, *args, **kwargs):
        distribution.check(self)
        # `fit` has looked at its validation data already.
        looked_at = kwargs.get("_use_cached_eval_dataset", False)
        if hasattr(self.loss, "sampler") and not looked_at:
            x, y = checks.guard(x, y, self._check)
        with checks.plain_errors(), distribution.lost_workers(self):
            return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        _require_robust(self.loss)
        distribution.check(self)
        x, y = checks.guard(x, y, self._check)
        return super().train_on_batch(x, y, *args, **kwargs)

    def _check(self, x, y):
        threat_model = self.loss.sampler.threat_model
        # A model that this builds belongs to its strategy.
        with self.distribute_strategy.scope():
            return checks.batch(self, self.loss, threat_model, x, y)

    def _step_seed(self):
        """The seed of this step on this replica."""
        fold_in = tf.random.experimental.stateless_fold_in
        seed = tf.cast(self.seed_generator.state.value, tf.int64)
        seed = fold_in(seed, self.optimizer.iterations.value)
        context = tf.distribute.get_replica_context()
        return fold_in(seed, context.replica_id_in_sync_group)


def _require_robust(loss):
    if not hasattr(loss, "value_and_gradients"):
        raise ValueError(
            "ATENTModel must be compiled with an "
            "`atent_keras.ATENTRegularizedLoss`, since with a plain Keras "
            "loss it would train a plain, not a robust network. Wrap the loss:"
            " `model.compile(optimizer, "
            "loss=atent_keras.ATENTRegularizedLoss(loss, sampler))`. "
            f"Received: loss={loss!r}"
        )


def _from_tensors(args, kwargs):
    """Whether a model is made from tensors, by Keras's rule."""
    return (
        len(args) == 2
        or (len(args) == 1 and "outputs" in kwargs)
        or ("inputs" in kwargs and "outputs" in kwargs)
    )


def _single(tensors):
    """Takes a single tensor out of its list."""
    if isinstance(tensors, (list, tuple)) and len(tensors) == 1:
        return tensors[0]
    return tensors


@functools.cache
def _functional(cls):
    """Returns `cls` with Keras's functional models among its bases.

    Keras would put them among the bases of `ATENTModel` itself, for good, and
    no other subclass could then have a `call` of its own. So each class gets
    a functional twin of the same name instead.
    """
    base = _keras_functional()
    if issubclass(cls, base):
        return cls
    twin = type(cls.__name__, (cls, base), {"__module__": cls.__module__})
    package, _, name = keras.saving.get_registered_name(cls).rpartition(">")
    if package:
        # Saved under the name of its class, it is loaded through its class.
        for one in (twin, cls):
            keras.saving.register_keras_serializable(package, name)(one)
    return twin


@functools.cache
def _keras_functional():
    # The class has no public name; a model made from tensors has its type.
    inputs = keras.Input((1,))
    return type(keras.Model(inputs, inputs))
