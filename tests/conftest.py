import contextlib
import gc
import os
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import atent_keras as ak

# What XLA compiles here runs a few times: being quick to compile counts.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Several processes share a GPU, if there is one.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
# What is compared is float32, which a GPU would round to TF32.
tf.config.experimental.enable_tensor_float_32_execution(False)
# Two logical devices, before TensorFlow starts, for what runs on several.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
GPU = bool(tf.config.list_physical_devices("GPU"))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not GPU:
        pytest.skip("needs a GPU, and TensorFlow sees none")


def pytest_collection_finish():
    """What was imported stays, and what is traced is soon a lot: that both
    are looked through for garbage again and again costs a part of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def on_the_cpu():
    """Everything of a module on one CPU: repeated to the last bit, and beside
    the two devices of `strategy`."""
    with tf.device("CPU:0"):
        yield


@pytest.fixture(scope="session")
def strategy():
    """The one strategy of the two devices, which are CPUs wherever it runs.

    In one process, TensorFlow takes the collectives of a second strategy of
    the same devices for those of the first.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def digits():
    """All 1,797 images of handwritten digits, and their labels."""
    data = load_digits()
    images = (data.images / 16).astype("float32")[..., None]
    return images, data.target


@pytest.fixture
def batch(digits):
    """32 real images and their labels."""
    return digits[0][:32], digits[1][:32]


def small_network(dropout=0.0, batch_norm=False, dtype=None):
    """A convolutional network for the digits, logits out."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, activation="relu", dtype=dtype)(inputs)
    if batch_norm:
        x = layers.BatchNormalization(dtype=dtype)(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(dropout, seed=1)(x)
    return keras.Model(inputs, layers.Dense(10, dtype=dtype)(x))


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def small_loss(norm=None, loss=None, **settings):
    """A loss whose chain takes three steps."""
    norm = norm or ak.threat_models.Linf(0.1)
    own = ("alpha", "loss_iterates", "chain_training", "reduction")
    own = {key: settings.pop(key) for key in own if key in settings}
    settings = {"step_size": 0.05, "num_steps": 3, **settings}
    sampler = ak.attacks.SGLD(norm, **settings)
    return ak.ATENTRegularizedLoss(loss or cross_entropy(), sampler, **own)


def small_model(loss=None, optimizer=None, network=None, **settings):
    """A compiled ATENTModel around the small network."""
    network = network or small_network()
    model = ak.ATENTModel(network.inputs, network.outputs)
    settings = {"metrics": ["accuracy"], **settings}
    model.compile(
        optimizer or keras.optimizers.SGD(0.1),
        loss=loss or small_loss(),
        **settings,
    )
    return model


def largest_difference(one, other):
    """The largest difference between two lists of arrays."""
    return max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0.0))
        for a, b in zip(one, other, strict=True)
    )


def assert_repeats(again, before):
    """The same was computed twice, with the same result, to the last bit.

    On a GPU sums are added up in an order that changes from run to run, so
    that results are the same but for rounding; where a sign depends on that,
    an attack takes a whole step the other way.

    Args:
        again, before: Arrays, or nested structures of them.
    """
    pairs = zip(tf.nest.flatten(again), tf.nest.flatten(before), strict=True)
    for one, other in pairs:
        if GPU:
            difference = np.abs(np.subtract(one, other, dtype="float64"))
            assert np.mean(difference > 1e-5) < 0.01
        else:
            np.testing.assert_array_equal(one, other)


@keras.saving.register_keras_serializable("tests")
class Subclassed(ak.ATENTModel):
    """A model with layers, and a `call`, of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.network = small_network()

    def call(self, x, training=None):
        return self.network(x, training=training)


def trained_model(kind, digits):
    """A briefly trained model, of one of the kinds that are exported."""
    if kind == "subclassed":
        model = Subclassed()
        model.compile("adam", loss=small_loss(), metrics=["accuracy"])
    elif kind == "ema":
        optimizer = keras.optimizers.Adam(0.01, use_ema=True)
        model = small_model(optimizer=optimizer)
    else:
        dtype = "mixed_bfloat16" if kind == "mixed_bfloat16" else None
        model = small_model(network=small_network(dtype=dtype))
    model.fit(digits[0][:640], digits[1][:640], epochs=2, verbose=0)
    return model


@contextlib.contextmanager
def full_disk(size):
    """No file can grow beyond so many bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
