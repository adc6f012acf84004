"""Every attack under every threat model, and the call that they share."""

import contextlib
import dataclasses
import functools
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras.attacks import APGD
from atent_keras.attacks import APGDT
from atent_keras.attacks import DLR
from atent_keras.attacks import FAB
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.attacks import AutoAttack
from atent_keras.attacks import CarliniWagner
from atent_keras.attacks import DeepFool
from atent_keras.attacks import Margin
from atent_keras.attacks import Square
from atent_keras.attacks import UniformNoise
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from conftest import cross_entropy
from conftest import largest_difference
from conftest import small_model
from conftest import small_network

THREAT_MODELS = LINF, TWO = Linf(0.1), L2(0.7)
ATTACKS = [
    attack
    for norm in THREAT_MODELS
    for attack in (
        FGSM(norm),
        PGD(norm, num_steps=5),
        PGD(norm, num_steps=5, restarts=3),
        SGLD(norm, 0.05, num_steps=5, noise_scale=0.01),
        SGLD(norm, 0.05, num_steps=5, projection="last_step"),
        SGLD(norm, 0.5, num_steps=5, drift="gradient", gamma=0.1),
        APGD(norm, num_steps=5),
        APGDT(norm, num_steps=5, targets=2),
        FAB(norm, num_steps=5, targets=2, restarts=2),
        Square(norm, num_queries=120),
        DeepFool(norm, num_steps=5),
        UniformNoise(norm, tries=3),
    )
]
ATTACKS += [
    PGD(LINF, num_steps=5, loss=DLR()),
    APGD(LINF, num_steps=5, restarts=2, num_samples=2, loss=Margin()),
    FAB(TWO, num_steps=5, targets=None),
    CarliniWagner(TWO, 20, 2, 0.1, initial_weight=1.0),
    AutoAttack(LINF, [PGD(LINF, num_steps=2), Square(LINF, 50)], verbose=0),
]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=repr)


def mean_loss(network, x, y):
    return float(cross_entropy()(y, network(x)))


@pytest.fixture(scope="module")
def network(digits):
    """A network that has learned something, so that there is a loss to climb.

    All tests share it, and what was compiled for it: none may change it.
    """
    keras.utils.set_random_seed(0)
    network = small_network()
    network.compile("adam", cross_entropy())
    network.fit(*digits, epochs=2, verbose=0)
    return network


@pytest.fixture
def own_network(network):
    """The same network, for a test that changes it."""
    own = small_network()
    own.set_weights(network.get_weights())
    own.compile(loss=cross_entropy())
    return own


@every_attack
def test_stays_in_ball_and_box_and_raises_the_loss(attack, network, batch):
    x, y = batch
    x_adv = attack(network, x, y, seed=0)
    assert x_adv.shape == x.shape and x_adv.dtype == tf.float32
    epsilon = attack.threat_model.epsilon
    norms = attack.threat_model.norm(x_adv - x)
    assert np.max(norms) <= epsilon * (1 + 1e-6)
    assert 0 <= np.min(x_adv) and np.max(x_adv) <= 1
    if isinstance(attack, UniformNoise):
        return  # which nothing guides
    assert mean_loss(network, x_adv, y) > mean_loss(network, x, y) + 0.1


@every_attack
def test_the_same_seed_gives_the_same_result(attack, network, batch):
    x, y = batch
    one, again = (attack(network, x, y, seed=3) for _ in range(2))
    assert_repeats(again, one)
    if isinstance(attack, (PGD, SGLD)):
        other = attack(network, x, y, seed=4)
        fresh = [attack(network, x, y) for _ in range(2)]
        assert not np.array_equal(one, other)
        assert not np.array_equal(*fresh)


@every_attack
def test_eager_graph_and_xla_agree(attack, own_network, batch, monkeypatch):
    network, (x, y) = own_network, batch

    # TensorFlow draws other numbers under XLA, so the noise is given: a wave
    # over the pixels, whose frequency is the image's and the step's own.
    def waves(like, first, k, shape=None):
        shape = like.shape[1:] if shape is None else shape
        place = tf.range(tf.shape(like)[0]) if first.shape == () else first
        pixel = tf.range(1, np.prod(shape) + 1, dtype=like.dtype)
        frequency = 1.7 + tf.cast(k, like.dtype) + tf.cast(place, like.dtype)
        wave = 2 * tf.sin(frequency[:, None] * pixel)
        return tf.reshape(wave, [-1, *shape])

    monkeypatch.setattr(
        "atent_keras.attacks.noise.normal_noise",
        lambda seed, like, first, xla: functools.partial(
            waves, like, tf.convert_to_tensor(first)
        ),
    )

    def run(x):
        return attack(network, x, y, seed=0)

    graph = run(tf.constant(x))
    network.run_eagerly = True
    eager = run(tf.constant(x))
    xla = tf.function(run, jit_compile=True)(tf.constant(x))
    # A gradient of nearly zero may change its sign by rounding.
    assert np.mean(np.abs(eager - graph) > 1e-5) < 1e-3
    assert np.mean(np.abs(xla - graph) > 1e-5) < 1e-3


@every_attack
def test_parts_and_batches_do_not_show(attack, network, digits):
    x, y = digits[0][:50], digits[1][:50]
    whole = attack(network, x, y, seed=0)
    np.testing.assert_allclose(
        attack(network, x[20:], y[20:], seed=0, first=20),
        whole[20:],
        atol=1e-6,
    )
    parts = attack(network, x, y, seed=0, batch_size=7)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@every_attack
def test_zero_epsilon_gives_the_clean_image(attack, network, batch):
    nothing = within(attack, type(attack.threat_model)(0.0))
    x, y = batch
    np.testing.assert_array_equal(nothing(network, x, y), x)


def within(attack, norm):
    """The same attack under another threat model."""
    if isinstance(attack, AutoAttack):
        parts = [within(part, norm) for part in attack.attacks]
        return AutoAttack(norm, parts, verbose=0)
    return dataclasses.replace(attack, threat_model=norm)


@pytest.fixture(scope="module")
def flat_network():
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(10, kernel_initializer="zeros")
    return keras.Model(inputs, dense(flat))


@every_attack
def test_a_network_without_gradient_yields_no_nan_and_it_says_so(
    attack, flat_network, batch
):
    x, y = batch
    warns = contextlib.nullcontext()
    if attack.uses_gradient:
        warns = pytest.warns(UserWarning, match="gradient .* is zero at all")
    for images in (x, np.zeros_like(x), np.ones_like(x), x[:1]):
        with warns:
            x_adv = attack(flat_network, images, y[: len(images)], seed=0)
        assert np.all(np.isfinite(x_adv))


@every_attack
def test_serialization(attack, network, batch):
    config = keras.saving.serialize_keras_object(attack)
    again = keras.saving.deserialize_keras_object(config)
    assert again == attack and repr(again) == repr(attack)


def test_serialization_with_a_loss():
    attack = PGD(Linf(0.1), loss="CategoricalHinge")
    config = keras.saving.serialize_keras_object(attack)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again.loss, keras.losses.CategoricalHinge)


def test_fgsm_is_one_step_of_pgd(network, batch):
    x, y = batch
    for norm in THREAT_MODELS:
        pgd = PGD(norm, norm.epsilon, num_steps=1, random_start=False)
        # Both stay in the ball, of which the projection is aware in rounding.
        np.testing.assert_allclose(
            FGSM(norm)(network, x, y), pgd(network, x, y), atol=1e-7
        )


def test_more_restarts_only_help(network, digits):
    x, y = digits[0][:200], digits[1][:200]
    fooled = []
    for restarts in (1, 2, 4):
        attack = PGD(Linf(0.1), 0.01, num_steps=3, restarts=restarts)
        x_adv = attack(network, x, y, seed=0)
        fooled.append(np.argmax(network.predict(x_adv, verbose=0), -1) != y)
    for fewer, more in zip(fooled, fooled[1:]):
        assert np.all(more >= fewer)
    assert fooled[-1].sum() > fooled[0].sum()


def test_pgd_steps_by_hand():
    """On a linear two-class network every step can be written down."""
    inputs = keras.Input((2,))
    network = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    network.set_weights([np.array([[1.0, -1.0], [0.0, 2.0]]), np.zeros(2)])
    x = np.array([[0.5, 0.5]], "float32")
    # The loss of class 0 rises with logit 1 - logit 0 = -2 x_0 + 2 x_1.
    two = PGD(Linf(0.1), step_size=0.04, num_steps=2, random_start=False)
    x_adv = two(network, x, [0])
    np.testing.assert_allclose(x_adv, [[0.42, 0.58]], rtol=1e-6)
    x_adv = PGD(Linf(0.1), random_start=False)(network, x, [0])
    np.testing.assert_allclose(x_adv, [[0.4, 0.6]], rtol=1e-6)
    x_adv = PGD(L2(0.1), random_start=False)(network, x, [0])
    side = 0.1 / np.sqrt(2)
    np.testing.assert_allclose(x_adv, [[0.5 - side, 0.5 + side]], rtol=1e-6)


@pytest.mark.parametrize(
    "kind", [PGD, functools.partial(SGLD, noise_scale=0)], ids=["PGD", "SGLD"]
)
def test_steps_can_follow_a_schedule(kind, network, batch):
    x, y = batch
    schedules = keras.optimizers.schedules
    constant = schedules.PiecewiseConstantDecay([9], [0.02, 0.01])
    assert_repeats(
        kind(Linf(0.1), constant, num_steps=5)(network, x, y, seed=0),
        kind(Linf(0.1), 0.02, num_steps=5)(network, x, y, seed=0),
    )
    # Two steps of 0.05, then one of 0.01, all in one direction.
    inputs = keras.Input((2,))
    linear = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    linear.set_weights([np.eye(2), np.zeros(2)])
    falling = schedules.PiecewiseConstantDecay([1], [0.05, 0.01])
    attack = kind(Linf(0.2), falling, num_steps=3, random_start=False)
    x_adv = attack(linear, np.array([[0.5, 0.5]], "float32"), [0])
    np.testing.assert_allclose(x_adv, [[0.39, 0.61]], rtol=1e-6)
    config = keras.saving.serialize_keras_object(attack)
    again = keras.saving.deserialize_keras_object(config)
    assert again.step_size.get_config() == falling.get_config()


@pytest.mark.parametrize("norm", THREAT_MODELS, ids=repr)
def test_pgds_start_may_leave_the_box(norm):
    x = tf.zeros((3, 40))
    noise = tf.random.stateless_normal(x.shape, (0, 1))
    start = PGD(norm, random_start="unclipped").start(x, lambda k: noise)
    np.testing.assert_array_equal(start, norm.random_start(x, noise))
    assert np.min(start) < 0 and np.max(norm.norm(start)) <= norm.epsilon
    clipped = PGD(norm).start(x, lambda k: noise)
    np.testing.assert_array_equal(clipped, norm.clip(start))


@pytest.mark.parametrize("value", ["clipped", 1, None])
def test_random_start_must_be_known(value):
    with pytest.raises(ValueError, match="`random_start` must be .* Received"):
        PGD(Linf(0.1), random_start=value)


def test_one_trace_whatever_the_number_of_images(network, digits):
    x, y = digits
    traces = []

    class Traced(keras.Model):
        def call(self, x):
            traces.append(x.shape)
            return network(x)

    model, attack = Traced(), PGD(Linf(0.1), num_steps=3)
    attack(model, x[:300], y[:300])
    attack(model, x[:301], y[:301])  # a partial chunk: the batch gets free
    before = len(traces)
    for count in (1, 17, 130, 300):
        attack(model, x[:count], y[:count])
    assert len(traces) == before


def test_equal_settings_share_one_trace(batch):
    network = small_network()
    traces = []

    def function(x):
        if not tf.executing_eagerly():
            traces.append(x.shape)
        return network(x)

    def attack(from_logits=True, first=0.02):
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=from_logits, name=f"loss_{len(traces)}"
        )
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [1], [first, 0.01]
        )
        return PGD(Linf(0.1), schedule, num_steps=2, loss=loss)

    x_adv = attack()(function, *batch, seed=0)
    once = len(traces)
    assert_repeats(attack()(function, *batch, seed=0), x_adv)
    assert len(traces) == once > 0
    other = attack(first=0.05)(function, *batch, seed=0)
    assert not np.array_equal(other, x_adv)
    assert len(traces) > once


def test_a_model_that_was_attacked_can_be_forgotten(batch):
    model = small_network()
    PGD(Linf(0.1), num_steps=2)(model, *batch)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_so_can_a_function(network, batch):
    def function(x):
        return network(x)

    PGD(Linf(0.1), num_steps=2)(function, *batch)
    reference = weakref.ref(function)
    del function
    gc.collect()
    assert reference() is None


def test_the_network_stays_in_inference_mode(batch):
    network = small_network(dropout=0.9, batch_norm=True)
    before = [v.numpy() for v in network.non_trainable_variables]
    attack = PGD(Linf(0.1), num_steps=2, random_start=False)
    assert_repeats(attack(network, *batch), attack(network, *batch))
    for variable, value in zip(network.non_trainable_variables, before):
        np.testing.assert_array_equal(variable, value)


def test_it_sees_the_weights_of_now(own_network, batch):
    attack = FGSM(Linf(0.1))
    before = attack(own_network, *batch)
    own_network.set_weights([-weight for weight in own_network.get_weights()])
    assert not np.array_equal(attack(own_network, *batch), before)


def test_the_loss_is_the_model_s(batch):
    x, y = batch
    one_hot = keras.utils.to_categorical(y, 10)
    hinge = keras.losses.CategoricalHinge()
    network = small_network()
    default = FGSM(L2(1.0))(network, x, one_hot)
    given = FGSM(L2(1.0), loss=hinge)(network, x, one_hot)
    network.compile("sgd", hinge)
    compiled = FGSM(L2(1.0))(network, x, one_hot)
    assert_repeats(compiled, given)
    assert not np.array_equal(compiled, default)


def test_sparse_and_one_hot_labels_agree(network, batch):
    x, y = batch
    attack = FGSM(Linf(0.1), loss=None)
    plain = small_network()
    plain.set_weights(network.get_weights())
    np.testing.assert_allclose(
        attack(plain, x, y),
        attack(plain, x, keras.utils.to_categorical(y, 10)),
        atol=1e-6,
    )
    assert_repeats(attack(plain, x, y[:, None]), attack(plain, x, y))


def test_a_plain_callable_is_attacked_like_a_model(network, batch):
    x, y = batch
    attack = PGD(Linf(0.1), num_steps=3)
    np.testing.assert_allclose(
        attack(lambda x: network(x), x, y, seed=0),
        attack(network, x, y, seed=0),
        atol=1e-6,
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float32"])
def test_labels_of_any_type(dtype):
    """200 classes are more than an int8 can count."""
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(200)])
    x, y = np.full((2, 4), 0.5, "float32"), np.array([3, 100], dtype)
    expected = FGSM(Linf(0.1))(network, x, y.astype("int64"))
    assert_repeats(FGSM(Linf(0.1))(network, x, y), expected)
    top = np.array([3, 255 if dtype == "uint8" else 127], dtype)
    if top[1] >= 200:
        with pytest.raises(ValueError, match="in 0..199 .* from 3 to 255"):
            FGSM(Linf(0.1))(network, x, top)


def test_a_single_output_needs_a_loss_of_two_classes():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    x, y = np.full((2, 4), 0.5, "float32"), np.array([0, 1])
    categorical = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(loss=categorical)
    with pytest.raises(
        ValueError, match="single output. Give .*, or use `keras.*Binary"
    ):
        FGSM(Linf(0.1))(network, x, y)
    network.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    assert FGSM(Linf(0.1))(network, x, y).shape == (2, 4)


def test_inside_a_users_function(network, batch):
    x, y = map(tf.constant, batch)
    attack = PGD(Linf(0.1), num_steps=3)
    inside = tf.function(lambda x, y: attack(network, x, y, seed=0))(x, y)
    np.testing.assert_allclose(inside, attack(network, x, y, seed=0), atol=1e-6)


def test_a_users_function_is_checked_while_it_is_traced(network, batch):
    x, y = batch
    one_hot = tf.constant(keras.utils.to_categorical(y, 10))
    run = tf.function(lambda x: FGSM(Linf(0.1))(network, x, one_hot))
    with pytest.raises(ValueError, match="expects integer labels"):
        run(tf.constant(x))


def test_float64(digits):
    keras.config.set_floatx("float64")
    try:
        network = small_network(dtype="float64")
        x, y = digits[0][:8], digits[1][:8]
        assert PGD(Linf(0.1))(network, x, y).dtype == tf.float64
    finally:
        keras.config.set_floatx("float32")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_images_in_float32(policy, batch):
    keras.config.set_dtype_policy(policy)
    try:
        model = small_model()
        for attack in (PGD(Linf(0.1)), model.loss.sampler):
            x_adv = attack(model, *batch)
            assert x_adv.dtype == tf.float32
            assert np.max(np.abs(x_adv - batch[0])) <= 0.1 * (1 + 1e-6)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", ["num_steps", "restarts"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_counts_must_be_positive_integers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer"):
        PGD(Linf(0.1), **{name: value})


@pytest.mark.parametrize("value", [0, -0.1, np.inf, "x"])
def test_pgd_step_size_must_be_positive(value):
    with pytest.raises(ValueError, match="`step_size` must be .* Received"):
        PGD(Linf(0.1), step_size=value)


def test_loss_must_be_one():
    with pytest.raises(ValueError, match="`loss` must .* Received"):
        FGSM(Linf(0.1), loss="no_such_loss")
    with pytest.raises(ValueError, match="`loss` must .* Received"):
        FGSM(Linf(0.1), loss=3)


@pytest.mark.parametrize("how", ["eager model", "compiled", "in a graph"])
def test_adversarial_images_are_constants_to_a_tape(how, batch):
    model, (x, y) = small_network(), map(tf.constant, batch)
    model.compile("sgd", cross_entropy(), run_eagerly=how == "eager model")
    attack = PGD(L2(0.5), num_steps=2)

    def within():
        with tf.GradientTape() as tape:
            loss = cross_entropy()(y, model(attack(model, x, y, seed=0)))
        return tape.gradient(loss, model.trainable_variables)

    def before():
        x_adv = attack(model, x, y, seed=0)
        with tf.GradientTape() as tape:
            loss = cross_entropy()(y, model(x_adv))
        return tape.gradient(loss, model.trainable_variables)

    if how == "in a graph":
        within = tf.function(within, autograph=False)
    assert largest_difference(within(), before()) < 1e-6
