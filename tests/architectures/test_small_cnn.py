import keras
import numpy as np
import pytest

from atent_keras.architectures import SmallCNN


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


def test_parameters_add_up():
    # (3*3*1+1)*32 + (3*3*32+1)*32 + (3*3*32+1)*64 + (3*3*64+1)*64
    convolutions = 320 + 9248 + 18496 + 36928
    # 28 -> 26 -> 24 -> 12 -> 10 -> 8 -> 4, 64 channels.
    dense = (4 * 4 * 64 + 1) * 200 + (200 + 1) * 200 + (200 + 1) * 10
    model = SmallCNN()
    assert model.count_params() == convolutions + dense == 312_202
    assert model.get_layer("flatten").output.shape == (None, 1024)


@pytest.mark.parametrize(
    "input_shape, classes, padding",
    [
        ((28, 28, 1), 10, "valid"),
        ((16, 20, 3), 4, "valid"),
        ((8, 8, 1), 10, "same"),
        ((4, 4, 1), 2, "same"),
    ],
)
def test_logits_have_one_row_per_image_and_start_at_zero(
    input_shape, classes, padding
):
    model = SmallCNN(input_shape, classes, padding=padding)
    logits = model(images(3, *input_shape))
    assert logits.shape == (3, classes)
    np.testing.assert_array_equal(logits, np.zeros((3, classes)))


def test_outputs_are_logits():
    model = SmallCNN((8, 8, 1), padding="same")
    logits = model.get_layer("logits")
    assert logits.activation is keras.activations.linear
    logits.bias.assign(np.arange(10) - 5.0)
    np.testing.assert_array_equal(
        model(images(1, 8, 8, 1))[0], np.arange(10) - 5.0
    )


def test_convolutions_start_he_normal():
    kernel = SmallCNN().get_layer("conv4").kernel
    # The standard error of a standard deviation is about s / sqrt(2 n).
    scale, n = np.sqrt(2 / (3 * 3 * 64)), 3 * 3 * 64 * 64
    assert abs(np.std(kernel) - scale) < 5 * scale / np.sqrt(2 * n)


def test_dropout_is_on_in_training_only():
    keras.utils.set_random_seed(0)
    model = SmallCNN((8, 8, 1), dropout=0.5, padding="same")
    model.get_layer("logits").kernel.assign(np.ones((200, 10)))
    x = images(2, 8, 8, 1)
    np.testing.assert_array_equal(model(x), model(x))
    assert np.any(model(x, training=True) != model(x, training=True))


def test_saves_and_loads(tmp_path):
    model = SmallCNN((8, 8, 1), padding="same", name="digits")
    model.get_layer("logits").kernel.assign(images(200, 10))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.name == "digits"
    x = images(2, 8, 8, 1)
    np.testing.assert_array_equal(loaded(x), model(x))


def test_logits_stay_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = SmallCNN((8, 8, 1), padding="same")
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("conv1").compute_dtype == "bfloat16"
    assert model(images(1, 8, 8, 1)).dtype == "float32"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"input_shape": (8, 8, 1)}, r"at least 16.*\(8, 8, 1\)"),
        ({"input_shape": (15, 28, 1)}, r"at least 16.*\(15, 28, 1\)"),
        (
            {"input_shape": (3, 8, 1), "padding": "same"},
            r"at least 4.*\(3, 8, 1\)",
        ),
        ({"input_shape": (28, 28)}, r"Received: input_shape=\(28, 28\)"),
        ({"input_shape": (None, None, 1)}, r"\(None, None, 1\)"),
        ({"padding": "full"}, '"valid" or "same".*full'),
        ({"classes": 0}, "integer, at least 1.*classes=0"),
        ({"dropout": 2}, "rate"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        SmallCNN(**arguments)
