import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from conftest import cross_entropy
from conftest import largest_difference
from conftest import small_loss
from conftest import small_network

# One pass per point, no noise: a chain that can be followed by hand.
STILL = {"noise_scale": 0.0, "random_start": False}


def chain_of(loss, network, x, y):
    """The chain's points, written out without any of the package's loops."""
    sampler, x = loss.sampler, tf.constant(x)
    points = [x]
    for k in range(1, sampler.num_steps + 1):
        with tf.GradientTape() as tape:
            tape.watch(points[-1])
            losses = cross_entropy()(y, network(points[-1])) * len(x)
        gradient = tape.gradient(losses, points[-1])
        size = sampler.step_size
        size = size(k - 1) if callable(size) else size
        x_adv = points[-1] + size * tf.sign(gradient)
        epsilon = sampler.threat_model.epsilon
        x_adv = tf.clip_by_value(x_adv, x - epsilon, x + epsilon)
        points.append(tf.clip_by_value(x_adv, 0, 1))
    return points


def average_loss(points, network, y, alpha, sample_weight=None):
    count = len(points)
    return sum(
        alpha
        * (1 - alpha) ** (count - k)
        * cross_entropy()(y, network(point), sample_weight)
        for k, point in enumerate(points, start=1)
    )


@pytest.mark.parametrize("kept", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("alpha", [0.9, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradients_are_those_of_the_average(
    kept, alpha, weighted, batch
):
    x, y = batch
    network = small_network()
    sample_weight = np.linspace(0, 2, len(x)) if weighted else None
    loss = small_loss(num_steps=4, alpha=alpha, loss_iterates=kept, **STILL)
    step = loss.value_and_gradients(network, x, y, sample_weight)
    points = chain_of(loss, network, x, y)
    with tf.GradientTape() as tape:
        expected = average_loss(
            points[-(kept or 4) :], network, y, alpha, sample_weight
        )
    gradients = tape.gradient(expected, network.trainable_variables)
    np.testing.assert_allclose(step.loss, expected, rtol=1e-5)
    for gradient, other in zip(step.gradients, gradients, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5)
    np.testing.assert_allclose(step.x_adv, points[-1], atol=1e-6)
    np.testing.assert_allclose(step.y_pred, network(points[-1]), atol=1e-4)


@pytest.mark.parametrize("kept", [None, 2])
def test_the_chains_steps_can_follow_a_schedule(kept, batch):
    x, y = batch
    network = small_network()
    shrinking = keras.optimizers.schedules.ExponentialDecay(0.15, 1, 0.5)
    loss = small_loss(loss_iterates=kept, step_size=shrinking, **STILL)
    points = chain_of(loss, network, x, y)
    for run_eagerly in (False, True):
        learn = loss.value_and_gradients
        learn = learn if run_eagerly else tf.function(learn, autograph=False)
        step = learn(network, x, y)
        np.testing.assert_allclose(step.x_adv, points[-1], atol=1e-6)
        expected = average_loss(points[-(kept or 3) :], network, y, loss.alpha)
        np.testing.assert_allclose(step.loss, expected, rtol=1e-5)


def test_one_iterate_of_full_weight_is_adversarial_training(batch):
    """alpha=1: the loss at the last point, as PGD training has it."""
    x, y = batch
    network = small_network()
    loss = small_loss(alpha=1.0, **STILL)
    step = loss.value_and_gradients(network, x, y)
    pgd = ak.attacks.PGD(Linf(0.1), 0.05, num_steps=3, random_start=False)
    x_adv = pgd(network, x, y)
    np.testing.assert_allclose(step.x_adv, x_adv, atol=1e-6)
    expected = cross_entropy()(y, network(x_adv))
    np.testing.assert_allclose(step.loss, expected, rtol=1e-5)


def test_sample_weights_do_not_touch_the_ascent(batch):
    x, y = batch
    network = small_network()
    loss = small_loss(**STILL)
    plain = loss.value_and_gradients(network, x, y)
    weights = np.arange(len(x)) % 3  # among them zeros
    weighted = loss.value_and_gradients(network, x, y, sample_weight=weights)
    np.testing.assert_allclose(weighted.x_adv, plain.x_adv, atol=1e-6)
    assert not np.isclose(weighted.loss, plain.loss, rtol=1e-3)


def test_a_weight_of_zero_removes_an_example(batch):
    x, y = batch
    network = small_network()
    loss = small_loss(reduction="sum", **STILL)
    half = loss.value_and_gradients(network, x[:16], y[:16])
    weights = np.repeat([1.0, 0.0], 16)
    weighted = loss.value_and_gradients(network, x, y, sample_weight=weights)
    np.testing.assert_allclose(weighted.loss, half.loss, rtol=1e-5)
    assert largest_difference(weighted.gradients, half.gradients) < 1e-3


@pytest.mark.parametrize(
    "reduction",
    ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"],
)
def test_reductions_are_those_of_keras(reduction, batch):
    x, y = batch
    network = small_network()
    weights = np.linspace(0.5, 2, len(x))
    loss = small_loss(alpha=1.0, reduction=reduction, **STILL)
    step = loss.value_and_gradients(network, x, y, weights)
    keras_loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction
    )
    expected = keras_loss(y, network(step.x_adv), weights)
    np.testing.assert_allclose(step.loss, expected, rtol=1e-5)


@pytest.mark.parametrize("drift", ["steepest", "gradient"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_ascent_does_not_know_the_batch(drift, weighted, batch):
    """Gradients are each example's own, never divided by the batch size."""
    x, y = batch
    network = small_network()
    loss = small_loss(norm=L2(1.0), drift=drift, step_size=0.2, **STILL)
    weights = np.ones(len(x)) if weighted else None
    whole = loss.value_and_gradients(network, x, y, weights)
    one = np.ones(1) if weighted else None
    single = loss.value_and_gradients(network, x[:1], y[:1], one)
    np.testing.assert_allclose(whole.x_adv[:1], single.x_adv, atol=1e-5)


def test_penalties_count_once(batch):
    x, y = batch
    regularizer = keras.regularizers.L2(0.1)

    class Activity(keras.layers.Layer):
        def call(self, x):
            self.add_loss(0.01 * tf.reduce_mean(x**2))
            return x

    def network(penalized):
        inputs = keras.Input((8, 8, 1))
        dense = keras.layers.Dense(
            10, kernel_regularizer=regularizer if penalized else None
        )
        outputs = dense(keras.layers.Flatten()(inputs))
        return keras.Model(
            inputs, Activity()(outputs) if penalized else outputs
        )

    plain, penalized = network(False), network(True)
    penalized.set_weights(plain.get_weights())
    loss = small_loss(num_steps=5, **STILL)
    one = loss.value_and_gradients(plain, x, y)
    other = loss.value_and_gradients(penalized, x, y)
    np.testing.assert_allclose(other.x_adv, one.x_adv, atol=1e-6)
    kernel = plain.trainable_variables[0]
    with tf.GradientTape() as tape:
        penalty = 0.1 * tf.reduce_sum(kernel.value**2)
        penalty += 0.01 * tf.reduce_mean(plain(one.x_adv) ** 2)
    np.testing.assert_allclose(other.loss - one.loss, penalty, rtol=1e-4)
    np.testing.assert_allclose(
        other.gradients[0] - one.gradients[0],
        tape.gradient(penalty, kernel.value),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "chain_training, kept, updates",
    [(True, None, 4), (True, 1, 4), (False, None, 3), (False, 2, 2)],
)
def test_batch_norm_updates_at_every_pass_in_training_mode(
    chain_training, kept, updates, batch
):
    network = small_network(batch_norm=True)
    moving_mean = network.layers[2].moving_mean
    moving_mean.assign(np.full(8, 1e4))
    loss = small_loss(chain_training=chain_training, loss_iterates=kept)
    loss.value_and_gradients(network, *batch)
    # With momentum m, u updates leave the share m**u of the old value.
    np.testing.assert_allclose(moving_mean, 1e4 * 0.99**updates, rtol=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_chain_is_the_same_whatever_is_kept(weighted, batch):
    """In training mode, where BatchNorm lets images see each other."""
    x, y = batch
    network = small_network(batch_norm=True)
    network.compile("adam", cross_entropy())
    network.fit(x, y, epochs=40, verbose=0)  # of most images it is sure
    wrong = np.where(np.arange(len(y)) < 4, (y + 1) % 10, y)
    weight = np.ones(len(y)) if weighted else None
    ends = []
    for kept in (None, 1):
        state = [v.numpy() for v in network.non_trainable_variables]
        loss = small_loss(
            loss_iterates=kept, norm=L2(1.0), drift="gradient", **STILL
        )
        step = loss.value_and_gradients(network, x, wrong, weight)
        ends.append(step.x_adv)
        for variable, value in zip(network.non_trainable_variables, state):
            variable.assign(value)
    assert np.max(np.abs(ends[0] - x)) > 1e-3
    np.testing.assert_allclose(*ends, atol=1e-6)


def test_dropout_draws_anew_at_every_pass(batch):
    network = small_network(dropout=0.5)
    (seed,) = [v for v in network.variables if "seed" in v.path]
    before = seed.numpy()
    small_loss(num_steps=3).value_and_gradients(network, *batch)
    np.testing.assert_array_equal(seed.numpy() - before, [0, 4])


def test_frozen_and_unused_weights(batch):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    frozen = keras.layers.Dense(12, activation="relu", trainable=False)
    network = keras.Model(inputs, keras.layers.Dense(10)(frozen(x)))
    step = small_loss().value_and_gradients(network, *batch)
    assert [g.shape for g in step.gradients] == [(12, 10), (10,)]

    class Unused(keras.Model):
        def __init__(self):
            super().__init__()
            self.idle = keras.layers.Dense(3)
            self.idle.build((None, 2))

        def call(self, x):
            return network(x)

    step = small_loss().value_and_gradients(Unused(), *batch)
    assert [g is None for g in step.gradients].count(True) == 2


@pytest.mark.parametrize("norm", [Linf(0.0), L2(0.0)])
def test_zero_epsilon_is_plain_training(norm, batch):
    x, y = batch
    network = small_network()
    loss = small_loss(norm=norm, alpha=1.0)
    step = loss.value_and_gradients(network, x, y)
    with tf.GradientTape() as tape:
        expected = cross_entropy()(y, network(x))
    gradients = tape.gradient(expected, network.trainable_variables)
    np.testing.assert_allclose(step.loss, expected, rtol=1e-6)
    assert largest_difference(step.gradients, gradients) < 1e-6


@pytest.mark.parametrize("norm", [Linf(0.3), L2(1.0)])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_no_nan_on_a_network_without_gradient(norm, fill, batch):
    inputs = keras.Input((8, 8, 1))
    dense = keras.layers.Dense(10, kernel_initializer="zeros")
    network = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    x = np.full((1, 8, 8, 1), fill, "float32")
    step = small_loss(norm=norm).value_and_gradients(network, x, [3])
    for value in (step.loss, *step.gradients, step.x_adv, step.y_pred):
        assert np.all(np.isfinite(value))


def test_the_seed_decides(batch):
    network, loss = small_network(), small_loss(noise_scale=0.1)

    def x_adv(seed):
        return loss.value_and_gradients(network, *batch, seed=seed).x_adv

    assert_repeats(x_adv(1), x_adv(1))
    assert not np.array_equal(x_adv(1), x_adv(2))
    assert not np.array_equal(x_adv(None), x_adv(None))
    fresh = tf.function(lambda: x_adv(None))
    assert not np.array_equal(fresh(), fresh())


@pytest.mark.parametrize("kept", [None, 2])
def test_the_graph_does_not_grow_with_the_number_of_steps(kept, batch):
    x, y = map(tf.constant, batch)
    network = small_network()

    def operations(num_steps):
        loss = small_loss(num_steps=num_steps, loss_iterates=kept)
        loss.value_and_gradients(network, x, y)
        step = tf.function(lambda: loss.value_and_gradients(network, x, y).loss)
        graph = step.get_concrete_function().graph
        functions = graph.as_graph_def().library.function
        return len(graph.get_operations()) + sum(
            len(function.node_def) for function in functions
        )

    assert operations(40) == operations(5)


def test_it_is_the_base_loss_to_keras(batch):
    x, y = batch
    y_pred = small_network()(x)
    loss = small_loss()
    with pytest.warns(UserWarning, match="plain Keras loss.*RobustModel"):
        value = loss(y, y_pred)
    np.testing.assert_allclose(value, cross_entropy()(y, y_pred))
    assert loss.call(y, y_pred).shape == (32,)
    plain = small_network()
    plain.compile("sgd", loss=loss)
    # Once for each loss.
    assert np.isfinite(plain.evaluate(x, y, verbose=0))


def test_a_plain_model_does_not_train_by_it_in_silence(batch):
    plain = small_network()
    plain.compile("sgd", loss=small_loss())
    with pytest.warns(UserWarning, match="plain, not robust training"):
        plain.fit(*batch, verbose=0)


@pytest.mark.parametrize(
    "base",
    [
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=0.1
        ),
        "CategoricalHinge",
        keras.losses.CategoricalFocalCrossentropy(from_logits=True),
        {
            "class_name": "CategoricalCrossentropy",
            "config": {"from_logits": True},
        },
        lambda y, y_pred: tf.reduce_mean((y - y_pred) ** 2, axis=-1),
    ],
)
def test_other_base_losses(base, batch):
    x, y = batch
    y = keras.utils.to_categorical(y, 10)
    step = small_loss(loss=base).value_and_gradients(small_network(), x, y)
    assert np.isfinite(step.loss)


def test_presets_follow_the_table():
    table = {
        "mnist_linf": (Linf, 0.3, 80, 0.01, 1e-4, 0, "every_step"),
        "mnist_l2": (L2, 2.0, 40, 0.125, 1e-2, 0.05, "every_step"),
        "cifar10_linf": (Linf, 0.031, 10, 0.007, 1e-3, 0, "last_step"),
        "cifar10_l2": (L2, 0.435, 20, 0.010875, 0.577, 0.05, "none"),
    }
    assert set(ak.presets.PRESETS) == set(table)
    for name, (
        norm,
        epsilon,
        steps,
        size,
        noise,
        gamma,
        projection,
    ) in table.items():
        loss = ak.ATENTRegularizedLoss.from_preset(name)
        sampler = ak.attacks.SGLD(
            norm(epsilon), size, steps, gamma, noise, projection
        )
        # A step of 0.5 ε / 20 is off by a rounding.
        assert loss.sampler.step_size == pytest.approx(size, rel=1e-12)
        rounded = dataclasses.replace(loss.sampler, step_size=size)
        assert rounded == sampler
        assert loss.alpha == 0.9 and loss.loss_iterates is None
        assert loss.chain_training and loss.loss.from_logits


def test_preset_overrides():
    from_preset = ak.ATENTRegularizedLoss.from_preset
    loss = from_preset("mnist_l2", epsilon=1.0, alpha=0.5, loss_iterates=2)
    assert loss.sampler.threat_model.epsilon == 1.0
    assert loss.sampler.step_size == 2.5 / 40
    assert (loss.alpha, loss.loss_iterates) == (0.5, 2)
    loss = from_preset("mnist_linf", epsilon=0.1, bounds=(-1, 1), num_steps=3)
    assert loss.sampler.step_size == 0.02  # the box is twice as wide
    assert loss.sampler.threat_model.bounds == (-1, 1)
    assert from_preset("cifar10_l2", step_size=0.3).sampler.step_size == 0.3
    hinge = from_preset("mnist_linf", loss="CategoricalHinge")
    assert isinstance(hinge.loss, keras.losses.CategoricalHinge)


def test_unknown_preset_and_override():
    from_preset = ak.ATENTRegularizedLoss.from_preset
    with pytest.raises(ValueError, match="'mnist_l2', .* Received: 'mnist'"):
        from_preset("mnist")
    with pytest.raises(ValueError, match="Overrides .* Received: steps"):
        from_preset("mnist_l2", steps=3)


def test_serialization():
    loss = small_loss(alpha=0.4, loss_iterates=2, chain_training=False)
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    assert again.sampler == loss.sampler
    assert again.loss.from_logits
    assert "alpha=0.4, loss_iterates=2, chain_training=False" in repr(again)


def test_settings_are_read_only():
    loss = small_loss()
    for name in ("loss", "sampler", "alpha", "loss_iterates"):
        with pytest.raises(AttributeError):
            setattr(loss, name, None)
    with pytest.raises(AttributeError):
        loss.sampler.step_size = 1.0


@pytest.mark.parametrize("alpha", [0, -0.1, 1.1, np.nan, "1", True])
def test_alpha_must_be_in_range(alpha):
    with pytest.raises(ValueError, match="`alpha` must lie in .* Received"):
        small_loss(alpha=alpha)


@pytest.mark.parametrize("kept", [0, 4, -1, 1.5, True])
def test_loss_iterates_must_be_in_range(kept):
    with pytest.raises(ValueError, match="from 1 to .* Received"):
        small_loss(loss_iterates=kept)


def test_other_settings_must_fit():
    with pytest.raises(TypeError, match="`sampler` must be .* Received"):
        ak.ATENTRegularizedLoss(cross_entropy(), Linf(0.1))
    sampler = ak.attacks.SGLD(Linf(0.1), 0.05, loss=cross_entropy())
    with pytest.raises(ValueError, match="no loss of its own.* Received"):
        ak.ATENTRegularizedLoss(cross_entropy(), sampler)
    with pytest.raises(ValueError, match="`loss` must .* Received"):
        ak.ATENTRegularizedLoss(None, small_loss().sampler)
    with pytest.raises(ValueError, match="`reduction` must .* Received"):
        small_loss(reduction="none")
    with pytest.raises(ValueError, match="one value per example"):
        loss = small_loss(loss=lambda y, y_pred: tf.reduce_mean(y_pred))
        loss.value_and_gradients(
            small_network(), np.zeros((2, 8, 8, 1), "float32"), [0, 1]
        )
