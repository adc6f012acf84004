"""Draws what robust training does to a decision boundary, in two dimensions.

    python examples/decision_boundary.py

The fields of a board of 3 x 3 have two classes, as on a chessboard, and a few
points lie in each, so far from its edges that balls around them do not meet
those of the other class. A small network learns them plainly, by adversarial
training with PGD, and by ATENT, and is attacked at fresh points.
"""

import pathlib
import time

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

import atent_keras as ak
from atent_keras import plots

FIELDS = 3  # along each side of the unit square
EDGE = 0.06  # no point is closer to the edge of its field

FLAGS = flags.FLAGS
flags.DEFINE_enum("norm", "linf", ["linf", "l2"], "Norm of the ball.")
flags.DEFINE_float("epsilon", 0.05, "Radius of the ball.", 0.001, EDGE)
flags.DEFINE_integer(
    "epochs",
    20,
    "Epochs of each training, each 25 times over the points.",
    lower_bound=1,
)
flags.DEFINE_integer("points", 90, "Points to train on.", lower_bound=FIELDS**2)
flags.DEFINE_integer("seed", 0, "Seed of everything random.", 0, 2**32 - 1)
flags.DEFINE_string("output", "decision_boundary.png", "The picture to write.")


def board(count, seed):
    """Points of the board, spread over its fields, and their classes."""
    place = np.arange(count)
    fields = np.stack([place % FIELDS, place // FIELDS % FIELDS], axis=1)
    within = np.random.default_rng(seed).uniform(
        EDGE, 1 / FIELDS - EDGE, (count, 2)
    )
    x = (fields / FIELDS + within).astype("float32")
    return x, fields.sum(axis=1) % 2


def train(data, loss):
    """Trains a multilayer perceptron."""
    keras.utils.set_random_seed(FLAGS.seed)
    network = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Rescaling(8.0, -4.0),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(2),
        ]
    )
    if isinstance(loss, ak.ATENTRegularizedLoss):
        network = ak.ATENTModel(network.inputs, network.outputs)
    # All points are a batch. With one of them an epoch, and an execution,
    # most of the time would go to what Keras does in between.
    steps = 25
    network.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(1e-2, steps * FLAGS.epochs)
        ),
        loss=loss,
        steps_per_execution=steps,
    )
    batches = tf.data.Dataset.from_tensors(data).repeat(steps)
    network.fit(batches, epochs=FLAGS.epochs, shuffle=False, verbose=0)
    return network


def losses(threat_model):
    """What the networks are trained by, by name."""
    base = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    settings = {"step_size": FLAGS.epsilon / 4, "num_steps": 10}
    sgld = ak.attacks.SGLD(threat_model, **settings)
    # Adversarial training with PGD is the limit of a chain without noise, of
    # which the last point alone counts; it starts where SGLD does.
    pgd = ak.attacks.SGLD(threat_model, noise_scale=0.0, **settings)
    return {
        "plain": base,
        "PGD": ak.ATENTRegularizedLoss(base, pgd, alpha=1.0, loss_iterates=1),
        "ATENT": ak.ATENTRegularizedLoss(base, sgld),
    }


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    matplotlib.use("Agg")  # a file is all it draws on
    start = time.time()
    output = pathlib.Path(FLAGS.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    norms = {"linf": ak.threat_models.Linf, "l2": ak.threat_models.L2}
    threat_model = norms[FLAGS.norm](FLAGS.epsilon)
    attack = ak.attacks.PGD(threat_model, num_steps=40)
    training, test = (
        board(FLAGS.points, FLAGS.seed),
        board(1800, FLAGS.seed + 1),
    )
    print(
        f"{len(training[0])} points for training, {len(test[0])} for the "
        f"test, {attack}, seed {FLAGS.seed}"
    )
    print("network   clean  PGD-40   (accuracy in %)", flush=True)
    networks = {}
    for name, loss in losses(threat_model).items():
        network = train(training, loss)
        report = ak.evaluate_robustness(
            network,
            test,
            {"PGD-40": attack},
            FLAGS.seed,
            checks=None,
            verbose=0,
        )
        clean = 100 * report.clean_accuracy
        robust = 100 * report.robust_accuracy["PGD-40"]
        print(f"{name:<8} {clean:6.1f}  {robust:6.1f}", flush=True)
        title = f"{name}\nclean {clean:.1f} %, PGD-40 {robust:.1f} %"
        networks[title] = network
    figure = plots.decision_boundaries(
        networks, *training, threat_model=threat_model
    )
    figure.savefig(output, dpi=120)
    print(f"\n{time.time() - start:.0f} s. Drawn into {output}")


if __name__ == "__main__":
    app.run(main)
