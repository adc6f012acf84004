"""Measures the robustness of a saved network.

    python examples/evaluate.py --model=mnist_run/best.keras --dataset=mnist

Any `.keras` file will do whose network maps images in [0, 1] to logits,
trained by this package or not.
"""

import pathlib
import re
import time

import keras
from absl import app
from absl import flags
from absl import logging

import atent_keras as ak
import run_folder
import settings

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "The .keras file.", required=True)
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
    "Attacks: AutoAttack (and AutoAttack-plus, AutoAttack-rand), FGSM, PGD-20, "
    "APGD, APGD-DLR, APGD-T, FAB, FAB-T, Square, DeepFool, CarliniWagner, "
    "UniformNoise (default: PGD-40; CIFAR: PGD-20).",
)
settings.define_number(
    "step_size",
    None,
    "Length of PGD's steps (default in l_inf: 0.01 on MNIST, 2/255 on "
    "CIFAR-10; else 2.5 epsilon / steps).",
)
flags.DEFINE_integer("restarts", 1, "Restarts of PGD.", lower_bound=1)
flags.DEFINE_integer(
    "test_limit", None, "Use the first so many images only.", lower_bound=1
)
flags.DEFINE_integer("seed", 0, "Seed of the attacks.")
flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets.")
flags.DEFINE_string(
    "output", None, "JSON file to write (default: evaluation.json beside it)."
)
# So that --help shows what `settings` defined.
flags.adopt_module_key_flags(settings)

RADII = {"mnist": 0.3, "cifar10": 8 / 255, "digits": 0.15}
MAKERS = {
    "AutoAttack": ak.attacks.AutoAttack,
    "AutoAttack-plus": lambda norm: ak.attacks.AutoAttack(norm, "plus"),
    "AutoAttack-rand": lambda norm: ak.attacks.AutoAttack(norm, "rand"),
    "FGSM": ak.attacks.FGSM,
    "APGD": ak.attacks.APGD,
    "APGD-DLR": lambda norm: ak.attacks.APGD(norm, loss=ak.attacks.DLR()),
    "APGD-T": ak.attacks.APGDT,
    "FAB": lambda norm: ak.attacks.FAB(norm, targets=None),
    "FAB-T": ak.attacks.FAB,
    "Square": ak.attacks.Square,
    "DeepFool": ak.attacks.DeepFool,
    "CarliniWagner": ak.attacks.CarliniWagner,
    "UniformNoise": ak.attacks.UniformNoise,
}


def attacks():
    """The attacks of the flags, by name."""
    epsilon = FLAGS.epsilon
    if FLAGS.norm == "l2":
        if epsilon is None:
            raise ValueError("--norm=l2 needs an --epsilon. Received: none")
        threat_model = ak.threat_models.L2(epsilon)
    else:
        if epsilon is None:
            epsilon = RADII[FLAGS.dataset]
        settings.check_radius(epsilon)
        threat_model = ak.threat_models.Linf(epsilon)
    step_size = FLAGS.step_size
    if step_size is None and FLAGS.norm == "linf":
        step_size = settings.ATTACK_STEP_SIZES.get(FLAGS.dataset)
    default = ["PGD-20" if FLAGS.dataset == "cifar10" else "PGD-40"]
    makers = {name.upper(): (name, make) for name, make in MAKERS.items()}
    made = {}
    for name in FLAGS.attacks or default:
        pgd = re.fullmatch(r"PGD-([1-9]\d*)", name, re.IGNORECASE)
        if pgd:
            made[name.upper()] = ak.attacks.PGD(
                threat_model, step_size, int(pgd[1]), FLAGS.restarts
            )
        elif name.upper() in makers:
            name, make = makers[name.upper()]
            made[name] = make(threat_model)
        else:
            raise ValueError(
                "--attacks must be PGD with a number of steps, such as "
                f"PGD-40, or one of {', '.join(MAKERS)}. Received: {name}"
            )
    return made


def load(path):
    """The network of a `.keras` file."""
    if path.suffix != ".keras" or not path.is_file():
        raise FileNotFoundError(
            f"--model must be a .keras file that exists. Received: {path}"
        )
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ValueError(
            f"--model must be a whole file that `model.save` wrote. Received: "
            f"{path}, which Keras cannot load: {error}"
        ) from error


def data(model):
    """The test images, whose shape the network has to accept."""
    if FLAGS.dataset == "digits":
        x, y = ak.datasets.digits()[1]
        shape, test = (
            x.shape[1:],
            (x[: FLAGS.test_limit], y[: FLAGS.test_limit]),
        )
    else:
        test = getattr(ak.datasets, FLAGS.dataset)(
            "test", 500, limit=FLAGS.test_limit, data_dir=FLAGS.data_dir
        )
        shape = tuple(test.element_spec[0].shape[1:])
    accepts = model.input_shape[1:]
    if len(accepts) != len(shape) or any(
        size not in (None, given) for size, given in zip(accepts, shape)
    ):
        raise ValueError(
            f"--model must take images of {FLAGS.dataset}, of shape {shape}. "
            f"Received: a network for images of shape {accepts}"
        )
    return test


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    path = pathlib.Path(FLAGS.model)
    with settings.plain_errors():
        chosen = attacks()
        model = load(path)
        test = data(model)
        start = time.time()
        report = ak.evaluate_robustness(model, test, chosen, FLAGS.seed)
    print(f"{path} on {FLAGS.dataset}, attack seed {FLAGS.seed}")
    print(report)
    print(f"{time.time() - start:.0f} s")
    output = pathlib.Path(FLAGS.output or path.with_name("evaluation.json"))
    run_folder.write_json(
        output,
        {
            "model": str(path),
            "dataset": FLAGS.dataset,
            "seed": FLAGS.seed,
            **settings.as_json(report),
        },
    )
    print(f"Written to {output}")


if __name__ == "__main__":
    app.run(main)
