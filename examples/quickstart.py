"""Trains one network twice, plainly and by ATENT, and attacks both.

    python examples/quickstart.py

The data are scikit-learn's 1,797 real images of handwritten digits, so there
is nothing to download. Everything it makes lands in `quickstart_run`: both
networks as `.keras` files, the robust one as a SavedModel, pictures of
adversarial images and curves of accuracy over the attack's radius.
"""

import pathlib
import time

import keras
import matplotlib
from absl import app
from absl import flags
from absl import logging

import atent_keras as ak
from atent_keras import plots

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 40, "Epochs of each training.", lower_bound=1)
flags.DEFINE_float("epsilon", 0.15, "Radius of the l_inf ball.", 0.0, 1.0)
flags.DEFINE_integer("seed", 0, "Seed of everything random.", 0, 2**32 - 1)
flags.DEFINE_string("output_dir", "quickstart_run", "Where the files go.")


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


def attack(share=1.0):
    """The attack in a ball of a share of the radius."""
    threat_model = ak.threat_models.Linf(share * FLAGS.epsilon)
    return ak.attacks.PGD(threat_model, num_steps=40)


def draw_images(network, data, name, path):
    """Clean and adversarial images, with the network's answers."""
    x, y = data
    x_adv = attack()(network, x, y, seed=FLAGS.seed)
    figure = plots.adversarial_images(network, x, x_adv, y)
    figure.suptitle(f"{name}, PGD-40, $\\epsilon$ = {FLAGS.epsilon}")
    figure.savefig(path, dpi=120)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    matplotlib.use("Agg")  # files are all it draws on
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

    attacks = {
        f"PGD-40 at {share:g} epsilon": attack(share)
        for share in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    }
    print(f"\n{len(test[0])} test images, {attack()}, seed {FLAGS.seed}")
    print("network   clean  PGD-40   (accuracy in %)")
    reports = {}
    for name, network in networks.items():
        reports[name] = ak.evaluate_robustness(
            network, test, attacks, FLAGS.seed, checks=None, verbose=0
        )
        clean, robust_accuracy = (
            100 * reports[name].clean_accuracy,
            100 * reports[name].robust_accuracy["PGD-40 at 1 epsilon"],
        )
        print(f"{name:<8} {clean:6.1f}  {robust_accuracy:6.1f}")

    few = tuple(part[:8] for part in test)
    for name, network in networks.items():
        path = folder / f"images_{name.lower()}.png"
        draw_images(network, few, name, path)
    figure = plots.robust_accuracy_curves(reports, trained_at=FLAGS.epsilon)
    figure.savefig(folder / "robustness_curve.png", dpi=120)
    for name, network in networks.items():
        network.save(folder / f"{name.lower()}.keras")
    robust.export(str(folder / "saved_model"), verbose=False)
    print(f"\n{time.time() - start:.0f} s. In {folder.resolve()}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}")


if __name__ == "__main__":
    app.run(main)
