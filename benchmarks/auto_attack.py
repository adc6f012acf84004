r"""What attacks find, and what they cost: AutoAttack, and ART's beside ours.

    python benchmarks/auto_attack.py --table=linear
    python benchmarks/auto_attack.py --table=stages --model=mnist_run/best.keras
    python benchmarks/auto_attack.py --table=art --model=mnist_run/best.keras

`linear`: AutoAttack on a linear network, whose robust accuracy is known in
closed form. `stages`: accuracy and minutes after each stage of AutoAttack,
beside PGD-40. `art`: PGD, FGSM, DeepFool and Square beside those of the
Adversarial Robustness Toolbox (`pip install ".[benchmarks]"`), on the same
network and images. Networks are attacked in float32.
"""

import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

import atent_keras as ak
from atent_keras.attacks.accuracy import is_correct

FLAGS = flags.FLAGS
flags.DEFINE_enum("table", "linear", ["linear", "stages", "art"], "Which.")
flags.DEFINE_string("model", None, "The .keras file (stages and art).")
flags.DEFINE_enum(
    "network",
    "SmallCNN",
    ["SmallCNN", "LeNet5", "ResNet20", "PreActResNet18"],
    "The architecture in that file.",
)
flags.DEFINE_enum("dataset", "mnist", ["mnist", "cifar10"], "Test images.")
flags.DEFINE_enum("norm", "linf", ["linf", "l2"], "Norm of the ball.")
flags.DEFINE_float("epsilon", 0.3, "Radius of the ball, in pixels of [0, 1].")
flags.DEFINE_float("step_size", None, "Of PGD (default: 2.5 epsilon / steps).")
flags.DEFINE_float("deepfool_epsilon", 2.0, "Radius of DeepFool's l_2 ball.")
flags.DEFINE_integer("queries", 500, "Of Square, beside ART's.", lower_bound=1)
flags.DEFINE_integer("images", 1000, "Images.", lower_bound=1)
flags.DEFINE_string("output", "auto_attack.json", "JSON file to write.")

NORMS = {"linf": ak.threat_models.Linf, "l2": ak.threat_models.L2}


def network_and_images():
    trained = keras.models.load_model(FLAGS.model, compile=False)
    keras.config.set_dtype_policy("float32")
    network = getattr(ak.architectures, FLAGS.network)()
    network.set_weights(trained.get_weights())
    data = getattr(ak.datasets, FLAGS.dataset)
    x, y = next(iter(data("test", FLAGS.images, limit=FLAGS.images)))
    return network, x.numpy(), y.numpy()


def accuracy(network, x, y):
    return float(np.mean(is_correct(tf.constant(y), _logits(network, x))))


def _logits(network, x):
    return tf.constant(network.predict(np.asarray(x), 500, verbose=0))


def linear():
    """AutoAttack and the closed form on a linear network of ten classes."""
    rng = np.random.default_rng(0)
    images = min(FLAGS.images, 200)
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    network = keras.Model(inputs, outputs)
    weights = rng.normal(size=(64, 10)).astype("float32")
    network.set_weights([weights, np.zeros(10, "float32")])
    # So far from the box's edges that they play no part.
    x = rng.uniform(0.4, 0.6, size=(images, 8, 8, 1)).astype("float32")
    y = np.argmax(_logits(network, x), axis=-1)
    logits = x.reshape(images, -1).astype("float64") @ weights
    gaps = np.take_along_axis(logits, y[:, None], axis=1) - logits
    normals = weights[:, y][:, :, None] - weights[:, None, :]
    duals = {
        "linf": np.abs(normals).sum(axis=0),
        "l2": np.sqrt((normals**2).sum(axis=0)),
    }
    rows = []
    print(f"{images} images   epsilon   closed form   AutoAttack")
    for norm, dual in duals.items():
        right = np.arange(10) == y[:, None]
        distances = np.where(right, np.inf, gaps / np.maximum(dual, 1e-9))
        smallest = np.sort(distances.min(axis=1))
        for share in (0.25, 0.5, 0.75):
            # Between two images, so that rounding decides nothing.
            epsilon = float(smallest[int(share * images) - 1 :][:2].mean())
            attack = ak.attacks.AutoAttack(NORMS[norm](epsilon), verbose=0)
            result = attack.evaluate(network, x, y, seed=0)
            row = {
                "norm": norm,
                "epsilon": epsilon,
                "closed_form": float(np.mean(smallest > epsilon)),
                "autoattack": accuracy(network, result.x_adv, y),
            }
            rows.append(row)
            print(
                f"{norm:<12} {epsilon:9.4f} {100 * row['closed_form']:11.1f} % "
                f"{100 * row['autoattack']:10.1f} %",
                flush=True,
            )
    return rows


def stages():
    """PGD-40, then AutoAttack stage by stage."""
    network, x, y = network_and_images()
    threat_model = NORMS[FLAGS.norm](FLAGS.epsilon)
    pgd = ak.attacks.PGD(threat_model, FLAGS.step_size, num_steps=40)
    start = time.time()
    x_adv = np.asarray(pgd(network, x, y, seed=0))
    seconds = time.time() - start  # tracing included
    row = {
        "images": len(x),
        "clean": accuracy(network, x, y),
        "PGD-40": accuracy(network, x_adv, y),
        "PGD-40 seconds": seconds,
    }
    print(f"{FLAGS.model}, {len(x)} images, {threat_model}")
    print(f"PGD-40  {100 * row['PGD-40']:6.2f} %", flush=True)
    attack = ak.attacks.AutoAttack(threat_model, verbose=2)
    busy = time.process_time()
    result = attack.evaluate(network, x, y, seed=0)
    row["processor seconds"] = time.process_time() - busy
    row["stages"] = [vars(stage) for stage in result.stages]
    row["final"] = accuracy(network, result.x_adv, y)
    lengths = threat_model.norm(result.x_adv - x)
    row["largest norm / epsilon"] = float(np.max(lengths)) / FLAGS.epsilon
    row["seconds"] = sum(stage.seconds for stage in result.stages)
    print(
        f"final   {100 * row['final']:6.2f} %, in {row['seconds'] / 60:.1f} "
        f"min, {row['processor seconds']:.0f} s of the processors' time; "
        f"largest norm {row['largest norm / epsilon']:.8f} epsilon"
    )
    return row


def art():
    """Four attacks beside those of the Adversarial Robustness Toolbox."""
    from art.attacks import evasion
    from art.estimators.classification import TensorFlowV2Classifier

    network, x, y = network_and_images()
    classifier = TensorFlowV2Classifier(
        network,
        nb_classes=10,
        input_shape=x.shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        ),
        clip_values=(0, 1),
    )
    linf = ak.threat_models.Linf(FLAGS.epsilon)
    l2 = ak.threat_models.L2(FLAGS.deepfool_epsilon)
    step_size = FLAGS.step_size or 2.5 * FLAGS.epsilon / 40
    theirs = {"batch_size": 128}
    quiet = {**theirs, "verbose": False}
    pairs = {
        "FGSM": (
            ak.attacks.FGSM(linf),
            evasion.FastGradientMethod(classifier, eps=FLAGS.epsilon, **theirs),
        ),
        "PGD-40": (
            ak.attacks.PGD(linf, step_size, 40, random_start=False),
            evasion.ProjectedGradientDescent(
                classifier,
                eps=FLAGS.epsilon,
                eps_step=step_size,
                max_iter=40,
                num_random_init=0,
                **quiet,
            ),
        ),
        f"DeepFool, l_2 {FLAGS.deepfool_epsilon:g}": (
            ak.attacks.DeepFool(l2),
            evasion.DeepFool(classifier, max_iter=50, epsilon=0.02, **quiet),
        ),
        f"Square-{FLAGS.queries}": (
            ak.attacks.Square(linf, FLAGS.queries, rescale_schedule=True),
            evasion.SquareAttack(
                classifier, eps=FLAGS.epsilon, max_iter=FLAGS.queries, **quiet
            ),
        ),
    }
    print(f"{FLAGS.model}, {len(x)} images, l_inf {FLAGS.epsilon:g}")
    print("attack            accuracy   ART's   images/s   ART's")
    rows = []
    for name, (own, other) in pairs.items():
        own(network, x[:2], y[:2])  # compiles
        start = time.perf_counter()
        x_own = own(network, x, y, seed=0)
        middle = time.perf_counter()
        x_other = other.generate(x, y=y)
        end = time.perf_counter()
        # ART's DeepFool knows no radius: what went farther doesn't count.
        norm = own.threat_model
        inside = np.asarray(norm.norm(tf.constant(x_other - x)))
        outside = inside > norm.epsilon * (1 + 1e-5)
        x_other = np.where(outside[:, None, None, None], x, x_other)
        row = {
            "attack": name,
            "accuracy": [accuracy(network, z, y) for z in (x_own, x_other)],
            "images_per_second": [
                len(x) / (middle - start),
                len(x) / (end - middle),
            ],
        }
        rows.append(row)
        a, b = row["accuracy"]
        print(
            f"{name:<17} {100 * a:6.2f} % {100 * b:6.2f} % "
            f"{row['images_per_second'][0]:8.1f} "
            f"{row['images_per_second'][1]:8.1f}",
            flush=True,
        )
    return rows


def main(argv):
    del argv
    if FLAGS.table != "linear" and FLAGS.model is None:
        raise app.UsageError(f"--table={FLAGS.table} needs a --model")
    # Nor in TF32, which a GPU would take for float32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    found = {"linear": linear, "stages": stages, "art": art}[FLAGS.table]()
    text = json.dumps({"flags": FLAGS.flag_values_dict(), "rows": found})
    pathlib.Path(FLAGS.output).write_text(text + "\n")


if __name__ == "__main__":
    app.run(main)
