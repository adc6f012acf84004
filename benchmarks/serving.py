"""Latency and throughput of an exported classifier, beside Keras's own.

    python benchmarks/serving.py

One table, and `serving.json`. The ways are interleaved, so that a busy
machine slows all of them alike; figures are medians with quartiles.
"""

import json
import pathlib
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

import atent_keras as ak

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 50, "Measurements of each way.", lower_bound=3)
flags.DEFINE_string("output", "serving.json", "JSON file to write.")


def ways(model, signatures, images):
    """Functions that classify `images`, by name."""
    levels = np.round(images * 255).astype("uint8")
    floats = tf.constant(images)
    files = tf.stack([tf.io.encode_png(level) for level in levels])
    levels = tf.constant(levels)
    return {
        "model.predict": lambda: model.predict(images, verbose=0),
        "model(x)": lambda: np.asarray(model(floats, training=False)),
        "SavedModel, floats": lambda: signatures["serving_default"](
            images=floats
        )["label"].numpy(),
        "SavedModel, uint8": lambda: signatures["uint8"](images=levels)[
            "label"
        ].numpy(),
        "SavedModel, PNG": lambda: signatures["encoded"](images=files)[
            "label"
        ].numpy(),
    }


def main(argv):
    del argv
    rng = np.random.default_rng(0)
    rows = []
    print(f"{'network':<10} {'batch':>5} {'way':<20} ms [quartiles]  images/s")
    for name in ("SmallCNN", "ResNet20"):
        model = getattr(ak.architectures, name)()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model"
            ak.export_classifier(model, path)
            signatures = tf.saved_model.load(str(path)).signatures
        for batch in (1, 64):
            images = rng.random((batch, *model.input_shape[1:]), "float32")
            functions = ways(model, signatures, images)
            times = {way: [] for way in functions}
            for round in range(FLAGS.rounds + 3):
                for way, function in functions.items():
                    start = time.perf_counter()
                    function()
                    if round >= 3:
                        times[way].append(time.perf_counter() - start)
            for way, seconds in times.items():
                low, median, high = np.percentile(seconds, [25, 50, 75]) * 1e3
                rows.append(
                    {
                        "network": name,
                        "batch": batch,
                        "way": way,
                        "milliseconds": [low, median, high],
                        "images_per_second": 1e3 * batch / median,
                    }
                )
                print(
                    f"{name:<10} {batch:>5} {way:<20} {median:7.2f} "
                    f"[{low:.2f}, {high:.2f}] {1e3 * batch / median:9.0f}"
                )
    pathlib.Path(FLAGS.output).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
