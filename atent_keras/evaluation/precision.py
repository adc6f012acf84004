"""In what precision a network is evaluated, and how a report says so."""

import contextlib

import keras
import tensorflow as tf

from atent_keras import checks


@contextlib.contextmanager
def tensor_float_32(allow_tf32):
    """Lets float32 be computed as TF32, or not, and then as it was before.

    On GPUs from Ampere on, TensorFlow rounds what convolutions and matrix
    products of float32 are given to 10 bits of mantissa, unless told not to.
    On other devices the switch changes nothing. It is one for the process.

    Args:
        allow_tf32: Boolean.

    Raises:
        ValueError: If it is none.
    """
    checks.require_flag(allow_tf32=allow_tf32)
    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(bool(allow_tf32))
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


def precision(model):
    """Returns in what a network computes now, a string for reports.

    That is the dtype policies of the layers that have weights, such as
    `"mixed_bfloat16"`; `"float32 with TF32"` where float32 is rounded to TF32.
    Of a function all that is known is the dtype of its images.

    Args:
        model: A Keras model, or a callable from images to outputs.
    """
    if isinstance(model, keras.Layer):
        layers = list(_innermost(model))
        layers = [layer for layer in layers if layer.weights] or layers
        policies = [layer.dtype_policy for layer in layers]
        name = " and ".join(sorted({policy.name for policy in policies}))
        dtypes = {policy.compute_dtype for policy in policies}
    else:
        dtypes = {keras.config.floatx()}
        name = f"a function of {keras.config.floatx()} images"
    return f"{name} with TF32" if "float32" in dtypes and _rounds() else name


def _innermost(layer):
    """Yields the layers that a layer consists of in the end."""
    inner = getattr(layer, "layers", ())
    for one in inner:
        yield from _innermost(one)
    if not inner:
        yield layer


def _rounds():
    """Whether float32 is rounded to TF32 now, on a device that is there."""
    config = tf.config.experimental
    return config.tensor_float_32_execution_enabled() and any(
        config.get_device_details(gpu).get("compute_capability", (0,)) >= (8,)
        for gpu in tf.config.get_visible_devices("GPU")
    )
