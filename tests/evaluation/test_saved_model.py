import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.evaluation import load_classifier
from conftest import small_network


def saved(folder, **signatures):
    """Saves functions as the signatures of a SavedModel."""
    module = tf.Module()
    module.network = small_network()
    made = {name: make(module.network) for name, make in signatures.items()}
    tf.saved_model.save(module, str(folder), signatures=made)
    return folder


def images(dtype=tf.float32, shape=(None, 8, 8, 1)):
    return tf.TensorSpec(shape, dtype, name="images")


def logits(network):
    return tf.function(
        lambda images: {"logits": network(images)}, input_signature=[images()]
    )


def assert_same_gradient(loaded, network, x):
    """A SavedModel's answers and gradients are the network's."""
    x, found = tf.constant(x), []
    for model in (loaded, network):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = model(x)
            loss = tf.reduce_sum(outputs**2)
        found.append((outputs, tape.gradient(loss, x)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("writer", ["keras", "export_classifier"])
def test_what_is_exported_is_loaded_with_its_gradient(writer, batch, tmp_path):
    network = small_network(dropout=0.5, batch_norm=True)
    if writer == "keras":
        network.export(tmp_path / "saved", verbose=False)
    else:
        labels = [str(i) for i in range(10)]
        ak.export_classifier(network, tmp_path / "saved", labels=labels)
    loaded = load_classifier(tmp_path / "saved")
    expected = {"keras": "serving_default", "export_classifier": "logits"}
    assert loaded.signature == expected[writer]
    assert_same_gradient(loaded, network, batch[0])
    assert len(loaded.variables) >= len(network.weights)


def test_the_only_fitting_signature_is_taken(batch, tmp_path):
    def classes(network):
        return tf.function(
            lambda images: {"classes": tf.argmax(network(images), axis=-1)},
            input_signature=[images()],
        )

    folder = saved(tmp_path / "saved", answer=classes, scores=logits)
    loaded = load_classifier(folder)
    assert loaded.signature == "scores"
    assert loaded(batch[0].astype("float64")).shape == (32, 10)


def test_of_several_one_has_to_be_named(batch, tmp_path):
    folder = saved(tmp_path / "saved", one=logits, other=logits)
    with pytest.raises(ValueError, match="`signature` must say.*one.*other"):
        load_classifier(folder)
    assert load_classifier(folder, "other").signature == "other"
    with pytest.raises(
        ValueError, match="must be one of .*Received: .*'third'"
    ):
        load_classifier(folder, "third")


def bytes_only(network):
    return tf.function(
        lambda images: {"logits": network(tf.cast(images, tf.float32))},
        input_signature=[images(tf.uint8)],
    )


def two_results(network):
    return tf.function(
        lambda images: {"logits": network(images), "mean": images},
        input_signature=[images()],
    )


def two_arguments(network):
    return tf.function(
        lambda images, scale: {"logits": network(images * scale)},
        input_signature=[images(), tf.TensorSpec((), tf.float32, name="scale")],
    )


def label(network):
    return tf.function(
        lambda images: {"label": tf.argmax(network(images), axis=-1)},
        input_signature=[images()],
    )


def one_image(network):
    return tf.function(
        lambda images: {"logits": network(images)},
        input_signature=[images(shape=(1, 8, 8, 1))],
    )


def without_gradient(network):
    return tf.function(
        lambda images: {"logits": network(tf.stop_gradient(images))},
        input_signature=[images()],
    )


def no_operation_with_a_gradient(network):
    def classify(images):
        # Counting words has no gradient in TensorFlow.
        levels = tf.histogram_fixed_width_bins(images, [0.0, 1.0])
        return {"logits": network(tf.cast(levels, tf.float32))}

    return tf.function(classify, input_signature=[images()])


@pytest.mark.parametrize(
    "signature, reason",
    [
        (bytes_only, "takes uint8 of shape"),
        (two_results, "gives logits, mean"),
        (two_arguments, "takes 2 arguments"),
        (label, "gives int64 of shape"),
        (one_image, "takes batches of 1 alone"),
        (without_gradient, "has no gradient"),
        (no_operation_with_a_gradient, "has no gradient"),
    ],
)
def test_what_can_not_be_attacked_is_refused(signature, reason, tmp_path):
    folder = saved(tmp_path / "saved", serve=signature)
    error = f"must have a signature that is differentiable.*'serve' {reason}"
    for path in (folder, str(folder)):
        with pytest.raises(ValueError, match=error):
            load_classifier(path)
    attacks = {"FGSM": ak.attacks.FGSM(ak.threat_models.Linf(0.1))}
    data = np.zeros((1, 8, 8, 1), "float32"), [0]
    with pytest.raises(ValueError, match=error):
        ak.evaluate_robustness(folder, data, attacks)


def test_a_model_without_signatures_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    with pytest.raises(ValueError, match="differentiable.* without any"):
        load_classifier(tmp_path / "saved")


def test_folders_without_a_saved_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="SavedModel. Received: .*none"):
        load_classifier(tmp_path / "none")
    small_network().save(tmp_path / "model.keras")
    with pytest.raises(FileNotFoundError, match="load_model` loads this file"):
        load_classifier(tmp_path / "model.keras")


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables.index", "variables.data"]
)
def test_a_damaged_saved_model_is_refused(name, tmp_path):
    small_network().export(str(tmp_path), verbose=False)
    (file,) = tmp_path.rglob(f"{name}*")
    whole = file.read_bytes()
    error = f"whole SavedModel. Received: {tmp_path}, which TensorFlow cannot"
    for torn in (b"", whole[: len(whole) // 2], b"\x80\xff" * 50):
        file.write_bytes(torn)
        with pytest.raises(ValueError, match=error):
            load_classifier(tmp_path)
    file.write_bytes(whole)
    load_classifier(tmp_path)


def test_probabilities_of_a_saved_model_are_refused(batch, tmp_path):
    softmax = keras.Sequential([small_network(), keras.layers.Softmax()])
    softmax.export(tmp_path / "saved", verbose=False)
    attacks = {"FGSM": ak.attacks.FGSM(ak.threat_models.Linf(0.1))}
    with pytest.raises(ValueError, match="outputs are probabilities"):
        ak.evaluate_robustness(tmp_path / "saved", batch, attacks)
