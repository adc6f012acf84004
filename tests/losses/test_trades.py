import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import rivals
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import largest_difference
from rivals import pgd
from rivals import sgld
from rivals import trades


def by_hand(network, x, x_adv, y):
    q, p = tf.nn.softmax(network(x)), tf.nn.softmax(network(x_adv))
    divergence = tf.reduce_sum(q * tf.math.log(q / p), axis=-1)
    return -tf.math.log(tf.gather(q, y, batch_dims=1)) + 6 * divergence


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clean_passes": 2},
        {"reduction": "sum"},
        {"reduction": "mean_with_sample_weight"},
    ],
    ids=str,
)
def test_loss_and_gradients_are_those_of_the_formula(settings, weighted):
    rivals.assert_follows(lambda: trades(**settings), by_hand, weighted)


@pytest.mark.parametrize("kind", [ak.TRADESLoss, ak.MARTLoss])
@pytest.mark.parametrize(
    "attack",
    [
        lambda: ak.attacks.FGSM(Linf(0.1)),
        lambda: ak.attacks.FGSM(L2(0.1)),
        lambda: sgld(L2(0.1), noise_scale=0.1),
        lambda: pgd(L2(0.1)),
    ],
)
def test_points_stay_in_ball_and_box(kind, attack):
    """Also those of attacks that expect to start at the image."""
    loss = kind(attack())
    x = np.float32(np.round(rivals.data(4)[0]))  # on the box's walls
    y = np.arange(len(x)) % 3
    step = loss.value_and_gradients(rivals.network(), x, y, seed=0)
    ball = loss.threat_model
    assert np.max(ball.norm(step.x_adv - x)) < ball.epsilon * (1 + 1e-5)
    assert np.min(step.x_adv) >= 0 and np.max(step.x_adv) <= 1
    assert np.max(ball.norm(step.x_adv - x)) > 0.01


def test_the_points_keep_what_a_ball_of_ones_own_asks_for():
    class Patch(L2):
        """Only the first half of the pixels may change."""

        def project(self, x, x_adv):
            free = tf.range(x.shape[-1]) < x.shape[-1] // 2
            return super().project(x, tf.where(free, x_adv, x))

    x, y = rivals.data(1)
    loss = trades(pgd(Patch(0.3)))
    step = loss.value_and_gradients(rivals.network(), x, y, seed=0)
    moved = np.max(np.abs(step.x_adv - x), axis=0)
    np.testing.assert_array_equal(moved[3:], 0)
    assert np.min(moved[:3]) > 0.001


def test_the_points_climb_the_divergence():
    x, y = rivals.data(4)
    network = rivals.network()
    values = [
        np.mean(by_hand(network, x, step.x_adv, y))
        for step in (
            trades(pgd(num_steps=steps)).value_and_gradients(
                network, x, y, seed=0
            )
            for steps in (1, 2, 6)
        )
    ]
    assert values == sorted(values) and values[-1] > 1.01 * values[0]


@pytest.mark.parametrize("kind", [ak.TRADESLoss, ak.MARTLoss])
def test_one_hot_and_column_labels_are_integer_labels(kind):
    with rivals.exactly():
        x, y = rivals.data(1)
        network = rivals.network()

        def found(y, loss=None):
            step = kind(pgd(), loss=loss).value_and_gradients(network, x, y)
            return [step.loss, *step.gradients]

        one_hot = keras.losses.CategoricalCrossentropy(from_logits=True)
        expected = found(y)
        rows = found(keras.utils.to_categorical(y, 3), one_hot)
        assert largest_difference(rows, expected) < 1e-9
        assert largest_difference(found(y[:, None]), expected) < 1e-9


@pytest.mark.parametrize("kind", [ak.TRADESLoss, ak.MARTLoss])
@pytest.mark.parametrize("beta", [-1, np.nan, np.inf, "6", True, None])
def test_beta_must_be_in_range(kind, beta):
    with pytest.raises(ValueError, match="`beta` must be .* Received: beta="):
        kind(pgd(), beta)


@pytest.mark.parametrize("kind", [ak.TRADESLoss, ak.MARTLoss])
@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.CategoricalCrossentropy(),
        keras.losses.BinaryCrossentropy(from_logits=True),
        keras.losses.CategoricalFocalCrossentropy(from_logits=True),
        "mse",
        "categorical_hinge",
        lambda y, y_pred: y_pred[:, 0],
    ],
    ids=[
        "sparse of probabilities",
        "categorical of probabilities",
        "binary",
        "focal",
        "mse",
        "hinge",
        "function",
    ],
)
def test_the_loss_must_be_a_cross_entropy_of_classes(kind, loss):
    message = f"The `loss` of {kind.__name__} must be .* Received: loss="
    with pytest.raises(ValueError, match=message):
        kind(pgd(), loss=loss)


@pytest.mark.parametrize("kind", [ak.TRADESLoss, ak.MARTLoss])
@pytest.mark.parametrize(
    "attack, error, message",
    [
        (lambda: ak.attacks.Square(Linf(0.1)), ValueError, "follow a gradient"),
        (
            lambda: ak.attacks.UniformNoise(Linf(0.1)),
            ValueError,
            "follow a gradient",
        ),
        (
            lambda: ak.attacks.AutoAttack(Linf(0.1)),
            ValueError,
            "be a single attack",
        ),
        (lambda: pgd(restarts=2), ValueError, "have restarts=1"),
        (lambda: ak.attacks.APGD(Linf(0.1)), ValueError, "from a start"),
        (lambda: Linf(0.1), TypeError, "be an `atent_keras.attacks`"),
        (lambda: "PGD", TypeError, "be an `atent_keras.attacks`"),
    ],
)
def test_the_attack_must_fit(kind, attack, error, message):
    with pytest.raises(error, match=f"`attack` must .*{message}"):
        kind(attack())


@pytest.mark.parametrize("passes", [0, 3, 1.5, True, "1", None])
def test_clean_passes_must_be_one_or_two(passes):
    message = "`clean_passes` must be 1 or 2. Received: clean_passes="
    with pytest.raises(ValueError, match=message):
        trades(clean_passes=passes)


def test_it_is_the_cross_entropy_to_keras():
    x, y = rivals.data()
    model = rivals.model_of(trades(), run_eagerly=True, penalized=False)
    expected = cross_entropy()(y, model(x))
    assert model.evaluate(x, y, verbose=0) == pytest.approx(float(expected))
