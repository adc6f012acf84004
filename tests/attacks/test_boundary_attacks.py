"""Attacks that look for the smallest perturbation, against known ones."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras.attacks import FAB
from atent_keras.attacks import CarliniWagner
from atent_keras.attacks import DeepFool
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

NORMS = [Linf, L2]


def wide(norm, epsilon):
    """A threat model whose box does not bind."""
    return norm(epsilon, bounds=(-9.0, 9.0))


def linear(classes, seed=0):
    """A linear network of 12 pixels, and images that it classifies right."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((2, 3, 2))
    flat = keras.layers.Flatten()(inputs)
    network = keras.Model(inputs, keras.layers.Dense(classes)(flat))
    weights = rng.normal(size=(12, classes)).astype("float32")
    network.set_weights([weights, np.zeros(classes, "float32")])
    x = rng.uniform(0.4, 0.6, size=(50, 2, 3, 2)).astype("float32")
    return network, weights, x, np.argmax(network(x), axis=-1)


def closed_form(norm, weights, x, y):
    """The distance to the nearest boundary: its gap over its dual norm."""
    logits = x.reshape(len(x), -1) @ weights
    distances = np.full(logits.shape, np.inf)
    for k in range(weights.shape[1]):
        normals = (weights[:, [k]] - weights[:, y]).T
        dual = (
            np.abs(normals).sum(axis=1)
            if norm is Linf
            else np.sqrt((normals**2).sum(axis=1))
        )
        gap = logits[np.arange(len(y)), y] - logits[:, k]
        distances[k != y, k] = (gap / np.maximum(dual, 1e-9))[k != y]
    return distances.min(axis=1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [None, 1])
def test_fab_finds_the_smallest_perturbation_of_two_classes(norm, targets):
    network, weights, x, y = linear(2)
    smallest = closed_form(norm, weights, x, y)
    x_adv = FAB(wide(norm, 9.0), 20, targets)(network, x, y)
    assert np.all(np.argmax(network(x_adv), axis=-1) != y)
    found = norm(1.0).norm(x_adv - x).numpy()
    assert np.all(found >= smallest * (1 - 1e-4))
    assert np.all(found <= smallest * 1.011)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [None, 9])
def test_fab_decides_as_the_closed_form_does(norm, targets):
    network, weights, x, y = linear(10)
    smallest = closed_form(norm, weights, x, y)
    for epsilon in np.quantile(smallest, [0.2, 0.5, 0.8]):
        attack = FAB(wide(norm, float(epsilon)), 20, targets)
        x_adv = attack(network, x, y, seed=0)
        fooled = np.argmax(network(x_adv), axis=-1) != y
        sure = np.abs(smallest / epsilon - 1) > 0.02
        assert sure.sum() > 40
        np.testing.assert_array_equal(fooled[sure], smallest[sure] < epsilon)


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_of_fab_by_hand(norm):
    """In a box that does not bind, all on the line to the boundary."""
    x = tf.constant([[0.5, 0.5]])
    normal = tf.constant([[3.0, 4.0]])
    # Undecided where 3 p_0 + 4 p_1 = 1.4, seen from a point on the way.
    way = np.array([0.2, 0.2] if norm is Linf else [0.168, 0.224])
    point = x + tf.constant(0.5 * way, tf.float32)
    found = FAB(norm(1.0)).step(x, point, tf.constant([-0.7]), normal)
    # Half the way is left: a = 0.5 / (0.5 + 1), cut to 0.1.
    mixed = 0.9 * (0.5 + 1.05 * 0.5) + 0.1 * 1.05
    np.testing.assert_allclose(found, x + mixed * way, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_start_elsewhere(norm):
    network, _, x, y = linear(3)
    starts = []

    class Spy(FAB):
        def step(self, x, point, gap, normal):
            starts.append(point.numpy())
            return super().step(x, point, gap, normal)

    network.run_eagerly = True
    # So small a ball that all stand, to be tried again.
    Spy(norm(1e-3), 1, targets=1, restarts=2)(network, x, y, seed=0)
    assert len(starts) == 2
    np.testing.assert_array_equal(starts[0], x)
    away = norm(1.0).norm(tf.constant(starts[1] - x)).numpy()
    assert np.all(away > 0) and np.all(away <= 0.5e-3 * 1.001)


def kinked(seed):
    """A ReLU network of two pixels, and the images it classifies right."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((1, 2, 1))
    hidden = keras.layers.Dense(6, activation="relu")
    flat = hidden(keras.layers.Flatten()(inputs))
    network = keras.Model(inputs, keras.layers.Dense(3)(flat))
    network.set_weights(
        [
            rng.normal(size=(2, 6)) * 3,
            rng.normal(size=6),
            rng.normal(size=(6, 3)),
            rng.normal(size=3),
        ]
    )
    x = rng.uniform(0.1, 0.9, size=(40, 1, 2, 1)).astype("float32")
    return network, x, np.argmax(network(x), axis=-1)


def enumerated(norm, network, x, y, side=501):
    """The smallest perturbation among all points of a fine grid of the box."""
    line = np.linspace(0, 1, side, dtype="float32")
    grid = np.array(list(itertools.product(line, line)), "float32")
    classes = np.argmax(
        network.predict(grid.reshape(-1, 1, 2, 1), 65536, verbose=0), axis=-1
    )
    smallest = []
    for image, label in zip(x.reshape(-1, 2), y):
        apart = np.abs(grid[classes != label] - image)
        length = apart.max(1) if norm is Linf else np.hypot(*apart.T)
        smallest.append(length.min(initial=np.inf))
    return np.array(smallest)


@pytest.mark.parametrize("norm", NORMS)
def test_fab_on_a_piecewise_linear_network(norm):
    network, x, y = kinked(7)
    smallest = enumerated(norm, network, x, y)
    assert len(set(y)) == 3 and np.isfinite(smallest).all()
    attack = FAB(norm(1.5), 50, targets=None)
    found = norm(1.0).norm(attack(network, x, y) - x).numpy()
    # The grid is too coarse by up to a cell, and so is its minimum.
    assert np.all(found >= smallest - 3e-3)
    # A local search: nearly all are the global optimum.
    assert np.mean(found <= 1.03 * smallest + 2e-3) >= 0.9


@pytest.mark.parametrize("norm", NORMS)
def test_deepfool_takes_one_step_on_a_linear_network(norm):
    network, weights, x, y = linear(10)
    smallest = closed_form(norm, weights, x, y)
    for num_steps in (1, 50):
        attack = DeepFool(wide(norm, 9.0), num_steps, overshoot=0.02)
        x_adv = attack(network, x, y)
        assert np.all(np.argmax(network(x_adv), axis=-1) != y)
        lengths = norm(1.0).norm(x_adv - x)
        np.testing.assert_allclose(lengths, 1.02 * smallest, rtol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_deepfool_on_a_piecewise_linear_network(norm):
    network, x, y = kinked(7)
    smallest = enumerated(norm, network, x, y)
    x_adv = DeepFool(norm(1.5))(network, x, y)
    fooled = np.argmax(network(x_adv), axis=-1) != y
    found = norm(1.0).norm(x_adv - x).numpy()
    assert fooled.mean() > 0.9
    assert np.all(found[fooled] >= smallest[fooled] - 3e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_deepfool_crosses_where_the_box_is_in_the_way(norm):
    network, _, x, _ = linear(3)
    x = np.where(x > 0.5, 1.0, 0.0).astype("float32")
    y = np.argmax(network(x), axis=-1)
    # The corner that is best for a wrong class lies beyond the boundary.
    x_adv = DeepFool(norm(9.0))(network, x, y)
    assert np.all(np.argmax(network(x_adv), axis=-1) != y)


def test_carlini_wagner_finds_the_smallest_perturbation():
    network, weights, x, y = linear(3)
    smallest = closed_form(L2, weights, x, y)
    attack = CarliniWagner(L2(2.0, (-1.0, 2.0)), 300, 6, 0.02, 0.1)
    x_adv = attack(network, x, y)
    assert np.all(np.argmax(network(x_adv), axis=-1) != y)
    found = L2(1.0).norm(x_adv - x).numpy()
    assert np.all(found >= smallest * (1 - 1e-4))
    assert (
        np.median(found / smallest) < 1.03 and np.max(found - smallest) < 0.02
    )


def test_carlini_wagners_confidence_is_a_lead():
    network, _, x, y = linear(3)
    attack = CarliniWagner(
        L2(3.0, (-1.0, 2.0)), 300, 6, 0.02, 0.1, confidence=0.5
    )
    logits = network(attack(network, x, y)).numpy()
    own = logits[np.arange(len(y)), y]
    logits[np.arange(len(y)), y] = -np.inf
    assert np.all(logits.max(axis=1) - own > 0.5 - 1e-4)


def test_what_lies_outside_the_ball_is_drawn_back():
    network, _, x, y = linear(3)
    for norm in NORMS:
        attacks = [FAB(norm(0.01), 10), DeepFool(norm(0.01), 10)]
        if norm is L2:
            attacks.append(CarliniWagner(norm(0.01), 50, 3, 0.02, 0.1))
        for attack in attacks:
            if isinstance(attack, FAB):
                with pytest.warns(UserWarning, match="FAB-T tries all 2"):
                    x_adv = attack(network, x, y)
            else:
                x_adv = attack(network, x, y)
            lengths = norm(1.0).norm(x_adv - x).numpy()
            assert lengths.max() <= 0.01 + 6e-8  # the rounding of a pixel
            assert np.median(lengths) > 0.009


def test_an_image_that_is_misclassified_as_it_is_stays():
    network, _, x, y = linear(3)
    wrong = (y + 1) % 3
    for attack in (FAB(L2(0.1), 5, 2), CarliniWagner(L2(0.1), 20, 2)):
        np.testing.assert_allclose(attack(network, x, wrong), x, atol=1e-7)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FAB(L2(1.0), targets=0), "`targets` must be an integer"),
        (lambda: FAB(L2(1.0), restarts=0), "`restarts` must be an integer"),
        (lambda: FAB(L2(1.0), num_steps=0), "`num_steps` must be an integer"),
        (lambda: DeepFool(L2(1.0), 0), "`num_steps` must be an integer"),
        (lambda: DeepFool(L2(1.0), overshoot=-1), "`overshoot` must be"),
        (lambda: CarliniWagner(Linf(0.1)), "`threat_model` must be L2"),
        (lambda: CarliniWagner(L2(1.0), 0), "`num_steps` must be an integer"),
        (
            lambda: CarliniWagner(L2(1.0), search_steps=0),
            "`search_steps` must be an integer",
        ),
        (
            lambda: CarliniWagner(L2(1.0), learning_rate=0),
            "`learning_rate` must be a finite positive",
        ),
        (
            lambda: CarliniWagner(L2(1.0), initial_weight=0),
            "`initial_weight` must be a finite positive",
        ),
        (
            lambda: CarliniWagner(L2(1.0), confidence=-1),
            "`confidence` must be",
        ),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=f"{message}.* Received"):
        make()
