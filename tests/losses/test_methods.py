"""What holds for every method of robust training."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import methods
import passes
import rivals
from atent_keras.threat_models import Linf
from conftest import cross_entropy
from conftest import largest_difference
from conftest import small_network
from rivals import adversarial
from rivals import atent
from rivals import awp
from rivals import fast
from rivals import mart
from rivals import pgd
from rivals import sgld
from rivals import trades


@pytest.mark.parametrize("name", rivals.METHODS)
def test_modes_train_the_same(name):
    with rivals.exactly():
        start = rivals.model_of(rivals.METHODS[name]()).get_weights()
    graph = rivals.trained(name)
    assert largest_difference(graph[:-1], start) > 0.01
    for mode in ("eager", "xla"):
        assert largest_difference(rivals.trained(name, mode), graph) < 1e-9


K = rivals.NUM_STEPS
# Of each method: passes forward, those back by the inputs, and passes back by
# the weights. ATENT's last point is passed like those that climb.
PASSES = {
    "ATENT": (atent, K + 1, K + 1, K),
    "ATENT, 2 iterates": (lambda: atent(loss_iterates=2), K + 1, K + 1, 2),
    "PGD": (adversarial, K + 1, K, 1),
    "Fast": (fast, 2, 1, 1),
    # The attack needs the clean answer, too.
    "TRADES": (trades, K + 3, K, 2),
    "TRADES, clean twice": (lambda: trades(clean_passes=2), K + 4, K, 3),
    "MART": (mart, K + 2, K, 2),
    "AWP, PGD": (lambda: awp(adversarial()), K + 2, K, 2),
    "AWP, TRADES": (lambda: awp(trades()), K + 5, K, 4),
    # The points are found first, then passed again, without and with the
    # perturbation.
    "AWP, ATENT": (lambda: awp(atent()), 3 * K, K, 2 * K),
    "AWP, ATENT, 2": (lambda: awp(atent(loss_iterates=2)), K + 4, K, 4),
    "AWP without perturbation": (lambda: awp(atent(), 0.0), K + 1, K + 1, K),
}


@pytest.mark.parametrize("name", PASSES)
def test_no_pass_more_than_needed(name):
    loss, forward, by_inputs, by_weights = PASSES[name]
    first, second = passes.count(loss())
    expected = {"forward": forward, "by weights": by_weights}
    assert first == {**expected, "by inputs": by_inputs}
    # No way leads back from the clean answer that the attack of TRADES climbs.
    back = forward - 1 if "TRADES" in name else forward
    assert second == {**expected, "by inputs": back}
    assert methods.passes(loss()) == second.total()


# The passes in training mode, of which BatchNorm and Dropout take note.
TRAINING = {
    "ATENT": (atent, K + 1),
    "PGD": (adversarial, 1),
    "PGD, attack_training": (lambda: adversarial(attack_training=True), K + 1),
    "Fast": (fast, 2),
    "TRADES": (trades, 2),
    "TRADES, clean twice": (lambda: trades(clean_passes=2), 3),
    "MART": (mart, 2),
    # The perturbation is found on the side.
    "AWP, PGD": (lambda: awp(adversarial()), 1),
    "AWP, Fast": (lambda: awp(fast()), 2),
    "AWP, TRADES": (lambda: awp(trades()), 2),
    "AWP, ATENT": (lambda: awp(atent()), 2 * K),
}


@pytest.mark.parametrize("name", TRAINING)
def test_batch_norm_and_dropout_know_the_training_passes(name):
    loss, count = TRAINING[name]
    normalize = keras.layers.BatchNormalization()
    dropout = keras.layers.Dropout(0.5, seed=1)
    network = rivals.network(normalize, dropout)
    normalize.moving_mean.assign(np.full(5, 1e4))
    seed = dropout.seed_generator.state
    before = seed.numpy()
    step = loss().value_and_gradients(network, *rivals.data(1))
    assert np.isfinite(step.loss)
    # With momentum m, u updates leave the share m**u of the old value.
    np.testing.assert_allclose(
        normalize.moving_mean, 1e4 * 0.99**count, rtol=1e-3
    )
    np.testing.assert_array_equal(seed.numpy() - before, [0, count])


# Settings with which a method is plain training.
PLAIN = {
    "ATENT": lambda: atent(sgld(Linf(0)), alpha=1.0, loss_iterates=1),
    "PGD": lambda: adversarial(pgd(Linf(0))),
    "TRADES": lambda: trades(beta=0),
    "AWP": lambda: awp(adversarial(pgd(Linf(0))), 0.0),
    "warming up": lambda: awp(trades(beta=0), 0.1, warmup_steps=100),
}


@pytest.mark.parametrize(
    "name, loss_weights",
    [
        ("ATENT", 0.5),
        ("PGD", [None]),
        ("PGD", {"out": 0.5}),
        ("TRADES", None),
        ("AWP", 0.5),
        ("warming up", [0.5]),
    ],
)
def test_without_a_ball_it_is_plain_keras(name, loss_weights):
    settings = {"run_eagerly": True, "loss_weights": loss_weights}
    robust, plain = PLAIN[name](), cross_entropy()
    if isinstance(loss_weights, dict):
        robust, plain = {"out": robust}, {"out": plain}
    found = []
    for loss, kind in ((robust, ak.RobustModel), (plain, keras.Model)):
        model = rivals.model_of(loss, kind=kind, **settings)
        history = rivals.fit(model).history["loss"]
        evaluated = model.evaluate(*rivals.data(), verbose=0)
        found.append([*model.get_weights(), history, evaluated])
    assert largest_difference(*found) < 1e-6


@pytest.mark.parametrize("name", rivals.METHODS)
def test_a_loss_weight_weighs_the_data_and_penalties_count_once(name):
    with rivals.exactly():
        network, loss = rivals.network(), rivals.METHODS[name]()
        x, y = rivals.data(1)

        def step(weight):
            found = loss.value_and_gradients(network, x, y, loss_weight=weight)
            return [found.loss, *found.gradients], found.x_adv

        # A loss and gradients on a line, which starts at the penalties.
        low, middle, high = (step(weight)[0] for weight in (0.25, 0.5, 0.75))
        mean = [(one + other) / 2 for one, other in zip(low, high)]
        assert largest_difference(middle, mean) < 1e-9
        (penalties, *_), x_adv = step(0.0)
        clean = "TRADES" in name or "MART" in name
        outputs = network(x if clean else x_adv)
        kernel = network.layers[1].kernel.value
        expected = tf.reduce_sum(kernel**2)
        expected += tf.reduce_sum(outputs**2) / rivals.BATCH_SIZE
        # Keras takes the factor through float32.
        np.testing.assert_allclose(penalties, 0.01 * expected, rtol=1e-7)


@pytest.mark.parametrize("name", rivals.METHODS)
def test_saved_in_an_accumulation_it_goes_on_to_the_same_weights(
    name, tmp_path
):
    """Optimizer, schedules and noise: all of them go on where they were."""
    optimizer = keras.optimizers.SGD(
        0.1, momentum=0.9, gradient_accumulation_steps=2
    )
    model = rivals.model_of(
        rivals.METHODS[name](), optimizer=optimizer, run_eagerly=True
    )
    data = tf.data.Dataset.from_tensor_slices(rivals.data(6))
    data = data.batch(rivals.BATCH_SIZE)
    for batch in data.take(3):
        model.train_on_batch(*batch)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is type(model.loss)
    assert loaded.loss.get_config() == model.loss.get_config()
    for each in (model, loaded):
        for batch in data.skip(3):
            each.train_on_batch(*batch)
    assert largest_difference(loaded.get_weights(), model.get_weights()) < 1e-6


def test_an_accumulation_is_a_step_on_all_of_its_images():
    with rivals.exactly():
        found = []
        for size, optimizer in (
            (8, keras.optimizers.SGD(0.3, gradient_accumulation_steps=2)),
            (16, keras.optimizers.SGD(0.3)),
        ):
            model = rivals.model_of(
                awp(trades(), 0.0), optimizer=optimizer, run_eagerly=True
            )
            rivals.fit(model, 4, batch_size=size)
            found.append(model.get_weights())
    assert largest_difference(*found) < 1e-9


def test_an_accumulation_does_not_repeat_its_noise(monkeypatch):
    seeds = []

    def recorded(seed, like, first=0):
        seeds.append(tuple(seed.numpy()))
        return rivals.of_the_image(seed, like)

    monkeypatch.setattr("atent_keras.attacks.noise.normal_noise", recorded)
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    model = rivals.model_of(atent(), optimizer=optimizer, run_eagerly=True)
    rivals.fit(model, 4)
    assert len(set(seeds)) == len(seeds) == 4


@pytest.mark.parametrize("name", rivals.METHODS)
def test_serialization(name):
    loss = rivals.METHODS[name]()
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    for other in (again, pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert type(other) is type(loss)
        assert other.get_config() == loss.get_config()
        assert repr(other).startswith(type(loss).__name__)


@pytest.mark.parametrize(
    "kind, attack",
    [(ak.AdversarialLoss, pgd), (ak.ATENTRegularizedLoss, sgld)],
)
def test_a_robust_loss_is_no_base_loss(kind, attack):
    for base in (trades(), keras.losses.serialize(trades())):
        with pytest.raises(ValueError, match="a plain loss.* Received: loss="):
            kind(base, attack())


@pytest.mark.parametrize("name", rivals.METHODS)
def test_a_plain_model_is_warned_once(name):
    loss = rivals.METHODS[name]()
    plain = rivals.model_of(loss, kind=keras.Model, run_eagerly=True)
    with pytest.warns(UserWarning, match="plain, not robust tr") as warned:
        rivals.fit(plain, 1)
    assert len(warned) == 1
    rivals.fit(plain, 1)  # warnings are errors


def test_a_task_with_a_compile_of_its_own_is_warned_too():
    class Task(keras.Model):
        def compile(self, optimizer="auto", loss="auto", **kwargs):
            super().compile(optimizer=optimizer, loss=loss, **kwargs)

    plain = rivals.model_of(trades(), kind=Task, run_eagerly=True)
    with pytest.warns(UserWarning, match="TRADESLoss is called as a plain"):
        rivals.fit(plain, 1)


def loop_of_ones_own(loss, optimizer):
    network, losses = rivals.network(), []
    data = tf.data.Dataset.from_tensor_slices(rivals.data())
    for x, y in data.batch(rivals.BATCH_SIZE):
        step = loss.value_and_gradients(network, x, y, seed=1)
        optimizer.apply_gradients(
            (optimizer.scale_loss(gradient), weight)
            for gradient, weight in zip(
                step.gradients, network.trainable_variables
            )
        )
        losses.append(step.loss)
    return losses


def loop_of_keras(loss, optimizer):
    model = rivals.model_of(loss, optimizer=optimizer, run_eagerly=True)
    return rivals.fit(model, epochs=2).history["loss"]


@pytest.mark.parametrize(
    "name, loop",
    [
        ("ATENT", loop_of_ones_own),
        ("AWP, TRADES", loop_of_ones_own),
        ("AWP, TRADES", loop_of_keras),
    ],
)
def test_float16_learns_as_float32(name, loop):
    def losses(policy):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        optimizer = keras.optimizers.SGD(0.3)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=1024.0
            )
        return loop(rivals.METHODS[name](), optimizer)

    try:
        half, single = losses("mixed_float16"), losses("float32")
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(half, single, rtol=0.01)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["ATENT", "AWP, TRADES"])
def test_what_the_optimizer_skips_leaves_no_trace(name, weighted, batch):
    """Of a step whose gradients overflow float16."""
    x, y = batch
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = small_network(batch_norm=True)
        model = ak.RobustModel(network.inputs, network.outputs)
        model.compile(
            keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD(0.1), initial_scale=2.0**60
            ),
            loss=rivals.METHODS[name](),
            run_eagerly=True,
        )
        before = [v.numpy() for v in model.trainable_variables]
        weight = np.ones(len(x)) if weighted else None
        history = model.fit(x, y, sample_weight=weight, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    for variable, value in zip(model.trainable_variables, before):
        np.testing.assert_array_equal(variable, value)
    for variable in model.non_trainable_variables:
        assert np.isfinite(variable).all()
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    "kind, weighted",
    [
        (atent, False),
        (atent, True),
        (adversarial, True),
        (trades, True),
        (mart, True),
    ],
)
def test_a_dtype_of_its_own(kind, weighted, strategy):
    x, y = rivals.data(1)
    expected, given = kind(), awp(kind(dtype="float64"), 0.0)
    weight = np.ones(len(x)) if weighted else None
    network = rivals.network()
    step, other = (
        loss.value_and_gradients(network, x, y, weight, seed=1)
        for loss in (given, expected)
    )
    assert step.loss.dtype == step.y_pred.dtype == "float64"
    assert all(gradient.dtype == "float32" for gradient in step.gradients)
    assert largest_difference(step.gradients, other.gradients) < 1e-5
    with strategy.scope():
        model = rivals.model_of(given, run_eagerly=True)
    rivals.fit(model, 1, sample_weight=weight)


@pytest.mark.parametrize("kind", [atent, trades])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_dtype_of_its_own_under_a_scale(kind, weighted):
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=4.0
    )
    model = rivals.model_of(
        kind(dtype="float64"), optimizer=optimizer, run_eagerly=True
    )
    weight = np.ones(rivals.BATCH_SIZE) if weighted else None
    before = model.get_weights()
    rivals.fit(model, 1, sample_weight=weight)
    assert largest_difference(model.get_weights(), before) > 1e-4


@pytest.mark.parametrize("kind", [atent, adversarial, trades, mart])
@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16"])
def test_a_half_is_no_dtype_of_a_loss(kind, dtype):
    with pytest.raises(ValueError, match="`dtype` must be .* Received: dtype="):
        kind(dtype=dtype)
