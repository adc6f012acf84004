"""What test_gpu.py runs in processes of their own.

python tests/gpu_process.py twice|two GPU
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from atent_keras.attacks import PGD
from atent_keras.threat_models import L2
from conftest import largest_difference
from conftest import small_loss
from conftest import small_model
from conftest import small_network


def data():
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    return x[:320], labels[:320]


def train(network, loss):
    """Returns the model, and the weights that it started from."""
    keras.utils.set_random_seed(0)
    model = small_model(loss, network=network())
    before = model.get_weights()
    model.fit(*data(), epochs=2, shuffle=False, verbose=0)
    return model, before


def twice(_):
    """The same seed gives the same bits under op determinism."""
    tf.config.experimental.enable_op_determinism()
    found = []
    for _ in range(2):
        model, before = train(
            lambda: small_network(dropout=0.5, batch_norm=True),
            small_loss(noise_scale=0.1),
        )
        assert largest_difference(model.get_weights(), before) > 0.01
        x_adv = PGD(L2(0.5), num_steps=10)(model, *data(), seed=0)
        found.append([*model.get_weights(), x_adv])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def two(kind):
    """One device, as two logical ones, trains as it does alone."""
    if kind == "GPU":
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices(kind)[0],
            [tf.config.LogicalDeviceConfiguration(memory_limit=2048)] * 2,
        )
    loss = small_loss(noise_scale=0.0, random_start=False)
    # NCCL wants a GPU for each replica; TensorFlow takes a ring for these.
    strategy = tf.distribute.MirroredStrategy([f"{kind}:0", f"{kind}:1"])
    with strategy.scope():
        both, before = train(small_network, loss)
    alone, _ = train(small_network, loss)
    assert largest_difference(alone.get_weights(), before) > 0.01
    assert largest_difference(both.get_weights(), alone.get_weights()) < 1e-3


if __name__ == "__main__":
    {"twice": twice, "two": two}[sys.argv[1]](sys.argv[2])
