import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras import margins
from atent_keras.attacks import DLR
from atent_keras.attacks import PGD
from atent_keras.attacks import Margin
from atent_keras.threat_models import Linf
from conftest import small_network

LOGITS = tf.constant([[4.0, 1.0, 3.0, 0.0, -2.0], [1.0, 2.0, 5.0, 4.0, 0.0]])
Y = tf.constant([0, 3])


def test_values_by_hand():
    np.testing.assert_allclose(margins.margin(LOGITS, Y), [1, -1])
    # Over the lead of the first over the third: 4 - 1, and 5 - 2.
    np.testing.assert_allclose(margins.dlr(LOGITS, Y), [-1 / 3, 1 / 3])
    # Over the first's lead over the mean of third and fourth.
    np.testing.assert_allclose(
        margins.targeted_dlr(LOGITS, Y, tf.constant([1, 0])),
        [(1 - 4) / (4 - 0.5), (1 - 4) / (5 - 1.5)],
        rtol=1e-6,
    )
    np.testing.assert_array_equal(
        margins.likeliest_others(LOGITS, Y), [[2, 1, 3, 4], [2, 1, 0, 4]]
    )


def test_a_single_logit_is_the_second_of_a_pair():
    single, y = tf.constant([[2.0], [-3.0]]), tf.constant([1, 1])
    pair = margins.of_classes(single)
    np.testing.assert_array_equal(pair, [[0, 2], [0, -3]])
    assert margins.of_classes(LOGITS) is LOGITS
    np.testing.assert_array_equal(margins.margin(single, y), [2, -3])
    np.testing.assert_array_equal(margins.difference(single, y, 1 - y), [-2, 3])
    np.testing.assert_array_equal(
        margins.likeliest_others(single, y), [[0]] * 2
    )
    for labels in ([1, 0], [[1], [0]], [1, -1]):
        for loss in (Margin(), DLR()):
            np.testing.assert_array_equal(loss.call(labels, single), [-2, -3])


def test_the_ratios_know_neither_scale_nor_shift():
    for loss in (
        margins.dlr,
        lambda logits, y: margins.targeted_dlr(logits, y, tf.constant([1, 0])),
    ):
        np.testing.assert_allclose(
            loss(1e3 * LOGITS - 7, Y), loss(LOGITS, Y), rtol=1e-4
        )


def test_few_classes():
    y, target = tf.constant([0]), tf.constant([1])
    three, two = tf.constant([[3.0, 1.0, 0.0]]), tf.constant([[3.0, 1.0]])
    np.testing.assert_allclose(margins.dlr(three, y), [-2])
    np.testing.assert_allclose(margins.targeted_dlr(three, y, target), [-2])
    np.testing.assert_allclose(margins.dlr(two, y), [-2])
    np.testing.assert_allclose(margins.targeted_dlr(two, y, target), [-2])


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_every_target_has_a_gradient(classes):
    """The last of three classes, too, whose ratio over z[0] - z[2] is -1."""
    logits = tf.Variable(4.0 - tf.range(classes, dtype="float32")[None] ** 2)
    for target in range(1, classes):
        with tf.GradientTape() as tape:
            value = margins.targeted_dlr(
                logits, tf.constant([0]), tf.constant([target])
            )
        gradient = tape.gradient(value, logits).numpy()
        assert gradient[0, target] > 0


def test_equal_logits_give_no_nan():
    logits = tf.Variable(tf.zeros((1, 5)))
    for loss in (
        margins.dlr,
        lambda logits, y: margins.targeted_dlr(logits, y, tf.constant([1])),
    ):
        with tf.GradientTape() as tape:
            value = loss(logits, tf.constant([0]))
        assert np.all(np.isfinite(value))
        assert np.all(np.isfinite(tape.gradient(value, logits)))


@pytest.mark.parametrize("loss", [Margin(), DLR()], ids=repr)
def test_as_keras_losses(loss):
    function = -margins.margin(LOGITS, Y)
    if isinstance(loss, DLR):
        function = margins.dlr(LOGITS, Y)
    for y in ([0, 3], [[0], [3]], keras.utils.to_categorical([0, 3], 5)):
        np.testing.assert_allclose(loss.call(np.array(y), LOGITS), function)
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert again == loss and hash(again) == hash(loss)
    assert type(loss)() == loss
    assert loss != keras.losses.CategoricalHinge()
    assert Margin() != DLR()


def test_pgd_climbs_what_it_is_given(batch):
    x, y = batch
    network = small_network()
    before = network(x)
    for loss in (Margin(), DLR()):
        x_adv = PGD(Linf(0.05), loss=loss)(network, x, y, seed=0)
        after = network(x_adv)
        assert np.all(loss.call(y, after) >= loss.call(y, before))
        one_hot = keras.utils.to_categorical(y, 10)
        np.testing.assert_array_equal(
            PGD(Linf(0.05), loss=loss)(network, x, one_hot, seed=0), x_adv
        )


def test_logits_and_labels_are_checked(batch):
    x, y = batch
    network = small_network()
    attack = PGD(Linf(0.1), loss=DLR())
    softmax = keras.Model(
        network.inputs, keras.layers.Softmax()(network.outputs[0])
    )
    with pytest.raises(ValueError, match="DLR expects logits .* Received"):
        attack(softmax, x, y)
    with pytest.raises(ValueError, match=r"Labels must lie in 0..9 .* from"):
        attack(network, x, y + 1)
