"""What only a GPU shows: `python -m pytest -m gpu`."""

import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import scripts
from atent_keras.attacks import APGD
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.attacks import DeepFool
from atent_keras.attacks import Square
from atent_keras.evaluation.precision import precision
from atent_keras.evaluation.precision import tensor_float_32
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import largest_difference
from conftest import small_loss
from conftest import small_model
from conftest import small_network
from evaluations import evaluate

pytestmark = pytest.mark.gpu

DEVICE = "GPU:0"
SCRIPT = pathlib.Path(__file__).with_name("gpu_process.py")
STILL = {"noise_scale": 0.0, "random_start": False}


def wide_network():
    """Wide enough for the units that round to TF32 to be worth it."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((16, 16, 32)),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(128),
        ]
    )


def answers(device, jit_compile=None):
    """Outputs and gradients, in a function of its own on some device.

    The biases' are left out: they are long sums that cancel.
    """
    with tf.device(device):
        network = wide_network()
        kernels = [one for one in network.weights if len(one.shape) > 1]
        x = tf.constant(np.random.default_rng(0).normal(size=(64, 16, 16, 32)))

        @tf.function(jit_compile=jit_compile)
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = network(x)
                value = tf.reduce_mean(outputs**2)
            return outputs, *tape.gradient(value, [x, *kernels])

        return [part.numpy() for part in run(tf.cast(x, "float32"))]


def relative_error(found, expected):
    """The largest error of several arrays, in units of their lengths."""
    return max(
        np.linalg.norm(one - other) / np.linalg.norm(other)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("jit_compile", [None, True], ids=["graph", "xla"])
def test_float32_is_that_of_the_cpu(jit_compile):
    """Also where the same convolutions were computed in TF32 before."""
    expected = answers("CPU:0")
    with tensor_float_32(True):
        rounded = answers(DEVICE, jit_compile)
        rounds = "TF32" in precision(wide_network())
    exact = answers(DEVICE, jit_compile)
    assert relative_error(exact, expected) < 1e-5
    if rounds:
        assert relative_error(rounded, expected) > 1e-5


@pytest.fixture(scope="module")
def trained(digits):
    keras.utils.set_random_seed(0)
    network = small_network()
    network.compile("adam", cross_entropy())
    network.fit(digits[0][:1000], digits[1][:1000], epochs=5, verbose=0)
    return network


@pytest.fixture
def modes():
    """Returns a function that gives what another does, as graph and by XLA."""

    def both(run):
        found = []
        for xla in (False, True):
            ak.config.set_jit_compile(xla)
            found.append(run())
        return found

    yield both
    ak.config.set_jit_compile("auto")


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(Linf(0.1)),
        PGD(Linf(0.1), num_steps=10, random_start=False),
        PGD(L2(0.5), num_steps=10, random_start=False),
        SGLD(L2(0.5), step_size=0.1, num_steps=10, gamma=0.05, **STILL),
        DeepFool(L2(0.5)),
    ],
    ids=repr,
)
def test_attacks_by_xla_are_those_of_the_graph(attack, trained, digits, modes):
    x, y = digits[0][1000:1200], digits[1][1000:1200]
    graph, xla = modes(lambda: attack(trained, x, y, seed=0).numpy())
    # A gradient of nearly zero may change its sign by rounding.
    assert np.mean(np.abs(xla - graph) > 1e-4) < 1e-2


@pytest.mark.parametrize(
    "attack", [APGD(Linf(0.1), 20), Square(Linf(0.1), 100)], ids=repr
)
def test_so_are_those_that_draw_other_numbers(attack, trained, digits, modes):
    data = digits[0][1000:1200], digits[1][1000:1200]

    def accuracy():
        report = evaluate(trained, data, {"attack": attack})
        return report.robust_accuracy["attack"]

    graph, xla = modes(accuracy)
    assert abs(graph - xla) <= 0.03


def test_a_step_by_xla_is_that_of_the_graph(digits):
    x, y = digits[0][:320], digits[1][:320]
    found = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = small_model(
            small_loss(loss_iterates=2, **STILL),
            network=small_network(batch_norm=True),
            jit_compile=jit_compile,
        )
        before = model.get_weights()
        model.fit(x, y, shuffle=False, verbose=0)
        found.append(model.get_weights())
    graph, xla = found
    assert largest_difference(graph, before) > 0.01
    assert largest_difference(graph, xla) < 1e-3


def test_mixed_bfloat16(digits):
    model = small_model(
        network=small_network(batch_norm=True, dtype="mixed_bfloat16")
    )
    assert model.jit_compile  # which "auto" is here
    x, y = digits[0][:640], digits[1][:640]
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    report = evaluate(model, (x, y), {"FGSM": FGSM(Linf(0.1))})
    assert report.precision == "mixed_bfloat16"


def test_evaluations_are_exact_while_training_rounds(digits, trained):
    data = digits[0][1000:1200], digits[1][1000:1200]
    attacks = {"PGD": PGD(Linf(0.1), num_steps=10, random_start=False)}
    with tensor_float_32(True):
        report = evaluate(trained, data, attacks)
        assert report.precision == "float32"
        rounded = evaluate(trained, data, attacks, allow_tf32=True)
    assert rounded.precision.startswith("float32")
    with tf.device("CPU:0"):
        own = small_network()
        own.set_weights(trained.get_weights())
        own.compile(loss=cross_entropy())
        expected = evaluate(own, data, attacks)
    assert report.clean_accuracy == expected.clean_accuracy
    assert report.worst_case_accuracy == pytest.approx(
        expected.worst_case_accuracy, abs=0.011
    )


def test_memory_does_not_grow_with_the_steps(trained, digits):
    x, y = digits[0][:1000], digits[1][:1000]
    peaks = []
    for num_steps in (5, 50):
        attack = PGD(Linf(0.1), num_steps=num_steps)
        attack(trained, x, y)  # compiles
        tf.config.experimental.reset_memory_stats(DEVICE)
        attack(trained, x, y)
        info = tf.config.experimental.get_memory_info(DEVICE)
        peaks.append(info["peak"])
    assert 0 < peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("what", ["twice", "two"])
def test_what_is_set_before_tensorflow_starts(what):
    """Op determinism: the same bits twice. One GPU as two: trained as one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    device = DEVICE.partition(":")[0]
    code, output = scripts.run(
        SCRIPT, what, device, CUDA_VISIBLE_DEVICES=visible
    )
    assert code == 0, output
