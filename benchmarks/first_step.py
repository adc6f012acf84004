r"""How long a real backbone takes to start: the first step, and the others.

    pip install "." && python benchmarks/first_step.py

One table for each of the named networks of `keras.applications` (random
weights): plain Keras, and robust losses around the same network, trained by
`fit` on noise. `first step` is the time from `fit` until the first batch is
done: tracing, optimizing and running it. Each row lives in a process of its
own, anew for each round, and the rows are timed in turns; figures are medians.
All of it goes to `first_step.json`, too.
"""

import json
import pathlib
import time

import keras
import numpy as np
import processes
from absl import app
from absl import flags

import atent_keras as ak

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "networks", ["MobileNetV2", "EfficientNetV2B0"], "Of keras.applications."
)
flags.DEFINE_integer("image_size", 96, "Pixels along a side.", lower_bound=32)
flags.DEFINE_integer("batch_size", 8, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer("num_steps", 10, "Steps of the attack.", lower_bound=2)
flags.DEFINE_integer("rounds", 3, "Starts of each row.", lower_bound=1)
flags.DEFINE_string("output", "first_step.json", "JSON file to write.")

PLAIN = "plain Keras"
BATCHES = 6


def losses(num_steps):
    """The rows, by what tables call them."""
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    threat_model = ak.threat_models.Linf(8 / 255)
    step_size = 2.5 * threat_model.epsilon / num_steps
    sampler = ak.attacks.SGLD(threat_model, step_size, num_steps)
    attack = ak.attacks.PGD(threat_model, step_size, num_steps)
    return {
        PLAIN: cross_entropy,
        "ATENT, all iterates": ak.ATENTRegularizedLoss(cross_entropy, sampler),
        "ATENT, K=2": ak.ATENTRegularizedLoss(
            cross_entropy, sampler, loss_iterates=2
        ),
        "PGD training": ak.AdversarialLoss(cross_entropy, attack),
        "TRADES": ak.TRADESLoss(attack),
    }


class Clock(keras.callbacks.Callback):
    """Notes when each batch was done."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())


def start(label, name, image_size, batch_size, num_steps):
    """Returns a function that trains a few steps: seconds of the first one."""
    shape = (image_size, image_size, 3)
    backbone = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=shape, pooling="avg"
    )
    outputs = keras.layers.Dense(10)(backbone.output)
    kind = keras.Model if label == PLAIN else ak.RobustModel
    model = kind(backbone.inputs, outputs)
    model.compile(
        "sgd",
        loss=losses(num_steps)[label],
        metrics=["accuracy"],
        jit_compile=False,
    )
    x = np.random.random((BATCHES * batch_size, *shape)).astype("float32")
    y = np.random.randint(0, 10, len(x))
    clock = Clock()

    def fit():
        began = time.perf_counter()
        model.fit(x, y, batch_size, callbacks=[clock], verbose=0)
        first, *others = np.diff([began, *clock.times])
        return first, np.median(others)

    return {"fit": fit}


def measure(name):
    """Prints a table; returns its rows as dictionaries, by label."""
    settings = FLAGS.image_size, FLAGS.batch_size, FLAGS.num_steps
    found = {label: [] for label in losses(FLAGS.num_steps)}
    for _ in range(FLAGS.rounds):
        for label, pairs in found.items():
            process = processes.Process(start, label, name, *settings)
            pairs.append(process.call("fit"))
            process.close()
    medians = {
        label: np.median(pairs, axis=0) for label, pairs in found.items()
    }
    print(
        f"\n{name}, {FLAGS.image_size} x {FLAGS.image_size}, batch "
        f"{FLAGS.batch_size}, {FLAGS.num_steps} steps\n"
        f"{'':<21}{'first step, s':>14}{'to plain':>9}{'others, ms':>12}"
    )
    for label, (first, other) in medians.items():
        print(
            f"{label:<21}{first:14.1f}{first / medians[PLAIN][0]:9.2f}"
            f"{1e3 * other:12.0f}",
            flush=True,
        )
    return {
        label: {"first_step_seconds": first, "other_steps_seconds": other}
        for label, (first, other) in medians.items()
    }


def main(argv):
    del argv
    results = {name: measure(name) for name in FLAGS.networks}
    text = json.dumps(results, indent=2) + "\n"
    pathlib.Path(FLAGS.output).write_text(text)


if __name__ == "__main__":
    app.run(main)
