"""The methods of robust training, small, and what compares their weights."""

import contextlib
import functools

import keras
import numpy as np
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import noise
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import cross_entropy

STEPS = 10
BATCH_SIZE = 8
NUM_STEPS = 3  # of the attacks

MODES = {
    "eager": {"run_eagerly": True},
    "graph": {"jit_compile": False},
    "xla": {"jit_compile": True},
}


def pgd(threat_model=None, **settings):
    settings = {"step_size": 0.04, "num_steps": NUM_STEPS, **settings}
    return ak.attacks.PGD(threat_model or Linf(0.1), **settings)


def sgld(threat_model=None, **settings):
    settings = {"step_size": 0.04, "num_steps": NUM_STEPS, **settings}
    return ak.attacks.SGLD(threat_model or Linf(0.1), **settings)


def ramp():
    """From a fifth of the radius to all of it, within six steps."""
    return keras.optimizers.schedules.PolynomialDecay(0.2, 6, 1.0)


def atent(sampler=None, **settings):
    return ak.ATENTRegularizedLoss(
        cross_entropy(), sampler or sgld(), **settings
    )


def adversarial(attack=None, **settings):
    return ak.AdversarialLoss(cross_entropy(), attack or pgd(), **settings)


def fast():
    attack = pgd(step_size=0.125, num_steps=1, random_start="unclipped")
    return adversarial(attack, attack_training=True)


def trades(attack=None, **settings):
    return ak.TRADESLoss(attack or pgd(), **settings)


def mart(attack=None, **settings):
    return ak.MARTLoss(attack or pgd(), **settings)


def awp(loss, gamma=0.01, **settings):
    return ak.AdversarialWeightPerturbation(loss, gamma, **settings)


# Functions, since a loss takes its dtype from Keras's when it is made.
METHODS = {
    "ATENT": atent,
    "ATENT, 2 iterates": lambda: atent(
        sgld(L2(0.3), step_size=0.1, gamma=0.05),
        loss_iterates=2,
        radius_schedule=ramp(),
    ),
    "PGD": lambda: adversarial(radius_schedule=ramp()),
    "Fast": fast,
    "TRADES": lambda: trades(
        pgd(L2(0.3), step_size=0.1), clean_passes=2, radius_schedule=ramp()
    ),
    "MART": mart,
    "AWP, TRADES": lambda: awp(trades(radius_schedule=ramp()), warmup_steps=2),
    "AWP, ATENT": lambda: awp(atent(loss_iterates=2)),
}


def data(steps=STEPS):
    """So many batches of images of six pixels, of three classes."""
    random = np.random.default_rng(0)
    x = random.uniform(size=(steps * BATCH_SIZE, 6))
    y = np.argmax(x @ random.normal(size=(6, 3)), axis=-1)
    return x.astype(keras.config.floatx()), y


def network(*between, penalized=True):
    """A smooth network, with regularization losses of both kinds."""
    penalty = keras.regularizers.L2(0.01) if penalized else None
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, "tanh", kernel_regularizer=penalty)(inputs)
    for layer in between:
        x = layer(x)
    outputs = keras.layers.Dense(3, activity_regularizer=penalty, name="out")
    return keras.Model(inputs, outputs(x))


def model_of(loss, *between, optimizer=None, kind=ak.RobustModel, **settings):
    """A compiled model, of the same weights each time."""
    keras.utils.set_random_seed(0)
    plain = network(*between, penalized=settings.pop("penalized", True))
    model = kind(plain.inputs, plain.outputs)
    model.compile(optimizer or keras.optimizers.SGD(0.3), loss, **settings)
    return model


def fit(model, steps=STEPS, **settings):
    x, y = data(steps)
    settings = {"batch_size": BATCH_SIZE, "shuffle": False, **settings}
    return model.fit(x, y, verbose=0, **settings)


def of_the_image(seed, like, first=0):
    """Stands in for noise: the same on whichever replica an image is."""

    def draw(k, shape=None):
        return tf.sin(50.0 * like * (1.0 + tf.cast(k, like.dtype)))

    return draw


@contextlib.contextmanager
def exactly():
    """In float64, with noise that follows from the image alone."""
    normal_noise = noise.normal_noise
    noise.normal_noise = of_the_image
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        noise.normal_noise = normal_noise
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


def train(name, strategy=None, **settings):
    """Returns the weights of ten exact steps of `fit`, and their losses."""
    strategy = strategy or tf.distribute.get_strategy()
    with exactly():
        with strategy.scope():
            model = model_of(METHODS[name](), **settings)
        losses = fit(model).history["loss"]
    return [*model.get_weights(), np.asarray(losses)]


@functools.cache
def trained(name, mode="graph"):
    """What one process comes to on one device, once for all tests."""
    return train(name, **MODES[mode])


def trained_in_turn(strategy):
    return [
        array
        for name in METHODS
        for array in train(name, strategy, **MODES["graph"])
    ]


def assert_follows(loss, values_by_hand, weighted):
    """Compares a loss and its gradients with a formula, at its points.

    Args:
        loss: Function of a robust loss's arguments that makes it.
        values_by_hand: Function of `(network, x, x_adv, y)` to the loss of
            each example.
        weighted: Boolean, whether there are sample weights.
    """
    with exactly():
        plain, (x, y) = network(penalized=False), data(1)
        weight = np.linspace(0, 2, len(x)) if weighted else np.ones(len(x))
        loss = loss()
        step = loss.value_and_gradients(
            plain, x, y, weight if weighted else None
        )
        count = {
            "sum": 1,
            "sum_over_batch_size": len(x),
            "mean_with_sample_weight": sum(weight),
        }[loss.reduction]
        weights = plain.trainable_variables
        with tf.GradientTape() as tape:
            values = values_by_hand(plain, tf.constant(x), step.x_adv, y)
            expected = tf.reduce_sum(weight * values) / count
        gradients = tape.gradient(expected, weights)
        np.testing.assert_allclose(step.loss, expected, rtol=1e-9)
        for one, other in zip(step.gradients, gradients, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)
        np.testing.assert_allclose(step.y_pred, plain(step.x_adv), rtol=1e-9)
        ball = loss.threat_model
        assert np.max(ball.norm(step.x_adv - x)) < ball.epsilon * (1 + 1e-9)
