"""The share of the radius: what is trained on, and what is not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import rivals
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from rivals import adversarial
from rivals import atent
from rivals import pgd
from rivals import sgld
from rivals import trades

schedules = keras.optimizers.schedules


def constant(share):
    return schedules.PolynomialDecay(share, 1, share)


def steps_of_length(epsilon):
    """A schedule of PGD's own, over its steps."""
    return schedules.PiecewiseConstantDecay([0], [epsilon, epsilon / 2])


@keras.saving.register_keras_serializable("test_radius_schedule")
class Climbing(schedules.LearningRateSchedule):
    """Leaves [0, 1] after a while."""

    def __call__(self, step):
        return 0.25 * tf.cast(step, "float32")

    def get_config(self):
        return {}


RAMPED = {
    "atent": lambda s: atent(sgld(noise_scale=0.1), radius_schedule=s),
    "atent_l2": lambda s: atent(
        sgld(L2(0.3), step_size=0.2), loss_iterates=1, radius_schedule=s
    ),
    "pgd": lambda s: adversarial(pgd(step_size=None), radius_schedule=s),
    "pgd_step_schedule": lambda s: adversarial(
        pgd(step_size=steps_of_length(0.1)), radius_schedule=s
    ),
    "fgsm": lambda s: adversarial(
        ak.attacks.FGSM(Linf(0.1)), radius_schedule=s
    ),
    "trades_l2": lambda s: trades(
        pgd(L2(0.3), step_size=0.2), radius_schedule=s
    ),
}


def moved(model):
    """How far a step's points are, as a share of the radius."""
    x, y = rivals.data(4)
    step = model.loss.value_and_gradients(model, x, y, seed=0)
    ball = model.loss.threat_model
    return float(np.max(ball.norm(step.x_adv - x))) / ball.epsilon


@pytest.mark.parametrize("name", RAMPED)
def test_points_go_as_far_as_the_share(name):
    model = rivals.model_of(RAMPED[name](Climbing()), run_eagerly=True)
    for iteration, share in enumerate([0, 0.25, 0.5, 0.75, 1, 1, 1]):
        model.optimizer.iterations.assign(iteration)
        assert moved(model) == pytest.approx(share, abs=2e-3)


@pytest.mark.parametrize(
    "attack",
    [
        pgd(step_size=0.06, num_steps=1, random_start=False),
        pgd(step_size=steps_of_length(0.06), num_steps=1, random_start=False),
        sgld(step_size=0.06, num_steps=1, random_start=False, noise_scale=0.0),
        sgld(
            step_size=steps_of_length(0.06),
            num_steps=1,
            random_start=False,
            noise_scale=0.0,
        ),
    ],
    ids=["PGD", "PGD by a schedule", "SGLD", "SGLD by a schedule"],
)
def test_a_share_shortens_the_steps_too(attack):
    """One step from the image, which the ball does not cut."""
    loss = adversarial(attack, radius_schedule=constant(0.5))
    assert moved(rivals.model_of(loss)) == pytest.approx(0.3, rel=1e-4)


@pytest.mark.parametrize(
    "optimizer, shares",
    [
        (
            lambda: keras.optimizers.SGD(gradient_accumulation_steps=2),
            [0, 0, 0.25, 0.25, 0.5],
        ),
        (
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
            [0, 0.25, 0.5],
        ),
    ],
)
def test_it_follows_the_optimizer_s_updates(optimizer, shares):
    loss = adversarial(radius_schedule=Climbing())
    model = rivals.model_of(loss, optimizer=optimizer(), run_eagerly=True)
    for share in shares:
        assert moved(model) == pytest.approx(share, abs=2e-3)
        rivals.fit(model, 1)


def test_without_an_optimizer_it_is_the_whole_radius():
    loss = adversarial(radius_schedule=constant(0.0))
    model = rivals.model_of(loss, run_eagerly=True)
    assert moved(model) == 0
    x, y = rivals.data(4)
    step = loss.value_and_gradients(rivals.network(), x, y)
    assert np.max(np.abs(step.x_adv - x)) == pytest.approx(0.1, rel=1e-4)


def test_what_judges_knows_the_whole_radius():
    none = adversarial(radius_schedule=constant(0.0))
    model = rivals.model_of(none, run_eagerly=True)
    x, y = rivals.data(2)
    x_adv = model.perturb(x, y, seed=0)
    assert np.max(np.abs(x_adv - x)) == pytest.approx(0.1, rel=1e-4)
    full = rivals.model_of(adversarial(), run_eagerly=True)
    robust = ak.callbacks.RobustAccuracy((x, y))
    logs = {}
    found = []
    for one in (model, full):
        robust.set_model(one)
        robust.on_epoch_end(0, logs)
        found.append(logs["val_robust_accuracy"])
    assert found[0] == found[1]
    assert_repeats(full.perturb(x, y, seed=0), x_adv)


def test_serialization():
    loss = adversarial(radius_schedule=Climbing())
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again.radius_schedule, Climbing)
    assert "radius_schedule" in repr(loss)
    assert "radius_schedule" not in repr(adversarial())


@pytest.mark.parametrize("kind", [adversarial, atent, trades, rivals.mart])
def test_it_must_be_a_schedule_of_shares(kind):
    for wrong in (0.5, "cosine", lambda step: 0.5, Linf(0.1)):
        with pytest.raises(TypeError, match="must be one of keras.optim.* Rec"):
            kind(radius_schedule=wrong)
    for wrong in (-0.1, 1.1, np.nan):
        message = "from 0 to 1. Received: .* at iteration 0"
        with pytest.raises(ValueError, match=message):
            kind(radius_schedule=constant(wrong))
