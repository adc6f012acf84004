"""In what precision a network is evaluated, with GPUs that are made up."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import FGSM
from atent_keras.evaluation.precision import precision
from atent_keras.evaluation.precision import tensor_float_32
from atent_keras.threat_models import Linf
from conftest import small_model
from conftest import small_network
from evaluations import Returns
from evaluations import evaluate
from evaluations import linear_network

CONFIG = tf.config.experimental
DATA = np.full((4, 3), 0.5, "float32"), np.zeros(4, int)


@pytest.fixture(autouse=True)
def switch():
    """TensorFlow's switch as it is by default, and afterwards as it was."""
    before = CONFIG.tensor_float_32_execution_enabled()
    CONFIG.enable_tensor_float_32_execution(True)
    yield
    CONFIG.enable_tensor_float_32_execution(before)


@pytest.fixture
def gpu(monkeypatch):
    """Returns a function that makes up a GPU of a compute capability."""

    def make(*capability):
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [0])
        monkeypatch.setattr(
            CONFIG,
            "get_device_details",
            lambda gpu: (
                {"compute_capability": capability} if capability else {}
            ),
        )

    return make


def network():
    return linear_network([1.0, -2.0, 3.0])


def recording():
    """An attack that only writes down how the switch is set, and its list."""
    seen = []

    def found(x):
        seen.append(CONFIG.tensor_float_32_execution_enabled())
        return x

    return Returns(Linf(0.1), found=found), seen


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("settings", [{}, {"allow_tf32": True}], ids=str)
def test_an_evaluation_is_exact_unless_told_otherwise(before, settings):
    CONFIG.enable_tensor_float_32_execution(before)
    attack, seen = recording()
    evaluate(network(), DATA, {"none": attack}, **settings)
    assert seen == [settings.get("allow_tf32", False)]
    assert CONFIG.tensor_float_32_execution_enabled() == before


def test_certificates_too():
    seen = []

    def function(x):
        seen.append(CONFIG.tensor_float_32_execution_enabled())
        return x[:, :2]

    smoothed = ak.SmoothedClassifier(function, 0.1)
    settings = {"num_samples": 50, "selection_samples": 9, "verbose": 0}
    report = ak.certify_robustness(smoothed, DATA, **settings)
    assert not any(seen) and CONFIG.tensor_float_32_execution_enabled()
    said = "seed 0, a function of float32 images;"
    assert said in str(report) and said in report.to_markdown()
    seen.clear()
    ak.certify_robustness(smoothed, DATA, allow_tf32=True, **settings)
    assert seen and all(seen)


def test_the_switch_is_put_back_after_errors():
    with pytest.raises(ZeroDivisionError), tensor_float_32(False):
        1 / 0
    assert CONFIG.tensor_float_32_execution_enabled()


def test_robust_accuracy_leaves_training_as_it_is(batch):
    attack, under_attack = recording()
    in_training = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            now = CONFIG.tensor_float_32_execution_enabled()
            in_training.append(now)

    for allowed in (False, True):
        figure = ak.callbacks.RobustAccuracy(batch, attack, allow_tf32=allowed)
        small_model().fit(
            *batch, epochs=2, verbose=0, callbacks=[figure, Watch()]
        )
    assert in_training == [True] * 4
    assert under_attack == [False, False, True, True]


@pytest.mark.parametrize("allowed", [True, False])
def test_what_xla_compiles_is_exact_too(allowed):
    """XLA takes the switch's state when it compiles."""
    with tensor_float_32(allowed):
        product = tf.function(lambda x: x @ x, jit_compile=True)
        text = product.experimental_get_compiler_ir(tf.eye(2))("hlo")
    assert ("operand_precision={highest,highest}" in text) != allowed


def mixed_at_the_front():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.Sequential([layers.Dense(4, dtype="mixed_bfloat16")]),
            layers.Activation("relu", dtype="float64"),
            layers.Dense(2, dtype="float32"),
        ]
    )


@pytest.mark.parametrize(
    "make, expected, rounded",
    [
        (network, "float32", True),
        (lambda: small_network(dtype="float64"), "float64", False),
        (lambda: small_network(dtype="bfloat16"), "bfloat16", False),
        (
            lambda: small_network(dtype="mixed_bfloat16"),
            "mixed_bfloat16",
            False,
        ),
        (mixed_at_the_front, "float32 and mixed_bfloat16", True),
        (lambda: keras.layers.Rescaling(2.0), "float32", True),
        (lambda: tf.identity, "a function of float32 images", True),
    ],
    ids=["float32", "float64", "bfloat16", "mixed", "two", "bare", "function"],
)
def test_its_name(make, expected, rounded, gpu):
    model = make()
    with tensor_float_32(True):
        assert precision(model) == expected, "without a GPU"
        for old in ((), (7, 5)):
            gpu(*old)
            assert precision(model) == expected, "on an old one"
        gpu(8, 0)
        assert precision(model) == expected + " with TF32" * rounded
    with tensor_float_32(False):
        assert precision(model) == expected


def test_reports_say_it_and_a_folder_keeps_to_it(gpu, tmp_path):
    gpu(9, 0)
    one, attacks = network(), {"FGSM": FGSM(Linf(0.1))}

    def run(**settings):
        return evaluate(one, DATA, attacks, folder=tmp_path, **settings)

    rounded = run(allow_tf32=True)
    assert rounded.precision == "float32 with TF32"
    assert "seed 0, float32 with TF32\n" in str(rounded)
    assert "seed 0, float32 with TF32, atent" in rounded.to_markdown()
    assert json.loads(rounded.to_json())["precision"] == rounded.precision
    with pytest.raises(
        ValueError,
        match="precision is float32 with TF32 there, float32 now",
    ):
        run()
    assert run(allow_tf32=True).robust_accuracy == rounded.robust_accuracy
    exact = evaluate(one, DATA, attacks)
    assert exact.precision == "float32"
    caption = str(ak.RobustnessComparison({"a": exact, "b": exact}))
    assert "seed 0, float32\n" in caption
    caption = str(ak.RobustnessComparison({"a": exact, "b": rounded}))
    assert "seed 0, float32 (a), float32 with TF32 (b)\n" in caption


@pytest.mark.parametrize("value", [None, 1, "no"])
def test_it_is_a_flag(value):
    message = "`allow_tf32` must be True or False. Received: allow_tf32="
    attacks = {"FGSM": FGSM(Linf(0.1))}
    with pytest.raises(ValueError, match=message):
        evaluate(network(), DATA, attacks, allow_tf32=value)
    with pytest.raises(ValueError, match=message):
        ak.callbacks.RobustAccuracy(DATA, allow_tf32=value)
