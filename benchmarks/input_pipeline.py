r"""How many images a second the training data come at, with no step to feed.

    pip install . && python benchmarks/input_pipeline.py

Bytes as many and as large as CIFAR-10's, shuffled, cropped and mirrored as
training takes them. A step is never slowed where this is well above the images
a second of `train_step.py`.
"""

import itertools
import time

import numpy as np
from absl import app
from absl import flags

import atent_keras as ak

FLAGS = flags.FLAGS
flags.DEFINE_integer("images", 45_000, "Images of the set.", lower_bound=1)
flags.DEFINE_list("batch_sizes", ["128", "512"], "Images a batch.")
flags.DEFINE_integer("batches", 500, "Timed batches.", lower_bound=1)

WARM_UP = 20  # batches, until the pipeline has found its parallelism


def images_per_second(batch_size, augment):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (FLAGS.images, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(0, 10, FLAGS.images)
    batches = iter(
        ak.datasets.pipeline(
            x, y, batch_size, shuffle=True, augment=augment, endless=True
        )
    )
    for _ in itertools.islice(batches, WARM_UP):
        pass
    start = time.perf_counter()
    for _ in itertools.islice(batches, FLAGS.batches):
        pass
    return FLAGS.batches * batch_size / (time.perf_counter() - start)


def main(argv):
    del argv
    print(f"{'batch':>6}{'as they are':>14}{'cropped, mirrored':>20}  images/s")
    for batch_size in map(int, FLAGS.batch_sizes):
        plain, augmented = (
            images_per_second(batch_size, augment) for augment in (False, True)
        )
        print(f"{batch_size:6}{plain:14.0f}{augmented:20.0f}", flush=True)


if __name__ == "__main__":
    app.run(main)
