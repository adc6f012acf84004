r"""What an attack costs: PGD here, beside ART's and a bare loop.

    pip install ".[benchmarks]" && python benchmarks/attack.py
    python benchmarks/attack.py --networks=PreActResNet18 \
        --images=2048                         # on a GPU, where XLA compiles

One table for each network, then the ratios; all of it goes to `attack.json`,
too. Each row lives in a process of its own, and the rows are timed in turns,
so that a busy machine slows all of them alike; figures are medians with
quartiles. An image-step is one step of the attack on one image. `of rate`
compares with the time that the convolutions and matrix products take alone,
one by one, on the network's own shapes in the same precision and run. On a
GPU it is `of peak`: the share of the rate of a large bfloat16 product, timed in
the same run. Where XLA compiles, as it does on a GPU, a graph stands beside.
"""

import importlib.util
import json
import pathlib

import arithmetic
import device
import keras
import numpy as np
import processes
import tensorflow as tf
from absl import app
from absl import flags

import atent_keras as ak

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", ["SmallCNN", "ResNet20"], "The networks.")
flags.DEFINE_integer("num_steps", 20, "Steps of the attack.", lower_bound=1)
flags.DEFINE_integer("images", 256, "Images to attack.", lower_bound=1)
flags.DEFINE_integer(
    "batch_size",
    None,
    "Images at a time (default: the package's, for the device).",
    lower_bound=1,
)
flags.DEFINE_bool("art", True, "Whether to time ART's attack, if installed.")
flags.DEFINE_integer("rounds", 5, "Timed calls of each row.", lower_bound=1)
flags.DEFINE_string("output", "attack.json", "JSON file to write.")

EPSILON = 0.3


def network(name, images):
    """A network with images of noise: `(model, images, labels)`."""
    keras.utils.set_random_seed(0)
    model = getattr(ak.architectures, name)()
    # SmallCNN's logits start at zero, where there is no gradient to climb.
    logits = model.layers[-1].kernel
    logits.assign(keras.initializers.GlorotUniform(0)(logits.shape))
    x = np.random.random((images, *model.input_shape[1:])).astype("float32")
    return model, x, np.random.randint(0, 10, images)


# The rows: each function builds an attack, and runs in a process of its own.


def ours(name, num_steps, images, batch_size, precision, jit_compile):
    keras.config.set_dtype_policy(precision)
    ak.config.set_jit_compile(jit_compile)
    ak.config.set_batch_size(batch_size)
    model, x, y = network(name, images)
    threat_model = ak.threat_models.Linf(EPSILON)
    attack = ak.attacks.PGD(threat_model, num_steps=num_steps)
    return {"attack": lambda: attack(model, x, y, seed=0).numpy()}


def bare(name, num_steps, images, batch_size, precision, jit_compile):
    """The shortest compiled loop: no start, no checks, no restarts."""
    keras.config.set_dtype_policy(precision)
    model, x, y = network(name, images)
    step_size = 2.5 * EPSILON / num_steps

    @tf.function(autograph=False, jit_compile=jit_compile)
    def attack(x, y):
        def body(x_adv):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x_adv)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    y, model(x_adv, training=False)
                )
            x_adv += step_size * tf.sign(tape.gradient(loss, x_adv))
            x_adv = tf.clip_by_value(x_adv, x - EPSILON, x + EPSILON)
            return [tf.clip_by_value(x_adv, 0.0, 1.0)]

        return tf.while_loop(
            lambda _: True, body, [x], maximum_iterations=num_steps
        )[0]

    def attack_all():
        for start in range(0, images, batch_size):
            rows = slice(start, start + batch_size)
            attack(tf.constant(x[rows]), tf.constant(y[rows])).numpy()

    return {"attack": attack_all}


def art(name, num_steps, images, batch_size, precision):
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    keras.config.set_dtype_policy(precision)
    model, x, y = network(name, images)
    classifier = TensorFlowV2Classifier(
        model,
        nb_classes=10,
        input_shape=model.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        ),
        clip_values=(0.0, 1.0),
    )
    attack = ProjectedGradientDescent(
        classifier,
        eps=EPSILON,
        eps_step=2.5 * EPSILON / num_steps,
        max_iter=num_steps,
        num_random_init=1,
        batch_size=batch_size,
        verbose=False,
    )
    return {"attack": lambda: attack.generate(x, y)}


def alone(name, batch_size):
    """What an attack's arithmetic takes without an attack around it."""
    if device.has_gpu():
        return {"product": arithmetic.product()}
    model, *_ = network(name, 1)
    return arithmetic.operations(model, batch_size, "float32")


def rows(name, batch_size):
    """The rows of a table, as the way to build each."""
    given = name, FLAGS.num_steps, FLAGS.images, batch_size
    precision, compiled = FLAGS.precision, device.jit_compile()
    table = {"PGD": (ours, *given, precision, compiled)}
    if compiled:
        table["PGD, graph"] = (ours, *given, precision, False)
    if precision == "float32":
        table["PGD, bfloat16"] = (ours, *given, "mixed_bfloat16", compiled)
    table["a bare loop"] = (bare, *given, precision, compiled)
    if FLAGS.art and importlib.util.find_spec("art"):
        table["ART's PGD"] = (art, *given, precision)
    return table


def measure(name):
    """Prints a table; returns its rows as dictionaries, by label."""
    batch_size = FLAGS.batch_size or ak.config.batch_size()
    table = rows(name, batch_size)
    running = {label: processes.Process(*row) for label, row in table.items()}
    running["alone"] = processes.Process(alone, name, batch_size)
    first = processes.first(
        {label: (running[label], "attack") for label in table}
    )
    took = processes.interleave(
        {
            (label, name): (process, name)
            for label, process in running.items()
            for name in process.names
        },
        FLAGS.rounds,
    )
    steps, images = FLAGS.num_steps, FLAGS.images
    passes, on_gpu = arithmetic.Passes(steps, steps), device.has_gpu()
    if on_gpu:
        model, *_ = network(name, 1)
        peak = arithmetic.PRODUCT_GFLOP / took["alone", "product"][1]
        needed, share = passes.gflop(model, images) / peak, "share_of_peak"
    else:
        times = {kind: took["alone", kind][1] for kind in arithmetic.KINDS}
        needed = passes.milliseconds(times) * images / batch_size
        share = "share_of_rate"
    print(
        f"\n{name}, {images} images, {steps} steps, {batch_size} at a time\n"
        f"{device.header()}"
        + (f", bfloat16 product {peak:.0f} TFLOP/s" if on_gpu else "")
        + f"\n{'':<15}{'ms [quartiles]':>27}{'image-steps/s':>14}"
        f"{'of peak' if on_gpu else 'of rate':>8}{'first s':>9}{'MiB':>6}"
    )
    results = {}
    for label in table:
        median = took[label, "attack"][1]
        row = results[label] = {
            "milliseconds": took[label, "attack"],
            "image_steps_per_second": 1e3 * images * steps / median,
            share: needed / median,
            "first_call_seconds": first[label],
            "mebibytes": running[label].peak(),
        }
        # Against float32's rate, a share in bfloat16 would say nothing.
        narrow = "16" in label or "16" in FLAGS.precision
        said = "" if narrow and not on_gpu else f"{row[share]:.0%}"
        print(
            f"{label:<15}{processes.spread(took[label, 'attack']):>27}"
            f"{row['image_steps_per_second']:14.0f}{said:>8}"
            f"{first[label]:9.2f}{row['mebibytes']:6.0f}",
            flush=True,
        )
    for process in running.values():
        process.close()
    return results


def main(argv):
    del argv
    results = {name: measure(name) for name in FLAGS.networks}
    compared = [
        (
            name,
            f"{label} / PGD",
            table[label]["milliseconds"][1] / table["PGD"]["milliseconds"][1],
        )
        for name, table in results.items()
        for label in table
        if label != "PGD"
    ]
    print("\nratios of medians")
    for name, what, ratio in compared:
        print(f"{name:<12}{what:<24}{ratio:6.2f}")
    pathlib.Path(FLAGS.output).write_text(
        json.dumps(
            {**device.described(), "tables": results, "ratios": compared},
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    app.run(main)
