import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from conftest import Subclassed
from conftest import cross_entropy
from conftest import small_loss
from conftest import small_model
from conftest import small_network
from conftest import trained_model

KINDS = ("functional", "subclassed", "mixed_bfloat16", "ema")


def png(images):
    levels = tf.cast(tf.round(images * 255), tf.uint8)
    return tf.map_fn(
        tf.io.encode_png,
        levels,
        fn_output_signature=tf.TensorSpec((), tf.string),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_export_answers_as_the_model_does(kind, digits, tmp_path):
    model = trained_model(kind, digits)
    # The digits have 17 grey levels; these are whole numbers of 255.
    images = np.round(digits[0][:300] * 255) / np.float32(255)
    logits = model.predict(images, verbose=0)
    expected = tf.nn.softmax(tf.cast(logits, tf.float32)).numpy()
    tolerance = 1e-2 if kind == "mixed_bfloat16" else 1e-5
    model.export(str(tmp_path / "plain"), verbose=False)
    plain = tf.saved_model.load(str(tmp_path / "plain"))
    np.testing.assert_allclose(
        tf.cast(plain.serve(images), tf.float32), logits, atol=10 * tolerance
    )
    ak.export_classifier(model, tmp_path / "served")
    signatures = tf.saved_model.load(str(tmp_path / "served")).signatures
    requests = {
        "serving_default": images,
        "uint8": np.round(images * 255).astype("uint8"),
        "encoded": png(images),
    }
    for name, request in requests.items():
        answer = signatures[name](images=tf.constant(request))
        difference = np.abs(answer["probabilities"] - expected).max()
        same = np.mean(answer["class_index"] == expected.argmax(-1))
        print(f"\n{kind} {name}: {difference:.1e}, same class {same:.1%}")
        assert difference < tolerance
        assert same > 0.99 if kind == "mixed_bfloat16" else same == 1
        assert answer["label"][0] == str(int(answer["class_index"][0])).encode()


def test_logits_are_there_unless_the_network_gives_probabilities(
    batch, tmp_path
):
    network = small_network()
    ak.export_classifier(network, tmp_path / "m")
    signatures = tf.saved_model.load(str(tmp_path / "m")).signatures
    np.testing.assert_allclose(
        signatures["logits"](images=tf.constant(batch[0]))["logits"],
        network.predict(batch[0], verbose=0),
        atol=1e-5,
    )
    # As smoothing asks for it: far out of the bounds.
    noisy = tf.constant(batch[0] - 7.0)
    np.testing.assert_allclose(
        signatures["logits"](images=noisy)["logits"],
        network.predict(noisy, verbose=0),
        rtol=1e-4,
        atol=1e-4,
    )
    softmax = keras.Sequential([network, keras.layers.Softmax()])
    softmax.compile(loss=keras.losses.SparseCategoricalCrossentropy())
    ak.export_classifier(softmax, tmp_path / "p")
    signatures = tf.saved_model.load(str(tmp_path / "p")).signatures
    assert set(signatures) == {"serving_default", "uint8", "encoded"}


def test_colour_files_of_any_size_are_resized(digits, tmp_path):
    model = trained_model("functional", digits)
    ak.export_classifier(model, tmp_path / "m")
    serve = tf.saved_model.load(str(tmp_path / "m")).signatures["encoded"]
    image = tf.image.resize(digits[0][7], (32, 24), method="nearest")
    colour = tf.cast(tf.repeat(image, 3, axis=-1) * 255, tf.uint8)
    files = tf.stack(
        [
            tf.io.encode_png(colour),
            tf.io.encode_jpeg(colour, quality=100),
            tf.io.encode_png(colour[..., :1]),
        ]
    )
    answer = serve(images=files)["probabilities"]
    small = tf.image.resize(colour[..., :1], (8, 8), antialias=True) / 255
    expected = tf.nn.softmax(model(small[None]))[0]
    for row, tolerance in zip(answer, (1e-2, 5e-2, 1e-5)):
        np.testing.assert_allclose(row, expected, atol=tolerance)


@pytest.mark.parametrize("kind", ["ATENT", "TRADES"])
def test_bounds_of_the_threat_model_are_those_of_the_network(kind, tmp_path):
    threat_model = ak.threat_models.Linf(0.1, bounds=(-1.0, 1.0))
    loss = small_loss(threat_model)
    if kind == "TRADES":
        loss = ak.TRADESLoss(ak.attacks.PGD(threat_model))
    model = small_model(loss=loss)
    ak.export_classifier(model, tmp_path / "m")
    signatures = tf.saved_model.load(str(tmp_path / "m")).signatures
    levels = np.arange(256, dtype="uint8").repeat(64).reshape(256, 8, 8, 1)
    floats = levels.astype("float32") / 127.5 - 1
    np.testing.assert_allclose(
        signatures["uint8"](images=tf.constant(levels))["probabilities"],
        signatures["serving_default"](images=tf.constant(floats))[
            "probabilities"
        ],
        atol=1e-5,
    )


def test_without_bounds_nothing_says_what_bytes_are(tmp_path):
    threat_model = ak.threat_models.Linf(0.1, bounds=None)
    model = small_model(loss=small_loss(threat_model))
    ak.export_classifier(model, tmp_path / "m")
    signatures = tf.saved_model.load(str(tmp_path / "m")).signatures
    assert set(signatures) == {"serving_default", "logits"}
    serve = signatures["serving_default"]
    x = 9 * np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(
        serve(images=tf.constant(x))["probabilities"],
        tf.nn.softmax(model(x)),
        atol=1e-6,
    )
    for value in (np.nan, np.inf):
        with pytest.raises(tf.errors.InvalidArgumentError, match="finite"):
            serve(images=tf.constant(np.full_like(x, value)))


def test_probabilities_are_not_squashed_twice(tmp_path):
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile("sgd", loss="sparse_categorical_crossentropy")
    ak.export_classifier(network, tmp_path / "m")
    serve = tf.saved_model.load(str(tmp_path / "m")).signatures
    x = np.random.default_rng(0).random((3, 8, 8, 1), dtype="float32")
    np.testing.assert_allclose(
        serve["serving_default"](images=tf.constant(x))["probabilities"],
        network(x),
        atol=1e-6,
    )


def tiny_network(units, activation=None, loss=None):
    """Outputs around 0 for images of 2 by 2 pixels."""
    layers = keras.layers
    dense = layers.Dense(units, activation=activation, name="out")
    network = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Flatten(), dense]
    )
    if loss is not None:
        network.compile(loss=loss)
    return network


def binary(from_logits):
    return keras.losses.BinaryCrossentropy(from_logits=from_logits)


@pytest.mark.parametrize(
    "arguments, probabilities",
    [
        # Each class by itself: several may be likely.
        ((3, None, binary(True)), tf.sigmoid),
        ((3, "sigmoid", binary(False)), tf.identity),
        ((3, None, [cross_entropy()]), tf.nn.softmax),
        # Which nobody said.
        ((3, "softmax"), tf.identity),
        ((3, "softmax", "mse"), tf.identity),
        ((3, "sigmoid"), tf.identity),
        ((3, "sigmoid", "mse"), tf.identity),
        ((1, None, {"out": binary(True)}), tf.sigmoid),
        ((1, "sigmoid", binary(False)), tf.identity),
        ((1, None, "hinge"), tf.sigmoid),
        ((1, "sigmoid", "mse"), tf.identity),
        ((1,), tf.sigmoid),
    ],
)
def test_probabilities_are_those_of_the_base_loss(
    arguments, probabilities, tmp_path
):
    network = tiny_network(*arguments)
    x = np.random.default_rng(0).random((6, 2, 2, 1), dtype="float32")
    outputs = network(x)
    expected = probabilities(outputs).numpy()
    single = outputs.shape[1] == 1
    if single:
        expected = np.concatenate([1 - expected, expected], axis=1)
    names = ["no", "yes"] if single else ["a", "b", "c"]
    ak.export_classifier(network, tmp_path / "m", names)
    signatures = tf.saved_model.load(str(tmp_path / "m")).signatures
    answer = signatures["serving_default"](images=tf.constant(x))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    index = expected.argmax(axis=1)
    np.testing.assert_array_equal(answer["class_index"], index)
    np.testing.assert_array_equal(
        answer["label"], np.array(names, "S")[index].astype(object)
    )
    assert ("logits" in signatures) == (probabilities is not tf.identity)
    if single and "logits" in signatures:
        # Two classes, as whoever evaluates the network needs them.
        logits = signatures["logits"](images=tf.constant(x))["logits"]
        np.testing.assert_allclose(logits[:, 1:], outputs, atol=1e-6)
        np.testing.assert_array_equal(logits[:, 0], 0)


@pytest.mark.parametrize("units", [1, 3])
def test_what_has_no_probabilities_is_refused(units, tmp_path):
    network = tiny_network(units, None, "mse")
    with pytest.raises(ValueError, match="a classifier.*model.export"):
        ak.export_classifier(network, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"labels": ["a"]}, ValueError, "10 strings.*labels=.'a'"),
        ({"labels": list(range(10))}, ValueError, "10 strings"),
        ({"image_size": (9, 8)}, ValueError, r"\(8, 8\).*image_size=\(9, 8\)"),
        ({"image_size": (8,)}, ValueError, "`image_size` must be"),
    ],
)
def test_rejects(settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        ak.export_classifier(small_model(), tmp_path / "m", **settings)
    assert list(tmp_path.iterdir()) == []


def test_rejects_an_unbuilt_model(tmp_path):
    with pytest.raises(ValueError, match="must be a built Keras model"):
        ak.export_classifier(Subclassed(), tmp_path / "m")


def test_rejects_what_takes_no_images(tmp_path):
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"Received: a network.*\(None, 4\)"):
        ak.export_classifier(network, tmp_path / "m")


def test_overwrites_on_request_only(tmp_path):
    ak.export_classifier(small_model(), tmp_path / "m")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        ak.export_classifier(small_model(), tmp_path / "m")
    ak.export_classifier(
        small_model(), tmp_path / "m", list("abcdefghij"), overwrite=True
    )
    serve = tf.saved_model.load(str(tmp_path / "m")).signatures["uint8"]
    answer = serve(images=tf.zeros((1, 8, 8, 1), tf.uint8))
    assert answer["label"][0] in [bytes([c]) for c in b"abcdefghij"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_folder_that_came_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    def save(*args, **kwargs):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "theirs").touch()

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(OSError, match="not empty"):
        ak.export_classifier(small_model(), tmp_path / "m")
    assert [path.name for path in tmp_path.rglob("*")] == ["m", "theirs"]


def test_the_old_folder_comes_back_if_the_new_one_cannot(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "old").touch()

    def save(model, path, *args, **kwargs):
        os.rmdir(path)  # which nobody but a fault would

    monkeypatch.setattr(tf.saved_model, "save", save)
    monkeypatch.setattr(pathlib.Path, "chmod", lambda *_: None)
    with pytest.raises(FileNotFoundError):
        ak.export_classifier(small_model(), tmp_path / "m", overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["m", "old"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        ak.export_classifier(small_model(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_strangers_file_runs_no_code(tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda x: x * 2)(inputs)
    x = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    ak.ATENTModel(inputs, x).save(tmp_path / "m.keras")
    with pytest.raises(Exception, match="unsafe|safe_mode"):
        keras.models.load_model(tmp_path / "m.keras")


def test_settings_of_a_later_version_are_named(tmp_path):
    config = small_loss().get_config()
    assert config["version"] == ak.__version__
    config |= {"version": "9.0.0", "novelty": 1}
    with pytest.raises(ValueError, match="those of version 9.0.0.*novelty"):
        ak.ATENTRegularizedLoss.from_config(config)


def test_cross_entropy_is_of_logits():
    # What `export_classifier` relies on to tell logits from probabilities.
    assert ak.base_losses.from_logits(cross_entropy()) is True
