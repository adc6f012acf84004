"""A network as a pure function, for steps that compile and are repeated."""

from typing import NamedTuple

import keras
import tensorflow as tf

from atent_keras import checks
from atent_keras import distribution

# A power of two, so that dividing by it again loses nothing.
_LOSS_SCALE = 2.0**8


class Pass(NamedTuple):
    """What one pass of a network gives.

    Attributes:
        y_pred: The outputs, `(batch, classes)`, in the loss's dtype.
        state: The new values of the model's `non_trainable_variables`.
        penalties: List of regularization losses.
    """

    y_pred: tf.Tensor
    state: list
    penalties: list


class Network:
    """A Keras model with given weights; its variables are left alone.

    Like `model.stateless_call`, but through `__call__`, which casts under
    mixed precision.

    Args:
        model: A built Keras model.
        weights: Values of `model.trainable_variables`.
        dtype: The dtype of the outputs.

    Call arguments:
        x: Images, `(batch, ...)`.
        state: Values of `model.non_trainable_variables`.
        training: Boolean, the mode of the pass.

    Returns (of a call):
        A `Pass`.
    """

    def __init__(self, model, weights, dtype):
        self.model, self.weights, self.dtype = model, weights, dtype

    def __call__(self, x, state, training):
        model = self.model
        trainable = zip(model.trainable_variables, self.weights)
        other = model.non_trainable_variables
        with keras.StatelessScope(
            state_mapping=[*trainable, *zip(other, state)], collect_losses=True
        ) as scope:
            y_pred = checks.call(model, x, training)
            penalties = model.losses
        state = [scope.get_current_value(variable) for variable in other]
        return Pass(tf.cast(y_pred, self.dtype), state, penalties)

    @property
    def unroll(self):
        """Whether to unroll chains: XLA's loops are slow on a CPU."""
        if distribution.must_unroll(self.model):
            return True
        return bool(
            self.model.jit_compile
        ) and not tf.config.list_physical_devices("GPU")

    @property
    def loss_scale(self):
        """What losses are multiplied by, lest gradients underflow.

        That is what the optimizer has found to be right, if it looks for it.
        """
        if self._scaler is None:
            return _LOSS_SCALE
        return self._scaler.scale_loss(1.0)

    def without_overflow(self, gradient):
        """Returns a gradient that points or weights can move along.

        An optimizer that looks for the right scale skips steps whose gradients
        overflow. Points and weights that moved along those would leave NaN in
        BatchNorm's averages, which are not skipped.
        """
        if self._scaler is None:
            return gradient
        return tf.where(tf.math.is_finite(gradient), gradient, 0)

    @property
    def _scaler(self):
        """The optimizer, if it looks for the loss's scale."""
        optimizer = getattr(self.model, "optimizer", None)
        looks = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        return optimizer if looks else None
