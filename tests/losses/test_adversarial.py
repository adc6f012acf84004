import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import rivals
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from conftest import cross_entropy
from conftest import small_network
from rivals import adversarial
from rivals import pgd


def by_hand(network, x, x_adv, y):
    p = tf.nn.softmax(network(x_adv))
    return -tf.math.log(tf.gather(p, y, batch_dims=1))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reduction": "sum"},
        {"reduction": "mean_with_sample_weight"},
    ],
    ids=str,
)
def test_loss_and_gradients_are_those_of_the_formula(settings):
    rivals.assert_follows(lambda: adversarial(**settings), by_hand, True)


@pytest.mark.parametrize(
    "attack",
    [
        pgd(L2(0.3), random_start=False),
        pgd(loss=ak.attacks.Margin(), random_start=False),
        ak.attacks.FGSM(Linf(0.1)),
    ],
    ids=repr,
)
def test_the_points_are_the_attack_s(attack):
    x, y = rivals.data(1)
    network = rivals.network()
    step = adversarial(attack).value_and_gradients(network, x, y)
    expected = attack(network, x, y)
    np.testing.assert_allclose(step.x_adv, expected, atol=1e-6)


@pytest.mark.parametrize(
    "attack",
    [ak.attacks.APGD(Linf(0.1), num_steps=3), ak.attacks.DeepFool(L2(0.3))],
    ids=lambda attack: attack.name,
)
def test_attacks_that_search_find_points_too(attack):
    x, y = rivals.data(1)
    step = adversarial(attack).value_and_gradients(rivals.network(), x, y)
    moved = attack.threat_model.norm(step.x_adv - x)
    assert 0.01 < np.max(moved) < attack.threat_model.epsilon * 1.0001


def test_probabilities_are_climbed_as_their_logits():
    """Also where the network is so sure that the probabilities are flat."""
    x, y = rivals.data(1)
    network = rivals.network(penalized=False)
    network.layers[-1].kernel.assign(100 * network.layers[-1].kernel)
    softmax = keras.layers.Softmax()(network.output)
    softmax = keras.Model(network.input, softmax)
    attack = pgd(random_start=False)
    plain = ak.AdversarialLoss(
        keras.losses.SparseCategoricalCrossentropy(), attack
    )
    expected = adversarial(attack).value_and_gradients(network, x, y).x_adv
    step = plain.value_and_gradients(softmax, x, y)
    np.testing.assert_allclose(step.x_adv, expected, atol=1e-6)
    compiled = dataclasses.replace(attack, loss=plain.loss)(softmax, x, y)
    np.testing.assert_allclose(compiled, expected, atol=1e-6)


def test_binary_networks():
    x, y = rivals.data(1)
    y = (y > 0).astype("float32")
    inputs = keras.Input((6,))
    network = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    base = keras.losses.BinaryCrossentropy(from_logits=True)
    loss = ak.AdversarialLoss(base, pgd(random_start=False))
    step = loss.value_and_gradients(network, x, y)
    # The loss of a linear network rises along the sign of its weights.
    sign = np.sign(network.layers[1].kernel).T * np.where(y, -1, 1)[:, None]
    np.testing.assert_allclose(
        step.x_adv, np.clip(x + 0.1 * sign, 0, 1), atol=1e-6
    )
    column = loss.value_and_gradients(network, x, y[:, None])
    assert_repeats(column.gradients, step.gradients)


@pytest.mark.parametrize(
    "attack, error, message",
    [
        (lambda: ak.attacks.Square(Linf(0.1)), ValueError, "follow a gradient"),
        (
            lambda: ak.attacks.UniformNoise(Linf(0.1)),
            ValueError,
            "follow a gradient",
        ),
        (lambda: ak.attacks.AutoAttack(Linf(0.1)), ValueError, "be a single"),
        (lambda: pgd(restarts=2), ValueError, "have restarts=1"),
        (lambda: Linf(0.1), TypeError, "be an `atent_keras.attacks`"),
    ],
)
def test_the_attack_must_fit(attack, error, message):
    with pytest.raises(error, match=f"`attack` must {message}.* Received"):
        ak.AdversarialLoss(cross_entropy(), attack())


def test_only_steps_along_a_gradient_know_a_training_mode():
    with pytest.raises(ValueError, match="`attack_training` is for .* Rec"):
        adversarial(ak.attacks.APGD(Linf(0.1)), attack_training=True)


def test_what_a_step_is_given_is_checked(batch):
    loss = ak.AdversarialLoss(cross_entropy(), pgd())
    network = small_network()
    for shape in [(32, 3), (3,)]:
        with pytest.raises(ValueError, match="`sample_weight` .* Received"):
            loss.value_and_gradients(network, *batch, np.ones(shape))
    column = loss.value_and_gradients(network, *batch, np.ones((32, 1)), seed=0)
    flat = loss.value_and_gradients(network, *batch, np.ones(32), seed=0)
    np.testing.assert_allclose(column.loss, flat.loss)
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        loss.value_and_gradients(lambda x: x, *batch)


def test_flags_are_booleans():
    for value in (None, "x", 1, np.nan):
        with pytest.raises(ValueError, match="`attack_training` must be True"):
            ak.AdversarialLoss(cross_entropy(), pgd(), attack_training=value)


def test_a_loss_without_an_attack_is_refused():
    with pytest.raises(TypeError, match="`attack` must be .* Received"):
        ak.losses.RobustLoss(cross_entropy(), None)
    with pytest.raises(ValueError, match="must have published settings"):
        ak.losses.RobustLoss.from_preset("mnist_linf")
