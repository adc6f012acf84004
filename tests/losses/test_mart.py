import keras
import numpy as np
import pytest
import tensorflow as tf

import rivals
from rivals import mart


def by_hand(network, x, x_adv, y, beta=5.0):
    q, p = tf.nn.softmax(network(x)), tf.nn.softmax(network(x_adv))
    own = tf.one_hot(y, 3, dtype=p.dtype)
    others = tf.reduce_max(p - 2 * own, axis=-1)
    boosted = -tf.math.log(tf.reduce_sum(own * p, axis=-1))
    boosted -= tf.math.log(1.0001 - others + 1e-12)
    divergence = tf.reduce_sum(q * tf.math.log(q / (p + 1e-12)), axis=-1)
    unsure = 1.0000001 - tf.reduce_sum(own * q, axis=-1)
    return boosted + beta * unsure * divergence


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"]
)
def test_loss_and_gradients_are_those_of_the_formula(reduction, weighted):
    rivals.assert_follows(lambda: mart(reduction=reduction), by_hand, weighted)


def test_without_the_divergence_it_is_boosted_cross_entropy():
    with rivals.exactly():
        network, (x, y) = (
            rivals.network(penalized=False),
            rivals.data(1),
        )
        step = mart(beta=0).value_and_gradients(network, x, y)
        scores = np.exp(network(step.x_adv))
        p = scores / scores.sum(axis=1, keepdims=True)
        rows = np.arange(len(p))
        own = p[rows, y]
        p[rows, y] = 0
        expected = -np.log(own) - np.log(1.0001 - p.max(axis=1))
        np.testing.assert_allclose(step.loss, expected.mean(), rtol=1e-9)


@pytest.mark.parametrize("sure", [-50.0, 50.0])
def test_it_stays_finite_where_the_network_is_sure(sure):
    network, (x, _) = (
        rivals.network(penalized=False),
        rivals.data(1),
    )
    bias = network.layers[-1].bias
    bias.assign(sure * keras.ops.one_hot(0, 3))
    for label in (0, 1):
        y = np.full(len(x), label)
        step = mart().value_and_gradients(network, x, y)
        for value in (step.loss, *step.gradients, step.x_adv):
            assert np.isfinite(value).all()
