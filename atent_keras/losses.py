"""What is averaged: the loss along a Langevin chain around each image."""

import numbers
import operator
from typing import NamedTuple

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import distribution
from atent_keras import presets
from atent_keras import version
from atent_keras.attacks import SGLD
from atent_keras.attacks import noise as noise_lib
from atent_keras.threat_models import is_finite
from atent_keras.threat_models import per_example


class Step(NamedTuple):
    """What one training step needs to know.

    Attributes:
        loss: Scalar, the averaged loss plus the regularization losses.
        gradients: The loss's gradients, in the order of
            `model.trainable_variables`.
        x_adv: The chain's last point, `(batch, ...)`.
        y_pred: The network's outputs there, `(batch, classes)`.
    """

    loss: tf.Tensor
    gradients: list
    x_adv: tf.Tensor
    y_pred: tf.Tensor


@keras.saving.register_keras_serializable("atent_keras")
class ATENTRegularizedLoss(keras.losses.Loss):
    """The base loss, averaged over the points of a Langevin chain.

    ```python
    x_adv = sampler.start(x)
    average = 0
    for k in range(1, num_steps + 1):
        x_adv = sampler.step(x, x_adv, gradient(x_adv))
        average = (1 - alpha) * average + alpha * loss(f(x_adv), y)
    ```

    The weights' gradient is that of `average`, the points being constants, so
    iterate `k` counts `alpha * (1 - alpha)**(num_steps - k)`. The loss at an
    iterate is both a term of the average and what the next step climbs: one
    tape over the point and the weights gives both gradients, and the memory
    does not grow with the number of steps.

    As a plain Keras loss, `loss(y_true, y_pred)` is the base loss, so that
    `evaluate` judges the network on the data as they are.

    Args:
        loss: The base loss: a Keras loss (name, config or instance), which
            gives one value per example.
        sampler: An `atent_keras.attacks.SGLD`.
        alpha: Float in (0, 1], the weight of the newest iterate. Defaults to
            0.9.
        loss_iterates: Integer from 1 to the sampler's `num_steps`: only the
            gradients of the last `loss_iterates` points are kept, which drops
            a share `(1 - alpha)**loss_iterates` of the weight, and the loss
            and its gradients are sums over the kept points, not renormalized.
            Defaults to `None`: all, as the authors do.
        chain_training: Boolean, whether the network is in training mode at
            the points whose weight gradient is not kept, as it is in the
            authors' code. The kept ones always are. BatchNorm updates its
            statistics, and Dropout draws anew, at every pass in training
            mode. Defaults to `True`.
        reduction: Keras's reduction over the batch, `"sum_over_batch_size"`
            (the default), `"sum"`, `"mean"` or `"mean_with_sample_weight"`.
        name: Optional name of the loss.
        dtype: The dtype of the loss's computations. Defaults to `None`,
            `keras.config.floatx()`.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=0.3)
    >>> sampler = atent_keras.attacks.SGLD(threat_model, step_size=0.05)
    >>> loss = atent_keras.ATENTRegularizedLoss(
    ...     keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     sampler,
    ... )
    >>> model.compile("adam", loss=loss, metrics=["accuracy"])

    References:
    - Jagatap et al., "Adversarially robust learning via entropic
      regularization", Frontiers in AI 2022, https://arxiv.org/abs/2008.12338.
    """

    def __init__(
        self,
        loss,
        sampler,
        alpha=0.9,
        loss_iterates=None,
        chain_training=True,
        reduction="sum_over_batch_size",
        name=None,
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if self.reduction in (None, "none"):
            raise ValueError(
                "`reduction` must reduce the batch to a scalar. Received: "
                f"reduction={reduction!r}"
            )
        if not isinstance(sampler, SGLD):
            raise TypeError(
                "`sampler` must be an `atent_keras.attacks.SGLD`. Received: "
                f"sampler={sampler!r}"
            )
        if not is_finite(alpha) or not 0 < alpha <= 1:
            raise ValueError(
                f"`alpha` must lie in (0, 1]. Received: alpha={alpha!r}"
            )
        if loss_iterates is not None and not (
            isinstance(loss_iterates, numbers.Integral)
            and not isinstance(loss_iterates, bool)
            and 1 <= loss_iterates <= sampler.num_steps
        ):
            raise ValueError(
                "`loss_iterates` must be None or an integer from 1 to the "
                f"sampler's num_steps={sampler.num_steps}. Received: "
                f"loss_iterates={loss_iterates!r}"
            )
        self._loss = base_losses.get(loss)
        self._sampler = sampler
        self._alpha = float(alpha)
        self._loss_iterates = loss_iterates
        self._chain_training = bool(chain_training)
        self._reduce = _Reduction("reduction", self.reduction, dtype)

    # Constants of the compiled step, hence read-only.
    loss = property(operator.attrgetter("_loss"))
    sampler = property(operator.attrgetter("_sampler"))
    alpha = property(operator.attrgetter("_alpha"))
    loss_iterates = property(operator.attrgetter("_loss_iterates"))
    chain_training = property(operator.attrgetter("_chain_training"))

    @classmethod
    def from_preset(cls, name, loss=None, **overrides):
        """Returns the loss with the authors' settings for a data set.

        Args:
            name: `"mnist_linf"`, `"mnist_l2"`, `"cifar10_linf"` or
                `"cifar10_l2"`; see `atent_keras.presets`.
            loss: The base loss. Defaults to `None`: cross-entropy of integer
                labels from logits.
            **overrides: `epsilon`, `bounds`, and arguments of `SGLD` and of
                this class. A step that the preset gives in units of `epsilon`
                follows an overridden `epsilon`.

        Raises:
            ValueError: If there is no such preset or setting.
        """
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        own = ("alpha", "loss_iterates", "chain_training", "reduction", "dtype")
        settings = {key: overrides.pop(key) for key in own if key in overrides}
        return cls(loss, presets.sampler(name, **overrides), **settings)

    def call(self, y_true, y_pred):
        return base_losses.per_example(self.loss, y_true, y_pred)

    def value_and_gradients(self, model, x, y, sample_weight=None, seed=None):
        """Returns the averaged loss and its gradients, for one batch.

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

        Returns:
            A `Step`: `loss`, `gradients`, `x_adv` and `y_pred`. Under a
            `tf.distribute` strategy, `loss` and `gradients` are the replica's
            share of the global batch's.

        Raises:
            ValueError, TypeError: If images, labels, network and loss do not
                fit each other.
        """
        x, y = checks.batch(model, self, self.sampler.threat_model, x, y)
        weights = [v.value for v in model.trainable_variables]
        state = [v.value for v in model.non_trainable_variables]
        noise_seed = noise_lib.as_seed(seed)

        def chain(weights, state, x, y, sample_weight):
            noise = noise_lib.normal_noise(noise_seed, x)
            return self._chain(
                model, weights, state, x, y, sample_weight, noise
            )

        step, state = distribution.on_replica(
            model,
            chain,
            [tf.convert_to_tensor(value) for value in weights],
            [tf.convert_to_tensor(value) for value in state],
            x,
            y,
            sample_weight,
        )
        for variable, value in zip(model.non_trainable_variables, state):
            variable.assign(value)
        return step

    def _chain(self, model, weights, state, x, y, sample_weight, noise):
        """Runs the fused chain, a pure function of everything it is given.

        Args:
            model: A built Keras model; its variables are neither read nor
                written.
            weights: Values of `model.trainable_variables`.
            state: Values of `model.non_trainable_variables`.
            x: Images, `(batch, ...)`.
            y: Labels.
            sample_weight: Weights of shape `(batch,)`, or `None`.
            noise: Function from `k` to N(0, 1) draws in the shape of `x`: the
                start's for 0, then those of the step to point `k`.

        Returns:
            A `Step`, and the new values of `model.non_trainable_variables`.
        """
        sampler, alpha = self.sampler, self.alpha
        num_steps = sampler.num_steps
        first_kept = num_steps + 1 - (self.loss_iterates or num_steps)
        scale = _loss_scale(model)
        unroll = _unrolls(model)

        def losses_at(x_adv, state, training):
            y_pred, state, penalties = _stateless_call(
                model, weights, state, x_adv, training
            )
            y_pred = tf.cast(y_pred, self.dtype)
            return self.call(y, y_pred), state, y_pred, penalties

        def ascend(x_adv, state):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x_adv)
                losses, state, *_ = losses_at(x_adv, state, self.chain_training)
                scaled = scale * losses
            ascent = base_losses.input_gradient(tape, scaled, x_adv)
            return ascent / scale, state

        def ascend_and_average(x_adv, carry):
            state, average, gradients = carry
            with tf.GradientTape(
                persistent=sample_weight is not None,
                watch_accessed_variables=False,
            ) as tape:
                tape.watch([x_adv, *weights])
                losses, state, *_ = losses_at(x_adv, state, training=True)
                loss = self._reduce(losses, losses, sample_weight)
                scaled_losses, scaled = scale * losses, scale * loss
            if sample_weight is None:
                # One pass back serves point and weights: each example has
                # the same share in the mean, by which its ascent is divided.
                ascent, share, *newest = tape.gradient(
                    scaled,
                    [x_adv, losses, *weights],
                    unconnected_gradients="zero",
                )
                ascent /= per_example(share, x)
            else:
                # Two passes back, since an example of weight zero climbs too.
                ascent = tape.gradient(scaled_losses, x_adv) / scale
                newest = tape.gradient(
                    scaled, weights, unconnected_gradients="zero"
                )
            average = (1 - alpha) * average + alpha * loss
            gradients = [
                (1 - alpha) * old + alpha * tf.convert_to_tensor(new) / scale
                for old, new in zip(gradients, newest)
            ]
            return ascent, (state, average, gradients)

        x_adv, state = sampler.climb(
            x,
            sampler.start(x, noise),
            ascend,
            noise,
            state,
            range(1, first_kept + 1),
            unroll,
        )
        x_adv, (state, average, gradients) = sampler.climb(
            x,
            x_adv,
            ascend_and_average,
            noise,
            (
                state,
                tf.zeros((), self.dtype),
                [tf.zeros_like(weight) for weight in weights],
            ),
            range(first_kept + 1, num_steps + 1),
            unroll,
        )
        # The last point has nowhere to climb, and the weights' own penalties
        # count once.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            losses, state, y_pred, penalties = losses_at(x_adv, state, True)
            loss = alpha * self._reduce(losses, losses, sample_weight)
            loss += _share_of_replica(penalties, self.dtype)
            scaled = scale * loss
        # A weight that nothing depends on has no gradient, as in Keras.
        gradients = [
            None
            if new is None
            else (1 - alpha) * old + tf.convert_to_tensor(new) / scale
            for old, new in zip(gradients, tape.gradient(scaled, weights))
        ]
        loss += (1 - alpha) * average
        return Step(loss, gradients, x_adv, y_pred), state

    def get_config(self):
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "sampler": keras.saving.serialize_keras_object(self.sampler),
            "alpha": self.alpha,
            "loss_iterates": self.loss_iterates,
            "chain_training": self.chain_training,
            "dtype": self.dtype,
            "version": version.__version__,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        written_by = config.pop("version", "0.1.0")
        for name in ("loss", "sampler"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        try:
            return cls(**config)
        except TypeError as error:
            raise ValueError(
                "The settings must be known to this version of atent_keras, "
                f"{version.__version__}. Received: those of version "
                f"{written_by}: {error}"
            ) from error

    def __repr__(self):
        return (
            f"ATENTRegularizedLoss(loss={self.loss!r}, "
            f"sampler={self.sampler!r}, alpha={self.alpha}, "
            f"loss_iterates={self.loss_iterates}, "
            f"chain_training={self.chain_training})"
        )


class _Reduction(keras.losses.Loss):
    """Keras's reduction of a batch, for losses that are already known."""

    def call(self, y_true, y_pred):
        return y_pred


def _stateless_call(model, weights, state, x, training):
    """Calls a model on given values of its variables, changing nothing.

    Like `model.stateless_call`, but through `__call__`, which casts under
    mixed precision.

    Returns:
        The outputs, the new state, and the list of regularization losses.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    with keras.StatelessScope(
        state_mapping=zip(variables, [*weights, *state]), collect_losses=True
    ) as scope:
        y_pred = checks.call(model, x, training)
        penalties = model.losses
    state = [
        scope.get_current_value(variable)
        for variable in model.non_trainable_variables
    ]
    return y_pred, state, penalties


def _share_of_replica(penalties, dtype):
    """Sums regularization losses, once for all replicas together."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    total = tf.zeros((), dtype)
    for penalty in penalties:
        total += tf.cast(tf.reduce_sum(penalty), dtype)
    return total / replicas


def _loss_scale(model):
    """What the model's optimizer multiplies a loss by, lest it underflow."""
    optimizer = getattr(model, "optimizer", None)
    return 1.0 if optimizer is None else optimizer.scale_loss(1.0)


def _unrolls(model):
    """Whether to unroll the chain: XLA's loops are slow on a CPU."""
    if distribution.must_unroll(model):
        return True
    return bool(model.jit_compile) and not tf.config.list_physical_devices(
        "GPU"
    )
