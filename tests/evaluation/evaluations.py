"""What tests of evaluations share: attacks, networks, data, comparisons."""

import dataclasses
import json

import keras
import numpy as np

import atent_keras as ak
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from conftest import GPU
from conftest import assert_repeats
from conftest import cross_entropy
from conftest import small_network


def evaluate(network, data, attacks, **settings):
    """Without a bar and checks, unless they are asked for."""
    settings = {"checks": None, "verbose": 0, **settings}
    return ak.evaluate_robustness(network, data, attacks, **settings)


def linear_network(weights):
    """Two classes; a row of weights for each pixel, or the weights of one."""
    weights = np.asarray(weights)
    if weights.ndim == 1:
        weights = np.stack([weights, -weights], axis=1)
    inputs = keras.Input((len(weights),))
    network = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    network.set_weights(
        [np.asarray(weights, "float32"), np.zeros(2, "float32")]
    )
    return network


@dataclasses.dataclass(frozen=True)
class Returns(FGSM):
    """Gives back what a function makes of the images."""

    found: object = None

    def __call__(self, model, x, y, seed=None, first=0):
        return self.found(x)


@dataclasses.dataclass(frozen=True)
class Counted(PGD):
    """PGD, which remembers the places that it was called for."""

    def __call__(self, model, x, y, seed=None, first=0):
        Counted.calls.append(np.asarray(first).tolist())
        return super().__call__(model, x, y, seed, first)


Counted.calls = []


def counting():
    """Returns the list of what `Counted` is called for from now on."""
    Counted.calls.clear()
    return Counted.calls


def digits_network(digits):
    network = small_network()
    network.compile("adam", cross_entropy())
    network.fit(digits[0][:600], digits[1][:600], epochs=3, verbose=0)
    return network


def as_batches(digits, size=50, count=200):
    x, y = digits[0][600 : 600 + count], digits[1][600 : 600 + count]
    return [(x[i : i + size], y[i : i + size]) for i in range(0, count, size)]


def assert_same(one, other):
    """The reports' figures are the same, but for the time that it took."""
    assert_repeats(other.arrays(), one.arrays())
    if GPU:
        return
    assert one.findings == other.findings
    one, other = (json.loads(report.to_json()) for report in (one, other))
    assert without_seconds(one) == without_seconds(other)


def without_seconds(report):
    """A report from JSON without what differs from run to run."""
    for row in report["rows"]:
        del row["seconds"]
    return report
