r"""Trains on one device, on two, and in two and three processes; compares.

    python benchmarks/distribution.py             # the table
    python benchmarks/distribution.py --overhead  # what a strategy costs alone

Scikit-learn's digits, a convolution and a dense layer with or without
BatchNormalization, 20 steps of SGD, a global batch of 96, a chain of 3 steps.
For the differences there is no noise; a difference in training mode of
BatchNormalization is expected, since each replica normalizes its own part.
All devices and processes are those of this machine's CPU.
"""

import argparse
import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

import atent_keras as ak

STEPS = 20
BATCH_SIZE = 96  # divisible by 2 and by 3
STILL = {"noise_scale": 0.0, "random_start": False}
NETWORKS = ("without", "inference", "training")  # BatchNormalization
PLACES = {
    "1 device": ("none", 1),
    "1 replica": ("one", 1),
    "2 logical devices": ("mirrored", 1),
    "2 processes": ("multiworker", 2),
    "3 processes": ("multiworker", 3),
}


class Clock(keras.callbacks.Callback):
    """The wall time and the processor time of each step."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append((time.perf_counter(), time.process_time()))

    def milliseconds(self):
        """Medians over all steps but the first three."""
        steps = np.diff(self.ends, axis=0)[2:]
        return [1000 * statistics.median(column) for column in steps.T]


def build(strategy, network, jit_compile, **settings):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    norm = ak.threat_models.Linf(settings.pop("epsilon", 0.1))
    with strategy.scope():
        inputs = keras.Input((8, 8, 1))
        x = layers.Conv2D(16, 3, activation="relu")(inputs)
        if network != "without":
            normalize = layers.BatchNormalization()
            normalize.trainable = network == "training"
            x = normalize(x)
        x = layers.Dense(10)(layers.Flatten()(x))
        model = ak.ATENTModel(inputs, x)
        sampler = ak.attacks.SGLD(norm, 0.05, num_steps=3, **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(
            keras.optimizers.SGD(0.1),
            ak.ATENTRegularizedLoss(loss, sampler),
            jit_compile=jit_compile,
        )
    return model


def correlation(strategy, jit_compile):
    """The largest among the noises of replicas and of two steps."""
    model = build(strategy, "without", jit_compile, noise_scale=1.0)
    x, y = tf.fill((64, 8, 8, 1), 0.5), tf.zeros((64,), tf.int32)

    def step_of_replica():
        # The same images on every replica: only the noise differs.
        step = model.loss.value_and_gradients(
            model, x, y, seed=model._step_seed()
        )
        model.optimizer.apply_gradients(
            zip(step.gradients, model.trainable_variables)
        )
        return step.x_adv

    run = tf.function(lambda: strategy.run(step_of_replica))
    draws = [
        np.asarray(strategy.gather(run(), axis=0)).reshape(
            strategy.num_replicas_in_sync, -1
        )
        for _ in range(2)
    ]
    found = np.corrcoef(np.concatenate(draws))
    return float(np.abs(found - np.eye(len(found))).max())


def strategy_of(place):
    if place == "none":
        return tf.distribute.get_strategy()
    if place == "multiworker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("CPU")
    count = 1 if place == "one" else 2
    return tf.distribute.MirroredStrategy(
        [device.name for device in devices[:count]]
    )


def work(place, output):
    """One process of a place: trains all networks and writes what it saw."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()]
        * (2 if place == "mirrored" else 1),
    )
    strategy = strategy_of(place)
    (x, y), _ = ak.datasets.digits()
    x, y = np.tile(x, (2, 1, 1, 1)), np.tile(y, 2)
    x, y = x[: STEPS * BATCH_SIZE], y[: STEPS * BATCH_SIZE]
    rows, weights = {}, {}
    for jit_compile in (False, True):
        related = correlation(strategy, jit_compile)
        for network in NETWORKS:
            model = build(strategy, network, jit_compile, **STILL)
            clock = Clock()
            model.fit(
                x,
                y,
                batch_size=BATCH_SIZE,
                shuffle=False,
                verbose=0,
                callbacks=[clock],
            )
            key = f"{network},{'XLA' if jit_compile else 'graph'}"
            rows[key] = (*clock.milliseconds(), related)
            for index, value in enumerate(model.get_weights()):
                weights[f"{key},{index}"] = value
    np.savez(output + ".npz", **weights)
    pathlib.Path(output + ".json").write_text(json.dumps(rows))


def launch(place, count, output):
    """Runs a place in as many processes; returns what the first one saw."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        cluster = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    processes = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": cluster}, "task": task}
        environment = {"TF_CONFIG": json.dumps(config)} if count > 1 else {}
        processes.append(
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    f"--place={place}",
                    f"--output={output}-{index}",
                ],
                env={**os.environ, **environment},
            )
        )
    if any([process.wait() for process in processes]):
        raise RuntimeError(f"A process of {place} failed")
    results = []
    for index in range(count):
        with np.load(f"{output}-{index}.npz") as found:
            results.append(dict(found))
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(value, other[name])
    return json.loads(pathlib.Path(f"{output}-0.json").read_text()), results[0]


def table():
    print(
        "| where | BatchNorm | compiler | largest weight difference "
        "| correlation of noise | ms a step | processor ms |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    reference = None
    with tempfile.TemporaryDirectory() as folder:
        for name, (place, count) in PLACES.items():
            rows, weights = launch(
                place, count, str(pathlib.Path(folder) / place)
            )
            reference = reference or weights
            for key, (wall, processor, related) in rows.items():
                network, compiler = key.split(",")
                difference = max(
                    float(np.abs(value - reference[index]).max())
                    for index, value in weights.items()
                    if index.startswith(key)
                )
                print(
                    f"| {name} | {network} | {compiler} | {difference:.1e} "
                    f"| {related:.3f} | {wall:.1f} | {processor:.1f} |",
                    flush=True,
                )


def small_cnn(place):
    strategy = strategy_of(place)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = ak.architectures.SmallCNN()
        model = ak.ATENTModel(network.inputs, network.outputs)
        model.compile(
            keras.optimizers.SGD(0.01),
            ak.ATENTRegularizedLoss.from_preset("mnist_linf", num_steps=10),
            jit_compile=False,
        )
    return model


def overhead(rounds=4, steps=6):
    """Steps of SmallCNN with and without a strategy, in turn."""
    (x, y), _ = ak.datasets.digits()
    x = np.pad(x.repeat(3, 1).repeat(3, 2), [(0, 0), (2, 2), (2, 2), (0, 0)])
    x, y = x[: steps * 128], y[: steps * 128]
    seen = {"no strategy": [], "one replica": [], "deterministic": []}

    def measure(**models):
        for turn in range(rounds + 1):
            for name, model in models.items():
                clock = Clock()
                model.fit(x, y, batch_size=128, verbose=0, callbacks=[clock])
                if turn:  # the first one compiles
                    steps_taken = np.diff(clock.ends, axis=0)
                    seen[name.replace("_", " ")].extend(steps_taken)

    measure(no_strategy=small_cnn("none"), one_replica=small_cnn("one"))
    # There is no way back from this.
    tf.config.experimental.enable_op_determinism()
    measure(deterministic=small_cnn("none"))
    print("| SmallCNN, 10 steps, batch 128 | ms a step | processor ms |")
    print("|---|---|---|")
    for name, times in seen.items():
        wall, processor = 1000 * np.median(times, axis=0)
        print(f"| {name} | {wall:.1f} | {processor:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--place", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.place:
        work(arguments.place, arguments.output)
    elif arguments.overhead:
        overhead()
    else:
        table()


if __name__ == "__main__":
    main()
