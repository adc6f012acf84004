"""Adds a trained network to those that come with the package.

    python tools/ship_weights.py --model=run/best.keras \\
        --evaluation=evaluation/run --dataset=mnist \\
        --name=mnist_linf_atent --method=ATENT \\
        --command="python examples/mnist.py --flagfile=..."

Every figure comes from files that `examples/evaluate.py` wrote, which have to
be of these weights, in float32, and of the data set's first test images. Of a
network that computes in bfloat16, `SmallCNN(weights="best.keras")` makes the
one to evaluate. The weights are rounded to float16, looked at once more, and
written beside the index, from where `weights=NAME` of the network's builder
takes them.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import sys
import tempfile

import keras
import numpy as np
from absl import app
from absl import flags
from absl import logging

import atent_keras as ak
from atent_keras.architectures import catalogue
from atent_keras.architectures import weights_files
from atent_keras.evaluation.batches import Digest
from atent_keras.evaluation.results import write
from atent_keras.evaluation.target import digest

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "The network: a .keras file.", required=True)
flags.DEFINE_string(
    "name", None, "What `weights` is to be called.", required=True
)
flags.DEFINE_enum(
    "architecture",
    "SmallCNN",
    [name for name in ak.architectures.__all__ if name != "weights"],
    "The builder of the network.",
)
flags.DEFINE_string(
    "arguments",
    "{}",
    "The builder's arguments but for `input_shape` and `classes`, as JSON, "
    'such as {"padding": "same"}.',
)
flags.DEFINE_enum(
    "dataset", None, ["mnist", "cifar10", "digits"], "The data.", required=True
)
flags.DEFINE_string("method", None, "What it was trained by.", required=True)
flags.DEFINE_string(
    "command", None, "The command that trained it.", required=True
)
flags.DEFINE_list(
    "evaluation",
    None,
    "Folders of evaluations, each with a report.json: of `evaluate.py`, or the "
    "`folder` of `evaluate_robustness`.",
    required=True,
)
flags.DEFINE_float(
    "largest_change",
    0.005,
    "The share of clean answers that rounding may change.",
    0.0,
    1.0,
)
flags.DEFINE_bool(
    "overwrite", False, "Whether to replace the network of that name."
)
flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets.")
flags.DEFINE_string(
    "output_dir", str(catalogue.FOLDER), "The folder with the index."
)

FIRST = 100  # images that the tests look at
KEPT = ("input_shape", "classes", "padding", "width", "depth")


def build(weights, arguments):
    return getattr(ak.architectures, FLAGS.architecture)(
        **arguments, weights=weights
    )


def arguments_of(network):
    """The builder's arguments, those that the file shows among them."""
    given = json.loads(FLAGS.arguments)
    if not isinstance(given, dict) or not given.keys() <= {*KEPT}:
        raise ValueError(
            f"--arguments must be JSON, with some of {', '.join(KEPT)}. "
            f"Received: {FLAGS.arguments}"
        )
    return {
        "input_shape": network.input_shape[1:],
        "classes": network.output_shape[-1],
        **given,
    }


def test_data():
    """All test images and labels, as arrays."""
    if FLAGS.dataset == "digits":
        return ak.datasets.digits()[1]
    batches = getattr(ak.datasets, FLAGS.dataset)(
        "test", 500, data_dir=FLAGS.data_dir
    )
    x, y = zip(*batches.as_numpy_iterator())
    return np.concatenate(x), np.concatenate(y)


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            "--evaluation must be folders of whole evaluations. Received: "
            f"{path}: {error}"
        ) from error


def measured(folder, network, data):
    """What an evaluation found, and the ball that it attacked in.

    Args:
        folder: Path of the evaluation.
        network: The network that it has to be of.
        data: The test images and labels that it has to be of.

    Returns:
        A dictionary of `Accuracy`, and a set of the norms and radii of its
        attacks.
    """
    report = read_json(folder / "report.json")
    settings = read_json(folder / "progress" / "settings.json")
    if settings.get("the model's weights") != digest(
        map(np.asarray, network.weights)
    ):
        raise ValueError(
            "--evaluation must be that of --model. Received: "
            f"{folder}, which is that of other weights"
        )
    count = report["num_examples"]
    if report["data"] != Digest().update(*(part[:count] for part in data)):
        raise ValueError(
            f"--evaluation must be on the first test images of "
            f"--dataset={FLAGS.dataset}. Received: {folder}, which is on others"
        )
    if report["precision"] != "float32":
        raise ValueError(
            "--evaluation must be in float32, in which the network will be "
            f"used. Received: {folder}, in {report['precision']}; evaluate "
            f"`ak.architectures.{FLAGS.architecture}(..., weights="
            f"{FLAGS.model!r}).save(...)`"
        )
    accuracies = {
        catalogue.CLEAN: catalogue.Accuracy(report["clean_accuracy"], count)
    }
    balls = set()
    for name, accuracy in report["robust_accuracy"].items():
        accuracies[name] = catalogue.Accuracy(
            accuracy, count, report["attacks"][name]
        )
        attack = settings[f"attack {name}"]
        if not isinstance(attack, dict):  # but its text, of anybody's own
            raise ValueError(
                "--evaluation must be by attacks whose ball is known, those of "
                f"`ak.attacks`. Received: {folder}, with {name}: {attack}"
            )
        ball = attack["config"]["threat_model"]
        balls.add((ball["class_name"].lower(), ball["config"]["epsilon"]))
    return accuracies, balls


def merged(evaluations):
    """The accuracies of all evaluations, of each the one of most images."""
    found = {}
    for accuracies in evaluations:
        for name, one in accuracies.items():
            if name not in found or one.num_examples > found[name].num_examples:
                found[name] = one
    return found


def answers(network, x):
    return np.argmax(network.predict(x, 500, verbose=0), axis=-1)


def first_images(network, data, threat_model):
    """What a network gets right of the first images, clean and attacked."""
    x, y = (part[:FIRST] for part in data)
    report = ak.evaluate_robustness(
        network,
        (x, y),
        {"PGD-40": ak.attacks.PGD(threat_model, num_steps=40)},
        checks=None,
        verbose=0,
    )
    return {
        "num_examples": len(x),
        "clean": int(report.correct.sum()),
        "PGD-40": int(report.robust["PGD-40"].sum()),
    }


def ship():
    folder = pathlib.Path(FLAGS.output_dir)
    known = dict(catalogue.Catalogue.read(folder))
    if not re.fullmatch("[a-z][a-z0-9_]*", FLAGS.name):
        raise ValueError(
            "--name must be small letters, digits and underscores. Received: "
            f"--name={FLAGS.name}"
        )
    if FLAGS.name in known and not FLAGS.overwrite:
        raise ValueError(
            f"--name must be new, or --overwrite given. Received: {FLAGS.name}"
        )
    saved = keras.models.load_model(FLAGS.model, compile=False)
    arguments = arguments_of(saved)
    exact = build(FLAGS.model, arguments)
    data = test_data()
    found, balls = zip(
        *(measured(pathlib.Path(one), exact, data) for one in FLAGS.evaluation)
    )
    balls = set.union(*balls)
    if len(balls) != 1:
        raise ValueError(
            "The attacks of --evaluation must share a norm and a radius. "
            f"Received: {sorted(balls)}"
        )
    norm, epsilon = balls.pop()
    with tempfile.TemporaryDirectory() as draft:
        path = pathlib.Path(draft) / f"{FLAGS.name}.npz"
        weights_files.write(path, exact)
        content = path.read_bytes()
        rounded = build(path, arguments)
    changed = int(np.sum(answers(exact, data[0]) != answers(rounded, data[0])))
    print(
        f"Rounding to float16 changes {changed} of {len(data[0])} clean answers"
    )
    if changed > FLAGS.largest_change * len(data[0]):
        raise ValueError(
            "Rounding must change at most the share --largest_change of the "
            f"answers. Received: {changed} of {len(data[0])}"
        )
    entry = catalogue.Pretrained(
        FLAGS.name,
        FLAGS.architecture,
        arguments,
        FLAGS.dataset,
        norm,
        epsilon,
        FLAGS.method,
        FLAGS.command,
        merged(found),
        {},
        hashlib.sha256(content).hexdigest(),
        folder,
    )
    looked_at = first_images(rounded, data, entry.threat_model)
    entry = dataclasses.replace(entry, first_images=looked_at)
    known[FLAGS.name] = entry
    # The index last: it is what tells of the file.
    write(entry.path, content)
    index = catalogue.Catalogue(known.values())
    write(folder / catalogue.INDEX, index.to_json())
    print(f"{len(content):,} bytes in {entry.path}\n{index}")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    try:
        ship()
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    app.run(main)
