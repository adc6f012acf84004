r"""What an attack costs: PGD here, beside ART's and a bare loop.

    pip install ".[benchmarks]" && python benchmarks/attack.py

One table for each network, then the ratios; all of it goes to `attack.json`,
too. Each row lives in a process of its own, and the rows are timed in turns,
so that a busy machine slows all of them alike; figures are medians with
quartiles. An image-step is one step of the attack on one image. `of rate`
compares with the time that the convolutions and matrix products take alone,
one by one, on the network's own shapes in the same precision and run.
"""

import importlib.util
import json
import pathlib

import arithmetic
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
flags.DEFINE_integer("rounds", 5, "Timed calls of each row.", lower_bound=1)
flags.DEFINE_string("output", "attack.json", "JSON file to write.")

EPSILON = 0.3
CHUNK_SIZE = ak.attacks.attack.CHUNK_SIZE


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


def ours(name, num_steps, images, precision):
    keras.config.set_dtype_policy(precision)
    model, x, y = network(name, images)
    threat_model = ak.threat_models.Linf(EPSILON)
    attack = ak.attacks.PGD(threat_model, num_steps=num_steps)
    return {"attack": lambda: attack(model, x, y, seed=0).numpy()}


def bare(name, num_steps, images):
    """The shortest compiled loop: no start, no checks, no restarts."""
    model, x, y = network(name, images)
    step_size = 2.5 * EPSILON / num_steps

    @tf.function(autograph=False)
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
        for start in range(0, images, CHUNK_SIZE):
            rows = slice(start, start + CHUNK_SIZE)
            attack(tf.constant(x[rows]), tf.constant(y[rows])).numpy()

    return {"attack": attack_all}


def art(name, num_steps, images):
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

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
        batch_size=CHUNK_SIZE,
        verbose=False,
    )
    return {"attack": lambda: attack.generate(x, y)}


def alone(name):
    model, *_ = network(name, 1)
    return arithmetic.operations(model, CHUNK_SIZE, "float32")


def measure(name):
    """Prints a table; returns its rows as dictionaries, by label."""
    given = name, FLAGS.num_steps, FLAGS.images
    rows = {
        "PGD": (ours, *given, "float32"),
        "PGD, bfloat16": (ours, *given, "mixed_bfloat16"),
        "a bare loop": (bare, *given),
    }
    if importlib.util.find_spec("art"):
        rows["ART's PGD"] = (art, *given)
    running = {label: processes.Process(*row) for label, row in rows.items()}
    running["alone"] = processes.Process(alone, name)
    took = processes.interleave(
        {
            (label, name): (process, name)
            for label, process in running.items()
            for name in process.names
        },
        FLAGS.rounds,
    )
    steps, images = FLAGS.num_steps, FLAGS.images
    needed = arithmetic.Passes(steps, steps).milliseconds(
        {kind: took["alone", kind][1] for kind in arithmetic.KINDS}
    )
    print(
        f"\n{name}, {images} images, {steps} steps, chunks of {CHUNK_SIZE}\n"
        f"{'':<15}{'ms [quartiles]':>27}{'image-steps/s':>14}{'of rate':>8}"
        f"{'MiB':>6}"
    )
    results = {}
    for label in rows:
        median = took[label, "attack"][1]
        row = results[label] = {
            "milliseconds": took[label, "attack"],
            "image_steps_per_second": 1e3 * images * steps / median,
            "share_of_rate": needed * images / CHUNK_SIZE / median,
            "mebibytes": running[label].peak(),
        }
        # Against float32's rate, a share in bfloat16 would say nothing.
        share = f"{row['share_of_rate']:.0%}" if "16" not in label else ""
        print(
            f"{label:<15}{processes.spread(took[label, 'attack']):>27}"
            f"{row['image_steps_per_second']:14.0f}{share:>8}"
            f"{row['mebibytes']:6.0f}",
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
        json.dumps({"tables": results, "ratios": compared}, indent=2) + "\n"
    )


if __name__ == "__main__":
    app.run(main)
