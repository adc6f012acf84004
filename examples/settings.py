"""The flags of a training run, and what they build."""

import contextlib
import fractions
import functools
import itertools
import math
import sys

import keras
import tensorflow as tf
from absl import flags

import atent_keras as ak
import methods
from atent_keras.threat_models import LARGEST
from atent_keras.threat_models import is_finite

FLAGS = flags.FLAGS

NETWORKS = {
    "lenet5": ak.architectures.LeNet5,
    "preact_resnet18": ak.architectures.PreActResNet18,
    "resnet20": ak.architectures.ResNet20,
    "small_cnn": ak.architectures.SmallCNN,
    "wrn_34_10": ak.architectures.WideResNet,
}
# What the flags are defined with, for each data set.
DATASETS = {
    "digits": {
        "model": "small_cnn",
        "presets": ["mnist_linf", "mnist_l2"],
        "attack_steps": 40,
        "epsilon": 0.15,
    },
    "mnist": {
        "model": "small_cnn",
        "presets": ["mnist_linf", "mnist_l2"],
        "attack_steps": 40,
    },
    "cifar10": {
        "model": "resnet20",
        "presets": ["cifar10_linf", "cifar10_l2"],
        "attack_steps": 20,
    },
}
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
# Of every robust method.
ROBUST = ("awp_gamma", "awp_warmup_epochs", "epsilon_warmup_epochs")
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
# Of the literature's attacks in l_inf.
ATTACK_STEP_SIZES = {"mnist": 0.01, "cifar10": 2 / 255}
# Flags that may differ when a run goes on.
ELSEWHERE = (
    "output_dir",
    "data_dir",
    "verbose",
    "tensorboard",
    "checkpoint_every",
    "worker_timeout",
)


class NumberParser(flags.ArgumentParser):
    """Reads a float, also written as a fraction such as 8/255."""

    def parse(self, argument):
        text = str(argument).replace(" ", "")
        try:
            # A fraction would write out all of 1e1000000000's digits.
            value = float(fractions.Fraction(text) if "/" in text else text)
        except (ValueError, ZeroDivisionError, OverflowError):
            value = math.nan
        if not is_finite(value):
            raise ValueError(
                "must be a number or a fraction like 8/255, of size at most "
                f"{LARGEST:g}"
            )
        return value

    def flag_type(self):
        return "number or fraction"


def define_count(name, default, help, lower_bound=1, upper_bound=2**31 - 1):
    """Defines a flag of an integer, by default a positive one of 32 bits."""
    flags.DEFINE_integer(
        name,
        default,
        help,
        lower_bound=lower_bound,
        upper_bound=upper_bound,
    )


def define_number(name, default, help):
    flags.DEFINE(
        NumberParser(),
        name,
        default,
        help,
        serializer=flags.ArgumentSerializer(),
    )


def define(dataset, model, presets, attack_steps, epsilon=None):
    """Defines all flags of a data set's training script."""
    flags.DEFINE_enum("model", model, sorted(NETWORKS), "The network.")
    flags.DEFINE_string(
        "weights",
        None,
        "Weights to begin with: a name of atent_keras.architectures.weights(), "
        "or a .keras, .weights.h5 or .npz file (default: random ones).",
    )
    flags.DEFINE_enum(
        "method",
        "atent",
        [*methods.METHODS, "plain"],
        "atent, pgd (adversarial training), fast (with a single step), trades "
        "and mart train robustly, plain on clean images, for comparison.",
    )
    flags.DEFINE_enum(
        "preset",
        presets[0],
        presets,
        "Data set and norm of the settings that the method's authors "
        "published, which the next flags override. Where they published none, "
        "the norm alone counts, and the next flags must say the rest.",
    )
    define_number(
        "epsilon", epsilon, "Radius of the ball, in pixels of [0, 1]: 8/255."
    )
    define_count(
        "num_steps",
        None,
        "Steps of the chain or attack, of all methods but fast.",
    )
    define_number("step_size", None, "Length of a step, or of the first one.")
    define_number(
        "last_step_size",
        None,
        "Length of the last step, to which all but fast's shrink by the same "
        "factor each (default: they do not).",
    )
    define_number("noise_scale", None, "atent: square root of the temperature.")
    define_number("gamma", None, "atent: pull towards the clean image.")
    flags.DEFINE_enum(
        "projection",
        None,
        ["every_step", "last_step", "none"],
        "atent: when the chain is brought back into the ball.",
    )
    flags.DEFINE_enum(
        "drift",
        None,
        ["steepest", "gradient"],
        "atent: rule of the chain's step.",
    )
    flags.DEFINE_bool(
        "random_start",
        None,
        "atent, pgd, fast: whether to start at a random point.",
    )
    define_number(
        "alpha", None, "atent: weight of the newest point in the average."
    )
    define_count(
        "loss_iterates",
        None,
        "atent: train on the last so many points of the chain (default: all).",
    )
    flags.DEFINE_bool(
        "chain_training",
        None,
        "atent: whether the network is in training mode at the points before "
        "those.",
    )
    flags.DEFINE_bool(
        "attack_training",
        None,
        "pgd, fast: whether the network is in training mode during the attack.",
    )
    define_number(
        "beta", None, "trades, mart: weight of the divergence of the answers."
    )
    define_count(
        "clean_passes",
        None,
        "trades: how often the clean images are passed, 1 or 2.",
        upper_bound=2,
    )
    define_number(
        "awp_gamma",
        None,
        "Train at weights that are made worse, each by so much of its length: "
        "0.005 (default: at the weights as they are).",
    )
    define_count(
        "awp_warmup_epochs",
        None,
        "Epochs before the weights are made worse (default: 0).",
        lower_bound=0,
    )
    define_count(
        "epsilon_warmup_epochs",
        None,
        "Epochs in which radius and step grow from 0 to all of it (default: "
        "0, all of it from the start).",
        lower_bound=0,
    )

    define_count("epochs", 30, "Epochs.")
    define_count("batch_size", 128, "Images a step.")
    flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "The optimizer.")
    define_number("learning_rate", 0.01, "The (highest) learning rate.")
    define_number("momentum", None, "Momentum of sgd (default: 0.9).")
    define_number(
        "weight_decay",
        0.0,
        "Coupled weight decay, PyTorch's rule: the penalty weight_decay / 2 * "
        "sum(w**2) over all weights.",
    )
    flags.DEFINE_enum(
        "schedule",
        "constant",
        ["constant", "piecewise", "cosine", "one_cycle"],
        "Of the learning rate. piecewise: times 0.1 after each of "
        "--boundaries; cosine: down to 0; one_cycle: up to the learning rate "
        "over the first 30 % of the steps, then down to 0 on a cosine.",
    )
    flags.DEFINE_list(
        "boundaries", [], "Epochs after which a piecewise schedule drops."
    )
    define_number(
        "ema",
        None,
        "Momentum of an average of the weights, which is then what is "
        "validated and saved: 0.999 (default: no average).",
    )
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "mixed_bfloat16", "mixed_float16"],
        "Precision of the network's arithmetic; results are in float32.",
    )
    if dataset != "cifar10":
        define_count(
            "shift",
            None,
            "Pixels by which training images are moved at random, at most "
            "(default: 0; those of CIFAR-10 are moved by 4, and mirrored).",
            lower_bound=0,
        )
    flags.DEFINE_bool("xla", False, "Whether to compile the step with XLA.")
    define_count("seed", 0, "Seed of everything random.", 0, 2**32 - 1)
    flags.DEFINE_bool(
        "deterministic",
        None,
        "Whether every operation gives the same result twice, to the last bit, "
        "on a GPU, too (slower).",
    )
    flags.DEFINE_enum(
        "strategy",
        None,
        ["mirrored", "multiworker"],
        "mirrored: all GPUs of this machine; multiworker: those of all "
        "machines that TF_CONFIG or Slurm names (default: one device). "
        "--batch_size is that of all together.",
    )
    define_count(
        "worker_timeout",
        300,
        "Seconds to wait for the other workers.",
    )
    define_count(
        "checkpoint_every",
        100,
        "Steps between checkpoints: what a run that is killed may lose.",
    )

    for split, count in (("train", None), ("validation", 1000), ("test", None)):
        define_count(
            f"{split}_limit",
            count,
            f"Use the first so many {split} images only"
            + ("." if count else " (default: all)."),
        )
    define_count(
        "validation_attack_steps",
        10,
        "Steps of the PGD attack after each epoch, of length 2.5 epsilon / "
        "steps.",
    )
    define_count(
        "attack_steps",
        attack_steps,
        "Steps of the final PGD attack.",
    )
    define_number(
        "attack_step_size",
        None,
        "Length of its steps (default: 0.01 on MNIST and 2/255 on CIFAR-10 in "
        "l_inf, else 2.5 epsilon / steps).",
    )
    flags.DEFINE_string(
        "data_dir", None, "Folder of TensorFlow Datasets' data sets."
    )
    flags.DEFINE_string(
        "output_dir", f"{dataset}_run", "Folder of the run's files."
    )
    flags.DEFINE_bool("tensorboard", True, "Whether to write for TensorBoard.")
    flags.DEFINE_enum(
        "verbose", "1", ["0", "1", "2"], "0: silent, 1: bar, 2: line an epoch."
    )


def config(dataset):
    """The flags that decide the outcome of a run."""
    names = [
        flag.name
        for flag in FLAGS.get_flags_for_module(__name__)
        if flag.name not in ELSEWHERE
    ]
    return {"dataset": dataset} | {name: FLAGS[name].value for name in names}


def check_radius(epsilon):
    """Raises a `ValueError` for an l_inf radius in grey levels of 0..255."""
    if not 0 <= epsilon < 1:
        raise ValueError(
            "An l_inf radius is in pixels of [0, 1], so below 1; 8 of 255 "
            f"grey levels are --epsilon=8/255. Received: --epsilon={epsilon:g}"
        )


def given(names):
    """Those of the flags that have a value, by name."""
    values = {name: FLAGS[name].value for name in names}
    return {name: value for name, value in values.items() if value is not None}


def settings_of_method():
    """Names of the flags that belong to `--method`, beside `--epsilon`."""
    if FLAGS.method == "plain":
        return ()
    return (*methods.METHODS[FLAGS.method].settings, *ROBUST)


def check():
    """Raises a `ValueError` for flags that contradict each other."""

    def require(rule, holds, *names):
        if not holds:
            values = ", ".join(f"--{n}={FLAGS[n].value}" for n in names)
            raise ValueError(f"{rule}. Received: {values}")

    takes = ("epsilon", *settings_of_method())
    every = given((*methods.SETTINGS, *ROBUST))
    foreign = [name for name in every if name not in takes]
    require(
        f"Of the methods' settings, --method={FLAGS.method} takes only "
        f"{', '.join(f'--{name}' for name in takes)}",
        not foreign,
        "method",
        *foreign,
    )
    require(
        "--last_step_size must be positive and at most --step_size, with at "
        "least 2 --num_steps, both of which must be given",
        FLAGS.last_step_size is None
        or 0 < FLAGS.last_step_size <= (FLAGS.step_size or 0)
        and (FLAGS.num_steps or 0) >= 2,
        "step_size",
        "last_step_size",
        "num_steps",
    )
    require(
        "--awp_gamma must not be negative",
        FLAGS.awp_gamma is None or FLAGS.awp_gamma >= 0,
        "awp_gamma",
    )
    require(
        "--awp_warmup_epochs belongs to --awp_gamma",
        FLAGS.awp_warmup_epochs is None or FLAGS.awp_gamma is not None,
        "awp_gamma",
        "awp_warmup_epochs",
    )
    for name in ("awp_warmup_epochs", "epsilon_warmup_epochs"):
        require(
            f"--{name} must be at most --epochs",
            (FLAGS[name].value or 0) <= FLAGS.epochs,
            name,
            "epochs",
        )
    if FLAGS.preset.endswith("linf") and FLAGS.epsilon is not None:
        check_radius(FLAGS.epsilon)
    require(
        "--boundaries belong to --schedule=piecewise, which needs them",
        bool(FLAGS.boundaries) == (FLAGS.schedule == "piecewise"),
        "schedule",
        "boundaries",
    )
    require(
        "--boundaries must be increasing epochs, from 1",
        all(epoch.isdecimal() for epoch in FLAGS.boundaries)
        and all(
            int(before) < int(after)
            for before, after in itertools.pairwise(["0", *FLAGS.boundaries])
        ),
        "boundaries",
    )
    require(
        "--momentum belongs to --optimizer=sgd",
        FLAGS.momentum is None or FLAGS.optimizer == "sgd",
        "optimizer",
        "momentum",
    )
    require(
        "--momentum must be at least 0 and below 1",
        FLAGS.momentum is None or 0 <= FLAGS.momentum < 1,
        "momentum",
    )
    require(
        "--strategy belongs to the robust methods",
        FLAGS.strategy is None or FLAGS.method != "plain",
        "strategy",
        "method",
    )
    require(
        "--ema must lie between 0 and 1",
        FLAGS.ema is None or 0 < FLAGS.ema < 1,
        "ema",
    )
    require(
        "--learning_rate must be positive",
        FLAGS.learning_rate > 0,
        "learning_rate",
    )
    require(
        "--weight_decay must not be negative",
        FLAGS.weight_decay >= 0,
        "weight_decay",
    )


def loss(steps_per_epoch=None):
    """The loss of `--method`, and the threat model of the attacks.

    Args:
        steps_per_epoch: Integer, in which warm-ups are counted. Defaults to
            `None`: none yet, and no tensor is made, which a strategy that is
            still to be made may not find.
    """
    overrides = given(("epsilon", *methods.SETTINGS))
    if FLAGS.method == "plain":
        # What it is attacked with is what ATENT would be.
        robust = methods.make("atent", FLAGS.preset, overrides)
        return robust.loss, robust.threat_model
    steps = steps_per_epoch or 0
    rise = (FLAGS.epsilon_warmup_epochs or 0) * steps
    if rise:
        schedules = keras.optimizers.schedules
        overrides["radius_schedule"] = schedules.PolynomialDecay(0.0, rise, 1.0)
    robust = methods.make(FLAGS.method, FLAGS.preset, overrides)
    if FLAGS.awp_gamma is not None:
        robust = ak.AdversarialWeightPerturbation(
            robust, FLAGS.awp_gamma, (FLAGS.awp_warmup_epochs or 0) * steps
        )
    return robust, robust.threat_model


def title():
    """The method's name in tables."""
    if FLAGS.method == "plain":
        return "plain training"
    name = methods.METHODS[FLAGS.method].title
    return name if FLAGS.awp_gamma is None else f"{name} with AWP"


def attack(dataset, threat_model):
    """The attack of the final table, and its name."""
    step_size = FLAGS.attack_step_size
    if step_size is None and isinstance(threat_model, ak.threat_models.Linf):
        step_size = ATTACK_STEP_SIZES.get(dataset)
    pgd = ak.attacks.PGD(threat_model, step_size, FLAGS.attack_steps)
    return f"PGD-{FLAGS.attack_steps}", pgd


def optimizer(steps_per_epoch):
    """The optimizer with its schedule, for epochs of so many steps."""
    steps = FLAGS.epochs * steps_per_epoch
    peak = FLAGS.learning_rate
    schedules = keras.optimizers.schedules
    if FLAGS.schedule == "piecewise":
        # Keras keeps a rate through the step that a boundary names.
        drops = [int(epoch) * steps_per_epoch - 1 for epoch in FLAGS.boundaries]
        rates = [peak * 0.1**i for i in range(len(drops) + 1)]
        rate = schedules.PiecewiseConstantDecay(drops, rates)
    elif FLAGS.schedule == "cosine":
        rate = schedules.CosineDecay(peak, steps)
    elif FLAGS.schedule == "one_cycle":
        rise = max(1, round(0.3 * steps))
        rate = schedules.CosineDecay(
            peak / 25,
            max(1, steps - rise),
            warmup_target=peak,
            warmup_steps=rise,
        )
    else:
        rate = peak
    average = {}
    if FLAGS.ema is not None:
        average = {"use_ema": True, "ema_momentum": FLAGS.ema}
    if FLAGS.optimizer == "adam":
        return keras.optimizers.Adam(rate, **average)
    momentum = 0.9 if FLAGS.momentum is None else FLAGS.momentum
    return keras.optimizers.SGD(rate, momentum, **average)


def builder(dataset):
    """What builds `--model` for a data set's images, by `weights` or anew."""
    padding = {}
    if dataset == "digits" and FLAGS.model == "small_cnn":
        padding = {"padding": "same"}  # else its windows would not fit inside
    return functools.partial(NETWORKS[FLAGS.model], SHAPES[dataset], **padding)


def network(dataset, weights=None):
    """A network of `--model`, for a data set's images, new or with weights."""
    return builder(dataset)(weights=weights)


def model(dataset, steps_per_epoch):
    """The network, compiled as the flags say."""
    keras.utils.set_random_seed(FLAGS.seed)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(FLAGS.precision)
    made = network(dataset, FLAGS.weights)
    if FLAGS.method != "plain":
        kind = ak.ATENTModel if FLAGS.method == "atent" else ak.RobustModel
        made = kind(made.inputs, made.outputs)
    if FLAGS.weight_decay:
        # PyTorch's decay is this penalty; that of Keras's optimizers is not.
        penalty = keras.regularizers.L2(FLAGS.weight_decay / 2)
        for variable in made.trainable_variables:
            variable.regularizer = penalty
    made.compile(
        optimizer(steps_per_epoch),
        loss=loss(steps_per_epoch)[0],
        metrics=["accuracy"],
        jit_compile=FLAGS.xla,
    )
    return made


def as_json(report):
    """A `RobustnessReport` as a dictionary for JSON."""
    return {
        "num_examples": report.num_examples,
        "clean_accuracy": report.clean_accuracy,
        "robust_accuracy": report.robust_accuracy,
        "worst_case_accuracy": report.worst_case_accuracy,
        "attacks": {name: repr(one) for name, one in report.attacks.items()},
    }


@contextlib.contextmanager
def plain_errors():
    """Ends the program with the message alone of an error in its input."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
