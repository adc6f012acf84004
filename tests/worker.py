"""What each worker process of test_workers.py does."""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import devices
import rivals
from conftest import small_loss
from conftest import small_model
from conftest import small_network

STILL = {"noise_scale": 0.0, "random_start": False}
# Divisible by 2 and by 3.
BATCH_SIZE = 48


def train(strategy, batch_norm, jit_compile):
    """Fits and evaluates; returns weights, and the figures of both."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    with strategy.scope():
        network = small_network(batch_norm=batch_norm)
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        model = small_model(
            small_loss(**STILL), network=network, jit_compile=jit_compile
        )
    data = tf.data.Dataset.from_tensor_slices((x[:480], labels[:480]))
    history = model.fit(
        data.shuffle(480, seed=1).batch(BATCH_SIZE),
        # Not divisible by the workers, nor by the batch size.
        validation_data=(x[480:677], labels[480:677]),
        epochs=2,
        verbose=0,
    ).history
    figures = [value for key in sorted(history) for value in history[key]]
    figures += model.evaluate(x[480:677], labels[480:677], verbose=0)
    return [*model.get_weights(), np.asarray(figures)]


def trained_in_turn(strategy):
    found = []
    for batch_norm, jit_compile in ((False, False), (True, True)):
        found += train(strategy, batch_norm, jit_compile)
    return found


TRAININGS = {
    "digits": trained_in_turn,
    "methods": rivals.trained_in_turn,
}


def main():
    folder, *trainings = sys.argv[1:]
    strategy = devices.strategy("multiworker", 120)
    found = [array for name in trainings for array in TRAININGS[name](strategy)]
    index = strategy.cluster_resolver.task_id
    np.savez(pathlib.Path(folder) / f"{index}.npz", *found)


if __name__ == "__main__":
    main()
