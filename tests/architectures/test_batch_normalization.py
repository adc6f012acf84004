import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras.architectures.batch_normalization import BatchNormalization

SHAPE = (8, 5, 6, 3)
COUNT = 8 * 5 * 6  # values of a channel


def pair(**settings):
    """Our layer and Keras's own, with the same weights."""
    layers = [
        kind(momentum=0.9, epsilon=1e-5, **settings)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    ]
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.5, 2.0, 3) for _ in range(4)]
    for layer in layers:
        layer.build((None, *SHAPE[1:]))
        layer.set_weights(values)
    return layers


def images(dtype="float32"):
    return tf.cast(2 + tf.random.stateless_normal(SHAPE, (1, 2)), dtype)


def run(layer, x, training, jit_compile=None):
    @tf.function(jit_compile=jit_compile)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            total = tf.reduce_sum(tf.cast(y, "float32") ** 3)
        return y, *tape.gradient(total, [x, *layer.trainable_variables])

    return run(x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("jit_compile", [None, True])
def test_computes_what_keras_does(training, jit_compile):
    x = images()
    ours, keras_own = (run(one, x, training, jit_compile) for one in pair())
    for one, other in zip(ours, keras_own, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=2e-5 * scale)


def test_moving_statistics_are_those_of_pytorch():
    layer, _ = pair()
    x = images()
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    run(layer, x, training=True)
    flat = x.numpy().reshape(COUNT, 3)
    np.testing.assert_allclose(
        layer.moving_mean, 0.9 * mean + 0.1 * flat.mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
        layer.moving_variance,
        0.9 * variance + 0.1 * flat.var(0, ddof=1),
        rtol=1e-5,
    )


@pytest.mark.parametrize("frozen", [True, False])
def test_inference_leaves_the_statistics_alone(frozen):
    layer, _ = pair()
    layer.trainable = not frozen
    before = layer.moving_mean.numpy()
    # As in Keras, a frozen layer is in inference mode throughout.
    layer(images(), training=frozen)
    np.testing.assert_array_equal(layer.moving_mean, before)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(precision):
    x = images(precision)
    ours, keras_own = (
        run(layer, x, training=True)
        for layer in pair(dtype=f"mixed_{precision}")
    )
    assert ours[0].dtype == precision
    # Eight bits of a mantissa.
    np.testing.assert_allclose(
        tf.cast(ours[0], "float32"),
        tf.cast(keras_own[0], "float32"),
        atol=0.04,
        rtol=0.01,
    )


def test_float64_is_left_to_keras():
    ours, keras_own = (
        run(layer, images("float64"), training=True)
        for layer in pair(dtype="float64")
    )
    assert ours[0].dtype == tf.float64
    np.testing.assert_allclose(ours[0], keras_own[0], rtol=1e-12)


@pytest.mark.parametrize(
    "setting", [{"axis": 1}, {"center": False}, {"synchronized": True}]
)
def test_other_settings_are_refused(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received"):
        BatchNormalization(**setting)


def test_wants_images():
    with pytest.raises(ValueError, match=r"must be images.*shape \(8, 3\)"):
        BatchNormalization()(np.zeros((8, 3), "float32"))


def test_serialization():
    layer, _ = pair()
    config = keras.saving.serialize_keras_object(layer)
    loaded = keras.saving.deserialize_keras_object(config)
    assert type(loaded) is BatchNormalization
    assert loaded.get_config() == layer.get_config()
