r"""What a training step costs, and where its time goes.

    pip install ".[benchmarks]" && python benchmarks/train_step.py
    python benchmarks/train_step.py --precision=mixed_bfloat16 \
        --settings=PreActResNet18:10,PreActResNet18:10:512    # on a GPU

One table for each network and number of steps, then the ratios, then the
operations of one step by time; all of it goes to `train_step.json`, too. Each
row lives in a process of its own, and the rows are timed in turns, so that a
busy machine slows all of them alike; figures are medians with quartiles.

`GFLOP/s` counts the convolutions and matrix products that the method needs,
two operations for a multiplication with its addition. `of rate` compares the
step with the time that those operations take alone, one by one, on the
network's own shapes in the same precision and the same run. On a GPU, whose
time XLA does not spend on one operation after the other, it is `of peak`: the
share of the rate of a large bfloat16 product, timed in the same run; and what
compiling takes is the first call.
"""

import importlib.util
import json
import os
import pathlib

import arithmetic
import device
import keras
import numpy as np
import operations
import processes
import tensorflow as tf
from absl import app
from absl import flags
from arithmetic import Passes

import atent_keras as ak

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "settings",
    ["SmallCNN:10", "SmallCNN:40", "SmallCNN:80", "ResNet20:10"],
    "Networks, numbers of steps and, unless it is --batch_size, images a step: "
    "PreActResNet18:10:512.",
)
flags.DEFINE_integer("rounds", 5, "Timed calls of each row.", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Images in a batch.", lower_bound=1)
flags.DEFINE_multi_string(
    "row", [], "A row to measure, such as 'plain Keras' (default: all)."
)
flags.DEFINE_bool(
    "profile", None, "Whether to list a graph's operations (default: on a CPU)."
)
flags.DEFINE_bool("art", True, "Whether to time ART's trainer, if installed.")
flags.DEFINE_string("output", "train_step.json", "JSON file to write.")

KEPT = {"ATENT, all iterates": None, "ATENT, K=2": 2, "ATENT, K=2, bfloat16": 2}


def sampler(num_steps):
    threat_model = ak.threat_models.Linf(0.3)
    return ak.attacks.SGLD(threat_model, 2.5 * 0.3 / num_steps, num_steps)


def cross_entropy(**settings):
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, **settings
    )


def network(name, batch_size):
    """A network with a batch of noise: `(model, images, labels)`."""
    tf.get_logger().setLevel("ERROR")  # first calls are to be traced anew
    keras.utils.set_random_seed(0)
    model = getattr(ak.architectures, name)()
    x = np.random.random((batch_size, *model.input_shape[1:]))
    y = np.random.randint(0, 10, batch_size)
    return model, tf.constant(x, tf.float32), tf.constant(y)


# The rows: each function builds a step, and runs in a process of its own.


def keras_step(model, x, y):
    """Keras's own training step, compiled as `fit` compiles it."""

    def compiled():
        step = tf.function(
            model.train_step, autograph=False, jit_compile=model.jit_compile
        )
        return lambda: step((x, y))["loss"].numpy()

    return {"step": compiled(), "first call": lambda: compiled()()}


def plain(name, num_steps, batch_size, jit_compile, precision):
    keras.config.set_dtype_policy(precision)
    model, x, y = network(name, batch_size)
    model.compile(
        keras.optimizers.SGD(0.01),
        loss=cross_entropy(),
        jit_compile=jit_compile,
    )
    return keras_step(model, x, y)


class AdversarialTraining(keras.Model):
    """PGD adversarial training (Madry et al. 2018): Keras on the attack."""

    def train_step(self, data):
        x, y = data
        return super().train_step((self.attack(self, x, y), y))


def pgd(name, num_steps, batch_size, jit_compile, precision):
    keras.config.set_dtype_policy(precision)
    network_, x, y = network(name, batch_size)
    model = AdversarialTraining(network_.inputs, network_.outputs)
    model.attack = ak.attacks.PGD(
        sampler(num_steps).threat_model, num_steps=num_steps
    )
    model.compile(
        keras.optimizers.SGD(0.01),
        loss=cross_entropy(),
        jit_compile=jit_compile,
    )
    return keras_step(model, x, y)


def two_passes(name, num_steps, batch_size, jit_compile, precision):
    """ATENT as the authors' code spells it: each point is passed twice.

    The first pass serves the climb, and its way back computes the weights'
    gradient, too, which is thrown away. The second adds to the average, whose
    gradient goes back through the graphs of all steps. (TensorFlow would find
    that the second pass of a step is the first of the next, and leave it out,
    were the first one not a function apart; XLA always finds it, so this row
    is a graph.)
    """
    keras.config.set_dtype_policy(precision)
    model, x, y = network(name, batch_size)
    optimizer = keras.optimizers.SGD(0.01)
    chain, alpha = sampler(num_steps), 0.9
    weights = [variable.value for variable in model.trainable_variables]
    optimizer.build(model.trainable_variables)
    losses, loss = cross_entropy(reduction="sum"), cross_entropy()
    noise_of = ak.attacks.noise.normal_noise

    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def climb(x_adv):
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            climbed = losses(y, model(x_adv, training=True))
        return tape.gradient(climbed, [x_adv, *weights])

    @tf.function(autograph=False)
    def step():
        noise = noise_of(ak.attacks.noise.as_seed(None), x)
        x_adv = chain.start(x, noise)
        average, thrown_away = 0.0, [0.0] * len(weights)
        with tf.GradientTape() as tape:
            for k in range(1, num_steps + 1):
                with tape.stop_recording():
                    gradient, *others = climb(x_adv)
                    # As `backward` does; also, nothing unused is computed.
                    thrown_away = [
                        sum(pair) for pair in zip(thrown_away, others)
                    ]
                    x_adv = chain.step(x, x_adv, gradient, k, noise)
                newest = loss(y, model(x_adv, training=True))
                average = (1 - alpha) * average + alpha * newest
        optimizer.apply(tape.gradient(average, weights))
        return average, thrown_away

    return {"step": lambda: step()[0].numpy()}


def atent(name, num_steps, batch_size, jit_compile, precision, kept):
    keras.config.set_dtype_policy(precision)
    network_, x, y = network(name, batch_size)
    model = ak.ATENTModel(network_.inputs, network_.outputs)
    model.compile(
        keras.optimizers.SGD(0.01),
        loss=ak.ATENTRegularizedLoss(
            cross_entropy(), sampler(num_steps), loss_iterates=kept
        ),
        jit_compile=jit_compile,
    )
    return keras_step(model, x, y)


def art(name, num_steps, batch_size, jit_compile, precision):
    """ART's adversarial training on a single batch, compiled as ART does."""
    keras.config.set_dtype_policy(precision)
    os.environ["TQDM_DISABLE"] = "1"
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import TensorFlowV2Classifier

    model, x, y = network(name, batch_size)
    classifier = TensorFlowV2Classifier(
        model,
        nb_classes=10,
        input_shape=model.input_shape[1:],
        loss_object=cross_entropy(),
        optimizer=keras.optimizers.SGD(0.01),
        clip_values=(0.0, 1.0),
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=1,
        batch_size=batch_size,
        eps=0.3,
        eps_step=2.5 * 0.3 / num_steps,
        max_iter=num_steps,
    )
    x, y = x.numpy(), y.numpy()
    return {"step": lambda: trainer.fit(x, y)}


def alone(name, batch_size):
    """What a step's arithmetic takes without a step around it."""
    if device.has_gpu():
        return {"product": arithmetic.product()}
    model, *_ = network(name, batch_size)
    return {
        f"{kind}, {dtype}": function
        for dtype in ("float32", "bfloat16")
        for kind, function in arithmetic.operations(
            model, batch_size, dtype
        ).items()
    }


def rows(num_steps):
    """The rows of a table: build, precision, more arguments, passes needed."""
    steps, precision = num_steps, FLAGS.precision
    pgd_passes = Passes(steps + 1, steps, 1, 1)
    table = {
        "plain Keras": (plain, precision, (), Passes(1, 0, 1, 1)),
        "PGD training": (pgd, precision, (), pgd_passes),
        "ATENT, two passes": (
            two_passes,
            precision,
            (),
            Passes(2 * steps, steps, steps, 2 * steps),
        ),
    }
    for label, kept in KEPT.items():
        own = "mixed_bfloat16" if "bfloat16" in label else precision
        if own == precision and "bfloat16" in label:
            continue  # as all the others are
        passes = Passes(steps + 1, steps, 1, kept or steps)
        table[label] = (atent, own, (kept,), passes)
    if FLAGS.art and importlib.util.find_spec("art"):
        table["ART, PGD training"] = (art, precision, (), pgd_passes)
    unknown = {*FLAGS.row} - {*table}
    if unknown:
        raise app.UsageError(
            f"--row must be one of {', '.join(map(repr, table))}. Received: "
            f"{', '.join(map(repr, sorted(unknown)))}"
        )
    return {
        label: row
        for label, row in table.items()
        if not FLAGS.row or label in FLAGS.row
    }


def parse(setting):
    """Reads `name:steps` or `name:steps:batch`."""
    name, steps, *batch_size = setting.split(":")
    return name, int(steps), int(*batch_size or [FLAGS.batch_size])


def measure(name, num_steps, batch_size):
    """Prints a table; returns its rows as dictionaries, by label."""
    table = rows(num_steps)
    on_gpu = device.has_gpu()
    compiled = device.jit_compile()
    running = {
        label: processes.Process(
            build, name, num_steps, batch_size, compiled, precision, *more
        )
        for label, (build, precision, more, _) in table.items()
    } | {"alone": processes.Process(alone, name, batch_size)}
    steps = {label: (running[label], "step") for label in table}
    # Before anything is warm. On a CPU, where it is short, it is measured
    # again and again below.
    first = processes.first(steps) if on_gpu else {}
    took = processes.interleave(
        {
            (label, name): (process, name)
            for label, process in running.items()
            for name in process.names
            if name != "first call"
        },
        FLAGS.rounds,
    )
    mebibytes = {label: process.peak() for label, process in running.items()}
    if not on_gpu:
        tracing = {
            label: (process, "first call")
            for label, process in running.items()
            if "first call" in process.names
        }
        first = {
            label: (quartiles[1] - took[label, "step"][1]) / 1e3
            for label, quartiles in processes.interleave(
                tracing, FLAGS.rounds
            ).items()
        }
    for process in running.values():
        process.close()
    model, *_ = network(name, batch_size)
    share, spent = "share_of_rate", "tracing_seconds"
    if on_gpu:
        share, spent = "share_of_peak", "first_call_seconds"
        peak = 1e3 * arithmetic.PRODUCT_GFLOP / took["alone", "product"][1]
    print(
        f"\n{name}, {num_steps} steps, batch {batch_size}\n{device.header()}"
        + (f", bfloat16 product {peak / 1e3:.0f} TFLOP/s" if on_gpu else "")
        + f"\n{'':<21}{'ms [quartiles]':>25}{'images/s':>9}{'GFLOP/s':>8}"
        f"{'of peak' if on_gpu else 'of rate':>8}"
        f"{'first s' if on_gpu else 'tracing s':>10}{'MiB':>6}"
    )
    results = {}
    for label, (_, precision, _, passes) in table.items():
        median = took[label, "step"][1]
        gflop = passes.gflop(model, batch_size)
        if on_gpu:
            needed = 1e3 * gflop / peak
        else:
            dtype = "bfloat16" if "bfloat16" in precision else "float32"
            needed = passes.milliseconds(
                {
                    kind: took["alone", f"{kind}, {dtype}"][1]
                    for kind in arithmetic.KINDS
                }
            )
        row = results[label] = {
            "milliseconds": took[label, "step"],
            "images_per_second": 1e3 * batch_size / median,
            "gflop_per_second": 1e3 * gflop / median,
            share: needed / median,
            "mebibytes": mebibytes[label],
        }
        seconds = ""
        if label in first:
            row[spent] = first[label]
            seconds = f"{first[label]:.2f}"
        print(
            f"{label:<21}{processes.spread(took[label, 'step']):>25}"
            f"{row['images_per_second']:9.0f}{row['gflop_per_second']:8.0f}"
            f"{row[share]:8.0%}{seconds:>10}{row['mebibytes']:6.0f}",
            flush=True,
        )
    return results


def ratios(results):
    """The comparisons that the tables are made for, as lines of text."""
    every, two, narrow = KEPT
    pairs = {
        f"two passes / {every}": ("ATENT, two passes", every),
        f"two passes / {two}": ("ATENT, two passes", two),
        f"{two} / PGD training": (two, "PGD training"),
        f"{two} / {narrow}": (two, narrow),
        "ART, PGD training / PGD training": (
            "ART, PGD training",
            "PGD training",
        ),
    }
    for setting, table in results.items():
        for what, (one, other) in pairs.items():
            if one in table and other in table:
                one, other = (
                    table[label]["milliseconds"][1] for label in (one, other)
                )
                yield setting, what, one / other
    short, long = "SmallCNN:10", "SmallCNN:80"
    if short in results and long in results:
        for key in ("tracing_seconds", "mebibytes"):
            for label in (every, two):
                if key in results[long].get(label, {}):
                    yield (
                        f"{long} / {short}",
                        f"{key} of {label}",
                        results[long][label][key] / results[short][label][key],
                    )


def main(argv):
    del argv
    results = {setting: measure(*parse(setting)) for setting in FLAGS.settings}
    compared = list(ratios(results))
    if compared:
        print("\nratios of medians")
    for setting, what, ratio in compared:
        print(f"{setting:<26}{what:<42}{ratio:6.2f}")
    profiles = {}
    wanted = not device.has_gpu() if FLAGS.profile is None else FLAGS.profile
    names = [parse(setting)[0] for setting in FLAGS.settings if wanted]
    for name in dict.fromkeys(names):
        how = False, "float32"
        step = atent(name, 10, FLAGS.batch_size, *how, 2)["step"]
        profiles[name] = operations.profile(step)
        print(f"\n{name}, 10 steps, K=2, float32: operations by time")
        for operation, share in profiles[name].items():
            print(f"  {share:6.1%}  {operation}")
    found = {"tables": results, "ratios": compared, "profiles": profiles}
    text = json.dumps({**device.described(), **found}, indent=2)
    pathlib.Path(FLAGS.output).write_text(text + "\n")


if __name__ == "__main__":
    app.run(main)
