import functools
import gc

import keras
import numpy as np
import pytest

import atent_keras as ak
from atent_keras import memory
from atent_keras.attacks import PGD
from atent_keras.memory import Memory
from atent_keras.memory import by_value
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import small_loss


class Weighted(keras.losses.Loss):
    """A loss whose config does not know its setting."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def call(self, y_true, y_pred):
        return self.weight * y_pred[:, 0]


EQUAL = {
    "loss": cross_entropy,
    "robust loss": small_loss,
    "without config": lambda: Weighted(2.0),
    "schedule": lambda: keras.optimizers.schedules.CosineDecay(0.1, 9),
    "attack": lambda: PGD(Linf(0.1), loss=cross_entropy()),
    "list": lambda: ak.attacks.AutoAttack(
        L2(0.1), [PGD(L2(0.1), loss=Weighted(1.0))]
    ),
}


@pytest.mark.parametrize("make", EQUAL.values(), ids=EQUAL)
def test_equal_settings_have_one_key(make):
    assert by_value(make()) == by_value(make())
    assert hash(by_value(make())) == hash(by_value(make()))


DIFFERENT = {
    "argument": (
        cross_entropy(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=False),
    ),
    "class": (keras.losses.Hinge(), keras.losses.SquaredHinge()),
    "without config": (Weighted(1.0), Weighted(2.0)),
    "array": (Weighted(np.ones(2)), Weighted(np.ones(2))),
    "function": (
        lambda y, y_pred: y_pred[:, 0],
        lambda y, y_pred: y_pred[:, 1],
    ),
    "norm": (PGD(Linf(0.1)), PGD(L2(0.1))),
    "loss of an attack": (
        PGD(Linf(0.1), loss="hinge"),
        PGD(Linf(0.1), loss="squared_hinge"),
    ),
}


@pytest.mark.parametrize("one, other", DIFFERENT.values(), ids=DIFFERENT)
def test_different_settings_have_different_keys(one, other):
    assert by_value(one) != by_value(other)
    assert by_value(one) == by_value(one)


def test_what_was_not_used_for_long_is_forgotten(monkeypatch):
    monkeypatch.setattr(memory, "_MOST", 3)
    made, kept = [], Memory()

    def get(key):
        return kept.get(test_equal_settings_have_one_key, key, make(key))

    def make(key):
        return lambda: made.append(key) or key

    assert [get(key) for key in (1, 2, 3, 1, 4)] == [1, 2, 3, 1, 4]
    assert made == [1, 2, 3, 4]
    get(1), get(3)
    assert made == [1, 2, 3, 4]
    get(2)
    assert made == [1, 2, 3, 4, 2]


def test_nothing_outlives_its_network():
    kept, made = Memory(), []

    def one(network):
        return kept.get(network, "key", lambda: made.append(network) or object)

    network = functools.partial(print)
    one(network), one(network)
    assert len(made) == 1
    made.clear()
    del network
    gc.collect()
    assert not len(kept._found)


def test_what_has_no_weak_reference_is_not_remembered():
    kept, made = Memory(), []
    for _ in range(2):
        assert kept.get(7, "key", lambda: made.append(1) or len(made))
    assert len(made) == 2
