"""Several devices, as one process sees them; workers have their own test."""

import contextlib
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import rivals
from conftest import Subclassed
from conftest import cross_entropy
from conftest import largest_difference
from conftest import small_loss
from conftest import small_model
from conftest import small_network

pytestmark = pytest.mark.usefixtures("on_the_cpu")

STILL = {"noise_scale": 0.0, "random_start": False}


def scope(strategy):
    return strategy.scope() if strategy else contextlib.nullcontext()


def build(strategy, network=small_network, loss=None, **settings):
    keras.utils.set_random_seed(0)
    with scope(strategy):
        return small_model(
            loss or small_loss(**STILL), network=network(), **settings
        )


def train(strategy, digits, size=320, network=small_network, **settings):
    model = build(strategy, network, **settings)
    x, y = digits[0][:size], digits[1][:size]
    history = model.fit(x, y, batch_size=32, shuffle=False, verbose=0).history
    return model, history


def batch_norm(synchronized=False, trainable=True):
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    normalize = layers.BatchNormalization(synchronized=synchronized)
    normalize.trainable = trainable
    x = layers.Flatten()(normalize(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def frozen_batch_norm():
    return batch_norm(trainable=False)


def synchronized_batch_norm():
    return batch_norm(synchronized=True)


def replicas_of(strategy, variable):
    return [
        value.numpy()
        for value in strategy.experimental_local_results(variable.value)
    ]


@pytest.mark.parametrize(
    "network, jit_compile, loss_iterates",
    [
        (small_network, False, None),
        (small_network, True, 1),
        (frozen_batch_norm, False, 1),
        (frozen_batch_norm, True, None),
    ],
)
def test_two_devices_train_as_one(
    strategy, digits, network, jit_compile, loss_iterates
):
    settings = {
        "network": network,
        "jit_compile": jit_compile,
        "loss": small_loss(loss_iterates=loss_iterates, **STILL),
    }
    two, logs = train(strategy, digits, **settings)
    one, expected = train(None, digits, **settings)
    start = build(None, network).get_weights()
    assert largest_difference(one.get_weights(), start) > 0.01
    assert largest_difference(two.get_weights(), one.get_weights()) < 1e-6
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert logs["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-6)
    data = digits[0][:101], digits[1][:101]
    np.testing.assert_allclose(
        two.evaluate(*data, verbose=0), one.evaluate(*data, verbose=0), 1e-4
    )
    np.testing.assert_allclose(
        two.predict(data[0], verbose=0),
        one.predict(data[0], verbose=0),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        two.perturb(*data, seed=3), one.perturb(*data, seed=3), atol=1e-5
    )


@pytest.mark.parametrize(
    "name, mode",
    [
        *((name, "graph") for name in rivals.METHODS),
        # XLA compiles the two parts that the replicas meet between.
        ("AWP, TRADES", "xla"),
    ],
)
def test_two_devices_train_every_method_as_one(strategy, name, mode):
    """Also regularization losses, which count once for all replicas."""
    two = rivals.train(name, strategy, **rivals.MODES[mode])
    assert largest_difference(two, rivals.trained(name)) < 1e-9


@pytest.fixture(scope="module")
def on_one_device(digits):
    """What the network with BatchNorm comes to, and its history."""
    return train(None, digits, network=batch_norm)


def test_synchronized_batch_norm_is_that_of_one_device(
    strategy, digits, on_one_device
):
    two, _ = train(strategy, digits, network=synchronized_batch_norm)
    one, _ = on_one_device
    assert largest_difference(two.get_weights(), one.get_weights()) < 1e-5


@pytest.mark.parametrize("jit_compile", [False, True])
def test_batch_norm_keeps_one_mean_of_the_replicas(
    strategy, digits, jit_compile
):
    x, y = digits[0][:32], digits[1][:32]
    model = build(strategy, batch_norm, jit_compile=jit_compile)
    before = build(None, batch_norm)
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    expected = []
    for half in (slice(16), slice(16, 32)):
        alone = keras.models.clone_model(before)
        alone.set_weights(before.get_weights())
        before.loss.value_and_gradients(alone, x[half], y[half])
        expected.append([v.numpy() for v in alone.non_trainable_variables])
    moving = [v for v in model.non_trainable_variables if "moving" in v.path]
    assert len(moving) == 2
    expected = [
        np.mean(values, axis=0)
        for v, *values in zip(before.non_trainable_variables, *expected)
        if "moving" in v.path
    ]
    for variable, mean in zip(moving, expected, strict=True):
        first, second = replicas_of(strategy, variable)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, mean, atol=1e-6)


@pytest.mark.parametrize("num_steps", [1, 7])
def test_replicas_meet_once_however_long_the_chain(
    strategy, batch, num_steps, monkeypatch
):
    model = build(
        strategy, batch_norm, small_loss(num_steps=num_steps, **STILL)
    )
    original = tf.distribute.ReplicaContext.all_reduce
    sent = []

    def record(context, reduce_op, value, *args, **kwargs):
        tensors = tf.nest.flatten(value)
        sent.append(sum(tensor.shape.num_elements() for tensor in tensors))
        return original(context, reduce_op, value, *args, **kwargs)

    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    model.evaluate(*batch, verbose=0)  # builds the metrics
    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", record)
    data = tuple(map(tf.constant, batch))
    tf.function(
        lambda: strategy.run(model.train_step, args=(data,))
    ).get_concrete_function()
    weights = sum(v.shape.num_elements() for v in model.trainable_variables)
    # Two replicas; the moving averages of eight channels, and the gradients.
    assert sorted(sent) == [16, 16, weights, weights]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_noise_of_the_replicas(strategy, jit_compile):
    def draws(seed):
        keras.utils.set_random_seed(seed)
        norm = ak.threat_models.Linf(100.0, bounds=(-100.0, 100.0))
        with strategy.scope():
            inputs = keras.Input((8, 8, 1))
            flat = keras.layers.Flatten()(inputs)
            model = small_model(
                small_loss(
                    norm,
                    num_steps=1,
                    step_size=0.5,
                    noise_scale=1.0,
                    random_start=False,
                    drift="gradient",
                ),
                network=keras.Model(inputs, keras.layers.Dense(10)(flat)),
                jit_compile=jit_compile,
            )
        seen = []

        def train_step(data):
            # The same images on both replicas, hence the same ascent.
            loss = model.loss.value_and_gradients
            step = loss(model, *data, seed=model._step_seed())
            model.optimizer.apply_gradients(
                zip(step.gradients, model.trainable_variables)
            )
            return step.x_adv

        data = tf.zeros((128, 8, 8, 1)), tf.zeros((128,), tf.int32)
        run = tf.function(lambda: strategy.run(train_step, args=(data,)))
        for _ in range(2):
            seen += strategy.experimental_local_results(run())
        return [np.ravel(one) for one in seen]

    seen = draws(1)
    # Two replicas in two steps: four draws, no two of them related.
    correlation = np.corrcoef(seen) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(seen[0].size)
    assert np.std(seen) == pytest.approx(1, abs=0.05)
    np.testing.assert_array_equal(draws(1), seen)
    assert np.abs(np.subtract(draws(2), seen)).max() > 1


@pytest.mark.parametrize(
    "network, jit_compile", [(small_network, False), (batch_norm, True)]
)
def test_a_last_batch_that_leaves_a_replica_without_images(
    strategy, digits, network, jit_compile
):
    # 33 images: the second batch has one.
    model, logs = train(
        strategy, digits, 33, network=network, jit_compile=jit_compile
    )
    assert np.isfinite(logs["loss"]).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())
    if network is small_network:
        # One step of half the length on the one image.
        whole, _ = train(strategy, digits, 32)
        step = whole.loss.value_and_gradients(
            whole, digits[0][32:33], digits[1][32:33]
        )
        expected = [
            weight - 0.1 / 2 * np.asarray(gradient)
            for weight, gradient in zip(whole.get_weights(), step.gradients)
        ]
        assert largest_difference(model.get_weights(), expected) < 1e-6
    for variable in model.variables:
        first, second = replicas_of(strategy, variable)
        np.testing.assert_array_equal(first, second)
    x, y = (part[:33] for part in digits)
    loss, accuracy = model.evaluate(x, y, batch_size=32, verbose=0)
    assert np.isfinite(loss)
    predicted = model.predict(x, batch_size=32, verbose=0)
    assert accuracy == pytest.approx(np.mean(predicted.argmax(-1) == y))


@pytest.mark.parametrize("name", ["MART", "AWP, ATENT"])
def test_a_replica_without_images_does_not_sway_the_others(strategy, name):
    """One step of half the length, its perturbation of the whole length."""
    with rivals.exactly():
        x, y = (part[:9] for part in rivals.data(2))
        loss = rivals.METHODS[name]()
        with strategy.scope():
            two = rivals.model_of(loss, penalized=False, jit_compile=False)
        one = rivals.model_of(loss, penalized=False, run_eagerly=True)
        two.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        one.fit(x[:8], y[:8], batch_size=8, shuffle=False, verbose=0)
        step = loss.value_and_gradients(one, x[8:], y[8:])
        expected = [
            weight - 0.3 / 2 * np.asarray(gradient)
            for weight, gradient in zip(one.get_weights(), step.gradients)
        ]
    assert largest_difference(two.get_weights(), expected) < 1e-7


def test_each_replica_has_the_same_share_of_an_uneven_batch(strategy, digits):
    x, y = digits[0][:3], digits[1][:3]
    model, _ = train(strategy, digits, 3)
    alone = build(None)
    gradients = [
        alone.loss.value_and_gradients(alone, x[part], y[part]).gradients
        for part in (slice(2), slice(2, 3))
    ]
    expected = [
        weight - 0.1 * (np.asarray(one) + np.asarray(other)) / 2
        for weight, one, other in zip(alone.get_weights(), *gradients)
    ]
    assert largest_difference(model.get_weights(), expected) < 1e-6


@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_else_fit_takes(strategy, digits, jit_compile, tmp_path):
    def train(strategy):
        keras.utils.set_random_seed(0)
        x, y = digits[0][:330], digits[1][:330]
        data = tf.data.Dataset.from_tensor_slices((x, y, 1 + y % 2 / 2))
        with scope(strategy):
            model = small_model(
                small_loss(**STILL),
                optimizer=keras.optimizers.Adam(0.01, use_ema=True),
                weighted_metrics=["accuracy"],
                steps_per_execution=2,
                jit_compile=jit_compile,
            )
        history = model.fit(
            data.shuffle(330, seed=1).batch(32, drop_remainder=True),
            validation_data=data.take(65).batch(32),
            epochs=2,
            verbose=0,
            callbacks=[
                keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
                ak.callbacks.RobustAccuracy((x[:40], y[:40])),
                keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            ],
        ).history
        loaded = keras.models.load_model(tmp_path / "2.keras")
        assert (
            largest_difference(loaded.get_weights(), model.get_weights()) == 0
        )
        return model, history

    two, logs = train(strategy)
    one, expected = train(None)
    assert two.optimizer.iterations == 20
    assert largest_difference(two.get_weights(), one.get_weights()) < 1e-4
    for name, values in expected.items():
        assert logs[name] == pytest.approx(values, abs=1e-3), name


@pytest.mark.parametrize("jit_compile", [False, True])
def test_mixed_bfloat16(strategy, digits, jit_compile, on_one_device):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        _, logs = train(
            strategy, digits, network=batch_norm, jit_compile=jit_compile
        )
    finally:
        keras.config.set_dtype_policy("float32")
    expected = on_one_device[1]["loss"][0]
    assert logs["loss"][0] == pytest.approx(expected, rel=0.05)


def test_eager_steps_and_single_batches(strategy, digits):
    graph, _ = train(strategy, digits, 64)
    eager, _ = train(strategy, digits, 64, run_eagerly=True)
    assert largest_difference(eager.get_weights(), graph.get_weights()) < 1e-6
    single = build(strategy)
    for start in (0, 32):
        single.train_on_batch(*(d[start : start + 32] for d in digits))
    assert largest_difference(single.get_weights(), graph.get_weights()) < 1e-6


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_a_model_that_fit_builds_belongs_to_the_strategy(
    strategy, digits, kind
):
    with strategy.scope():
        model = Subclassed()
        model.compile("sgd", small_loss(), metrics=["accuracy"])
    data = digits[0][:64], digits[1][:64]
    if kind == "dataset":
        data = (tf.data.Dataset.from_tensor_slices(data).batch(32),)
    model.fit(*data, verbose=0)
    assert all(
        strategy.extended.variable_created_in_scope(variable.value)
        for variable in [*model.variables, *model.optimizer.variables]
    )


def test_the_order_of_shuffled_data_is_that_of_one_device(strategy, digits):
    def train(strategy):
        data = tf.data.Dataset.from_tensor_slices(
            (digits[0][:320], digits[1][:320])
        )
        model = build(strategy)
        model.fit(data.shuffle(320, seed=3).batch(32), epochs=2, verbose=0)
        return model.get_weights()

    assert largest_difference(train(strategy), train(None)) < 1e-6


def test_one_replica_is_one_device(digits, on_one_device):
    alone = tf.distribute.MirroredStrategy(["CPU:0"])
    one, _ = train(alone, digits, network=batch_norm)
    plain, _ = on_one_device
    assert largest_difference(one.get_weights(), plain.get_weights()) < 1e-6


class TestKeras:
    """What the overrides of `ATENTModel` rest on, in Keras itself."""

    def test_its_functions_are_made_where_they_are_expected(self, digits):
        model = build(None)
        for kind in ("train", "test", "predict"):
            make = getattr(keras.Model, f"make_{kind}_function", None)
            assert make and "force" in inspect.signature(make).parameters, (
                f"Keras makes its {kind} function elsewhere: `ATENTModel` must"
                " take XLA away from it there"
            )
        assert model.train_function is model.test_function is None
        model.fit(digits[0][:32], digits[1][:32], verbose=0)
        assert callable(model.train_function), (
            "Keras keeps its train function elsewhere: `step_by_step` must "
            "wrap it there"
        )

    def test_it_builds_from_a_batch(self):
        build_ = getattr(keras.Model, "_maybe_symbolic_build", None)
        assert build_ and {"iterator", "data_batch"} <= set(
            inspect.signature(build_).parameters
        ), (
            "Keras builds models for a strategy elsewhere: see whether `fit` "
            "still reduces a batch there, else drop the override"
        )

    @pytest.mark.parametrize(
        "settings", [{"jit_compile": True}, {"steps_per_execution": 2}]
    )
    def test_it_still_needs_the_overrides(self, strategy, digits, settings):
        with strategy.scope():
            network = small_network()
            network.compile("sgd", cross_entropy(), **settings)
        # If this passes, a version of Keras needs them no longer.
        with pytest.raises(tf.errors.InvalidArgumentError):
            network.fit(*(d[:64] for d in digits), verbose=0)


def test_refuses_a_model_of_another_scope(strategy, digits):
    data = digits[0][:64], digits[1][:64]
    other = tf.distribute.MirroredStrategy(["CPU:0"])
    outside = build(None)
    within = build(strategy)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = small_network()
        uncompiled = ak.ATENTModel(network.inputs, network.outputs)
    uncompiled.compile(keras.optimizers.SGD(0.1), small_loss())
    wrapped = ak.ATENTModel(network.inputs, network.outputs)
    wrapped.compile(keras.optimizers.SGD(0.1), small_loss())
    for model, used_in, message in (
        (outside, strategy, "within the scope of one.* the variable"),
        (within, other, "under the strategy that it was built under"),
        (uncompiled, None, "the variable '.*iteration', which was made"),
        (wrapped, None, "the variable 'conv2d.*', which was made outside"),
    ):
        before = model.get_weights()
        for call in (model.fit, model.evaluate, model.train_on_batch):
            with scope(used_in), pytest.raises(ValueError, match=message):
                call(*data)
        assert largest_difference(model.get_weights(), before) == 0
    within.fit(*data, verbose=0)  # outside the scope, as in Keras


def test_refuses_a_batch_smaller_than_the_replicas(strategy, digits):
    def batches():
        for i in range(4):
            yield digits[0][i : i + 1], digits[1][i : i + 1]

    x, y = digits[0][:4], digits[1][:4]
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(1)
    model = build(strategy)
    before = model.get_weights()
    message = "for each of the 2 replicas. Received: a batch of 1"
    for data, settings in (
        ((x, y), {"batch_size": 1}),
        ((x[:1], y[:1]), {}),
        ((dataset,), {}),
        ((dataset.repeat(),), {"steps_per_epoch": 4}),
        ((batches(),), {"steps_per_epoch": 4}),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(*data, verbose=0, **settings)
    assert largest_difference(model.get_weights(), before) == 0


def test_refuses_data_of_unknown_length_without_steps(strategy, digits):
    dataset = tf.data.Dataset.from_tensor_slices(
        (digits[0][:64], digits[1][:64])
    ).batch(32)
    model = build(strategy)
    for data in (
        dataset.filter(lambda x, y: True),
        dataset.repeat(),
        (batch for batch in dataset),
    ):
        with pytest.raises(ValueError, match="`steps_per_epoch` must be given"):
            model.fit(data, verbose=0)
    model.fit(dataset.repeat(), steps_per_epoch=2, verbose=0)
    assert model.optimizer.iterations == 2


def test_refuses_synchronized_batch_norm_with_xla(strategy, digits):
    model = build(strategy, synchronized_batch_norm, jit_compile=True)
    message = "jit_compile=True, and the layer 'batch_norm.*synchronized=True"
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            call(digits[0][:64], digits[1][:64])


def test_refuses_a_scaled_loss_with_xla(strategy, digits):
    with strategy.scope():
        model = small_model(
            optimizer=keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD()
            ),
            jit_compile=True,
        )
    with pytest.raises(ValueError, match="mixed_bfloat16.* Received: jit_comp"):
        model.fit(digits[0][:64], digits[1][:64])


def test_a_custom_loop_in_a_strategy(strategy, digits):
    x, y = digits[0][:64], digits[1][:64]
    reference = build(None)
    reference.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = small_network()
        optimizer = keras.optimizers.SGD(0.1)
    loss = small_loss(loss=cross_entropy(), **STILL)

    @tf.function
    def train_step(batch):
        def step_of_replica(x, y):
            step = loss.value_and_gradients(network, x, y)
            optimizer.apply_gradients(
                zip(step.gradients, network.trainable_variables)
            )

        strategy.run(step_of_replica, args=batch)

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    for batch in strategy.experimental_distribute_dataset(dataset):
        train_step(batch)
    assert (
        largest_difference(network.get_weights(), reference.get_weights())
        < 1e-6
    )
