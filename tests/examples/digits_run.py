"""Runs examples/mnist.py on digits: real data that come with a package."""

import sys

import numpy as np
from absl import app

import atent_keras as ak
import settings
import training


def digits(split, batch_size, limit=None, data_dir=None, **training):
    """Stands in for `atent_keras.datasets.mnist`, its images of 28x28."""
    (x, y), test = ak.datasets.digits()
    if split == "test":
        x, y = test
    elif split == "validation":
        x, y = x[-200:], y[-200:]
    x, y = x[:limit], y[:limit]
    x = np.pad(x.repeat(3, 1).repeat(3, 2), [(0, 0), (2, 2), (2, 2), (0, 0)])
    return ak.datasets.pipeline(
        x, y, batch_size, shuffle=split == "train", **training
    )


settings.define("mnist", "small_cnn", ["mnist_linf", "mnist_l2"], 3)

if __name__ == "__main__":
    ak.datasets.mnist = digits
    app.run(lambda argv: training.run("mnist", argv), sys.argv)
