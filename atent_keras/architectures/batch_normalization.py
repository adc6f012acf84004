"""BatchNorm as one operation instead of a dozen."""

import keras
import tensorflow as tf
from keras import layers

_DEFAULTS = {
    "axis": -1,
    "center": True,
    "scale": True,
    "renorm": False,
    "synchronized": False,
}


@keras.saving.register_keras_serializable("atent_keras")
class BatchNormalization(layers.BatchNormalization):
    """Keras's BatchNorm of channels-last images, by TensorFlow's fused kernel.

    The same arithmetic in fewer passes over the memory, which in training mode
    on a CPU is a good part of a residual network's time. One thing differs,
    towards PyTorch: the moving variance follows the batch's unbiased variance,
    `n / (n - 1)` times what Keras's layer takes.

    In float64, which the kernel does not know, Keras's own layer does it all.

    Args:
        **kwargs: Those of `keras.layers.BatchNormalization`, of which `axis`,
            `center`, `scale`, `renorm` and `synchronized` keep their defaults.

    Raises:
        ValueError: If one of those is another than its default, or if what
            comes is no batch of images.

    References:
    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name, default in _DEFAULTS.items():
            value = getattr(self, name, default)
            if value != default:
                raise ValueError(
                    f"`{name}` must be {default}; use "
                    "`keras.layers.BatchNormalization`, which knows others. "
                    f"Received: {name}={value!r}"
                )

    def build(self, input_shape):
        if len(input_shape) != 4:
            raise ValueError(
                "The input must be images, (batch, height, width, channels). "
                f"Received: shape {tuple(input_shape)}"
            )
        super().build(input_shape)

    def call(self, inputs, training=None):
        if inputs.dtype == "float64":  # which the kernel does not know
            return super().call(inputs, training=training)
        training = bool(training and self.trainable)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=self.moving_mean.value,
            variance=self.moving_variance.value,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0 - self.momentum,
            is_training=training,
        )
        if training:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return outputs
