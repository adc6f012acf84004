"""Trains one network twice, plainly and by ATENT, and attacks both.

    python examples/quickstart.py

The data are scikit-learn's 1,797 real images of handwritten digits, so there
is nothing to download. Everything it makes lands in `quickstart_run`: both
networks as `.keras` files, the robust one as a SavedModel, a picture of
adversarial images and a curve of accuracy over the attack's radius.
"""

import pathlib
import time

import keras
import numpy as np
from absl import app
from absl import flags
from absl import logging

import atent_keras as ak
import pictures
from pictures import pyplot

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 40, "Epochs of each training.", lower_bound=1)
flags.DEFINE_float("epsilon", 0.15, "Radius of the l_inf ball.", 0.0, 1.0)
flags.DEFINE_integer("seed", 0, "Seed of everything random.")
flags.DEFINE_string("output_dir", "quickstart_run", "Where the files go.")

COLORS = {"plain": "#D55E00", "ATENT": "#0072B2"}  # for colour-blind eyes


def train(data, loss=None):
    """Trains SmallCNN; with a loss of ATENT robustly, without it plainly."""
    keras.utils.set_random_seed(FLAGS.seed)
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    if loss is not None:
        network = ak.ATENTModel(network.inputs, network.outputs)
    x, y = data
    steps = FLAGS.epochs * -(-len(x) // 64)
    network.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(2e-3, steps)
        ),
        loss=loss
        or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    network.fit(x, y, batch_size=64, epochs=FLAGS.epochs)
    return network


def draw_curve(networks, data, path):
    """Robust accuracy of both networks over the radius of the attack."""
    figure, axis = pyplot.subplots(figsize=(6, 4))
    radii = np.linspace(0, 2 * FLAGS.epsilon, 9)
    for (name, network), marker in zip(networks.items(), "so"):
        accuracies = []
        for radius in radii:
            threat_model = ak.threat_models.Linf(float(radius))
            attack = ak.attacks.PGD(threat_model, num_steps=40)
            report = ak.evaluate_robustness(network, data, {"PGD": attack})
            accuracies.append(100 * report.robust_accuracy["PGD"])
        axis.plot(
            radii, accuracies, marker=marker, color=COLORS[name], label=name
        )
    axis.axvline(FLAGS.epsilon, color="gray", linestyle=":", label="trained at")
    axis.set_xlabel("radius $\\epsilon$ of the l_inf ball")
    axis.set_ylabel("accuracy under PGD-40 (%)")
    axis.set_ylim(0, 100)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    start = time.time()
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    training, test = ak.datasets.digits()
    threat_model = ak.threat_models.Linf(FLAGS.epsilon)
    sampler = ak.attacks.SGLD(
        threat_model, step_size=FLAGS.epsilon / 4, num_steps=10
    )
    loss = ak.ATENTRegularizedLoss(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        sampler,
        loss_iterates=2,
    )
    print("Training plainly", flush=True)
    plain = train(training)
    print(f"Training by {loss}", flush=True)
    robust = train(training, loss)
    networks = {"plain": plain, "ATENT": robust}

    attack = ak.attacks.PGD(threat_model, num_steps=40)
    print(f"\n{len(test[0])} test images, {attack}, seed {FLAGS.seed}")
    print("network   clean  PGD-40   (accuracy in %)")
    for name, network in networks.items():
        report = ak.evaluate_robustness(
            network, test, {"PGD-40": attack}, seed=FLAGS.seed
        )
        clean, robust_accuracy = (
            100 * report.clean_accuracy,
            100 * report.robust_accuracy["PGD-40"],
        )
        print(f"{name:<8} {clean:6.1f}  {robust_accuracy:6.1f}")

    x, y = (part[:8] for part in test)
    pictures.draw_images(
        networks,
        attack,
        x,
        y,
        folder / "images.png",
        f"PGD-40, $\\epsilon$ = {FLAGS.epsilon}",
        seed=FLAGS.seed,
    )
    draw_curve(networks, test, folder / "robustness_curve.png")
    for name, network in networks.items():
        network.save(folder / f"{name.lower()}.keras")
    robust.export(str(folder / "saved_model"), verbose=False)
    print(f"\n{time.time() - start:.0f} s. In {folder.resolve()}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}")


if __name__ == "__main__":
    app.run(main)
