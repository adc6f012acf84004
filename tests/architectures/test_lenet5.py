import keras
import numpy as np
import pytest

from atent_keras.architectures import LeNet5


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


def test_parameters_add_up():
    convolutions = (5 * 5 * 1 + 1) * 32 + (5 * 5 * 32 + 1) * 64
    # 28 -> 14 -> 7, 64 channels.
    dense = (7 * 7 * 64 + 1) * 1024 + (1024 + 1) * 10
    assert LeNet5().count_params() == convolutions + dense == 3_274_634


@pytest.mark.parametrize(
    "input_shape, classes", [((28, 28, 1), 10), ((8, 8, 1), 10), ((7, 5, 3), 2)]
)
def test_outputs_one_row_of_logits_per_image(input_shape, classes):
    model = LeNet5(input_shape, classes)
    assert model(images(3, *input_shape)).shape == (3, classes)
    assert model.get_layer("logits").activation is keras.activations.linear


def test_saves_and_loads(tmp_path):
    model = LeNet5((8, 8, 1), name="digits")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.name == "digits"
    x = images(2, 8, 8, 1)
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"input_shape": (28, 28)}, r"Received: input_shape=\(28, 28\)"),
        ({"input_shape": (0, 28, 1)}, r"all positive.*\(0, 28, 1\)"),
        ({"input_shape": (None, None, 1)}, r"\(None, None, 1\)"),
        ({"classes": 0}, "integer, at least 1.*classes=0"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        LeNet5(**arguments)
