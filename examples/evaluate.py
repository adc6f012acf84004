"""Measures how robust saved networks are, and how far that can be trusted.

    python examples/evaluate.py --model=mnist_linf_atent --dataset=mnist

Any classifier of images in [0, 1] will do that gives logits, trained by this
package or not: `.keras` files and folders of SavedModels; and those that come
with the package, by name. Everything lands in `--output_dir`, as it is found
out; the same command goes on after a kill.
"""

import pathlib

import matplotlib
import numpy as np
from absl import app
from absl import flags
from absl import logging
from matplotlib import pyplot

import atent_keras as ak
import devices
import named_attacks
import run_folder
import saved_networks
import settings
from atent_keras.evaluation.smoothing import require_certifiable
from atent_keras.lock import Lock

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "model",
    None,
    "Networks: .keras files, SavedModel folders or names of "
    "atent_keras.architectures.weights(), each as PATH or NAME=PATH (default "
    "name: that of the file's folder).",
    required=True,
)
flags.DEFINE_enum(
    "dataset", "mnist", ["mnist", "cifar10", "digits"], "The test images."
)
flags.DEFINE_enum("norm", "linf", ["linf", "l2"], "Norm of the ball.")
settings.define_number(
    "epsilon",
    None,
    "Radius of the ball, in pixels of [0, 1] (default in l_inf: 0.3 on MNIST, "
    "8/255 on CIFAR-10, 0.15 on the digits).",
)
flags.DEFINE_list(
    "attacks",
    None,
    f"Attacks: {named_attacks.NAMES}, with any number of steps (default: "
    "PGD-40; CIFAR: PGD-20).",
)
settings.define_number(
    "step_size",
    None,
    "Length of the steps of PGD and SGLD (default in l_inf: 0.01 on MNIST, "
    "2/255 on CIFAR-10; else 2.5 epsilon / steps).",
)
settings.define_count("restarts", 1, "Restarts of PGD.")
settings.define_count("test_limit", None, "Use the first so many images only.")
flags.DEFINE_bool(
    "checks", True, "Whether to look for signs of masked gradients."
)
settings.define_count("check_images", 100, "Images that the checks look at.")
flags.DEFINE_string(
    "surrogate",
    None,
    "Another network for the same task, best trained plainly, whose "
    "adversarial images the checks try (default: that check is not run).",
)
flags.DEFINE_list(
    "radii",
    [],
    "Radii, such as 0.1,0.2,0.3, at which the first attack is run for a curve, "
    "with steps of 2.5 epsilon / steps.",
)
flags.DEFINE_list(
    "certify",
    [],
    "Standard deviations of noise, such as 0.25,0.5, with which the networks "
    "are smoothed and certified.",
)
settings.define_count("certify_limit", 100, "Certify the first so many images.")
settings.define_count("certify_samples", 10_000, "Noisy images for each image.")
flags.DEFINE_bool(
    "pictures", True, "Whether to draw images and the loss around one."
)
settings.define_count(
    "seed", 0, "Seed of attacks and noise.", -(2**63), 2**63 - 1
)
flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets.")
flags.DEFINE_string(
    "output_dir",
    None,
    "Where the files go (default: `evaluation` beside the first network).",
)
# So that --help shows what `settings` defined.
flags.adopt_module_key_flags(settings)

RADII = {"mnist": 0.3, "cifar10": 8 / 255, "digits": 0.15}
CERTIFICATES = 100, 0.001  # samples that choose the class, alpha
SHOWN = 8  # images in a picture


def ball(epsilon):
    """The threat model of `--norm`."""
    if FLAGS.norm == "l2":
        return ak.threat_models.L2(epsilon)
    settings.check_radius(epsilon)
    return ak.threat_models.Linf(epsilon)


def attacks(names, threat_model):
    step_size = FLAGS.step_size
    if step_size is None and FLAGS.norm == "linf":
        step_size = settings.ATTACK_STEP_SIZES.get(FLAGS.dataset)
    return named_attacks.make(names, threat_model, step_size, FLAGS.restarts)


def curve():
    """The first attack at each of `--radii`, by name."""
    name = attack_names()[0]
    found = {}
    for radius in numbers("radii"):
        # A step that suits one radius does not suit another.
        made = named_attacks.make([name], ball(radius), None, FLAGS.restarts)
        found[f"{name} at {radius:.4g}"] = made.popitem()[1]
    return found


def attack_names():
    default = ["PGD-20" if FLAGS.dataset == "cifar10" else "PGD-40"]
    return FLAGS.attacks or default


def epsilon():
    if FLAGS.epsilon is None and FLAGS.norm == "l2":
        raise ValueError("--norm=l2 needs an --epsilon. Received: none")
    return RADII[FLAGS.dataset] if FLAGS.epsilon is None else FLAGS.epsilon


def numbers(flag):
    """The positive numbers of a list, which may be fractions."""
    found = []
    for text in FLAGS[flag].value:
        try:
            number = settings.NumberParser().parse(text)
        except ValueError:
            number = 0
        if not number > 0:
            raise ValueError(
                f"--{flag} must be positive numbers or fractions like 8/255. "
                f"Received: --{flag}={','.join(FLAGS[flag].value)}"
            )
        found.append(number)
    return found


def data(limit):
    """The first so many test images and labels; all of them with `None`."""
    if FLAGS.dataset == "digits":
        x, y = ak.datasets.digits()[1]
        return x[:limit], y[:limit]
    return getattr(ak.datasets, FLAGS.dataset)(
        "test", 500, limit=limit, data_dir=FLAGS.data_dir
    )


def few(count):
    """The first few test images and labels, as arrays."""
    if FLAGS.dataset == "digits":
        return data(count)
    x, y = next(iter(data(count)))
    return x.numpy(), y.numpy()


def class_names():
    return settings.CIFAR10 if FLAGS.dataset == "cifar10" else None


def evaluate(models, folders, chosen, checks):
    """Reports by model, each in its own folder; in a table if several."""
    reports = {}
    for name, model in models.items():
        print(f"\n{name} under {', '.join(chosen)}", flush=True)
        reports[name] = ak.evaluate_robustness(
            model,
            data(FLAGS.test_limit),
            chosen,
            FLAGS.seed,
            folder=folders[name],
            checks=checks,
            class_names=class_names(),
        )
        print(reports[name], flush=True)
    return reports


def certify(models, folders, sigma):
    """Reports by model, of the models smoothed with a sigma."""
    reports = {}
    for name, model in models.items():
        print(f"\n{name} smoothed with {sigma:g}", flush=True)
        reports[name] = ak.certify_robustness(
            ak.SmoothedClassifier(model, sigma),
            data(FLAGS.certify_limit),
            FLAGS.certify_samples,
            *CERTIFICATES,
            seed=FLAGS.seed,
            folder=folders[name] / f"sigma_{sigma:g}",
        )
        print(reports[name], flush=True)
    return reports


def draw(model, report, folder):
    """Pictures of a network: of its images, and of the loss around one."""
    x, y = few(SHOWN)
    attack = next(iter(report.attacks.values()))
    # The first image that is classified right, if there is one.
    right = int(np.argmax(report.correct[:SHOWN]))
    one = slice(right, right + 1)
    save(
        ak.plots.adversarial_images(
            model,
            x,
            np.asarray(attack(model, x, y, seed=FLAGS.seed)),
            y,
            class_names=class_names(),
        ),
        folder / "images.png",
    )
    try:
        surface = ak.plots.loss_surface(
            model,
            x[one],
            y[one],
            threat_model=attack.threat_model,
            seed=FLAGS.seed,
        )
    except ValueError as error:  # where there is no gradient
        print(f"Not drawn: {folder / 'loss_surface.png'}: {error}")
    else:
        save(surface, folder / "loss_surface.png")


def save(figure, path):
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    print(f"Drawn: {path}")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    matplotlib.use("Agg")  # files are all it draws on
    with settings.plain_errors():
        # Whatever is wrong with the flags shows before any work.
        devices.choose()
        chosen = attacks(attack_names(), ball(epsilon()))
        at_radii = curve()
        if numbers("certify"):
            require_certifiable(FLAGS.certify_samples, *CERTIFICATES)
        found = saved_networks.paths(FLAGS.model)
        models = {
            name: saved_networks.load(path) for name, path in found.items()
        }
        shape = few(1)[0].shape[1:]
        for name, model in models.items():
            saved_networks.check_shape(name, model, FLAGS.dataset, shape)
        checks = None
        if FLAGS.surrogate and not FLAGS.checks:
            raise ValueError(
                "--surrogate belongs to --checks. Received: --nochecks, "
                f"--surrogate={FLAGS.surrogate}"
            )
        if FLAGS.checks:
            surrogate = FLAGS.surrogate and saved_networks.load(
                pathlib.Path(FLAGS.surrogate), "surrogate"
            )
            checks = ak.MaskingChecks(FLAGS.check_images, surrogate=surrogate)
        first = next(iter(found.values()))
        output = pathlib.Path(
            FLAGS.output_dir or first.resolve().parent / "evaluation"
        )
        with Lock(output, "--output_dir"):
            work(models, output, chosen, at_radii, checks)


def work(models, output, chosen, at_radii, checks):
    """Writes all that is asked for."""
    folders = {name: output / name for name in models}
    reports = evaluate(models, folders, chosen, checks)
    comparison = ak.RobustnessComparison(reports)
    run_folder.write_text(output / "comparison.md", comparison.to_markdown())
    run_folder.write_text(output / "comparison.csv", comparison.to_csv())
    run_folder.write_text(output / "comparison.html", comparison.to_html())
    if at_radii:
        radii = {name: folders[name] / "radii" for name in models}
        curves = evaluate(models, radii, at_radii, None)
        save(
            ak.plots.robust_accuracy_curves(curves),
            output / "robust_accuracy.png",
        )
    for sigma in numbers("certify"):
        save(
            ak.plots.certified_accuracy_curves(certify(models, folders, sigma)),
            output / f"certified_accuracy_{sigma:g}.png",
        )
    if FLAGS.pictures:
        for name, model in models.items():
            draw(model, reports[name], folders[name])
    print(f"\n{FLAGS.dataset}, {comparison}")
    print(f"In {output.resolve()}, with a folder for each network")


if __name__ == "__main__":
    app.run(main)
