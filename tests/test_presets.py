import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras import presets
from atent_keras.attacks import gradients
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

TRAINING = {"attack_training": True}


def sampler(name, **overrides):
    return ak.ATENTRegularizedLoss.from_preset(name, **overrides).sampler


def chain(sampler, network, x, noise):
    """The points of a chain, with the noise given, in float64."""

    def gradient(x_adv, state):
        found, *_ = gradients.at(
            network, x_adv, lambda logits: tf.reduce_logsumexp(logits, axis=1)
        )
        return found, state

    return sampler.climb(x, sampler.start(x, noise), gradient, noise)[0]


@pytest.mark.parametrize("drift", ["steepest", "gradient"])
@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_chain_is_the_same_in_other_units(name, drift):
    lower, upper = bounds = (-64.0, 192.0)
    rng = np.random.default_rng(0)
    weights = tf.constant(rng.normal(size=(20, 4)))
    x = tf.constant(rng.uniform(size=(3, 20)))
    draws = tf.constant(rng.normal(size=(100, *x.shape)))

    def network(x):
        return tf.matmul(tf.tanh(x), weights)

    def rescaled(x):
        return network((x - lower) / (upper - lower))

    settings = {"drift": drift}
    if drift == "gradient":
        settings["gamma"] = 0.5
    one = sampler(name, **settings)
    if drift == "gradient":  # an override is in the bounds' units
        settings["gamma"] /= (upper - lower) ** 2
    other = sampler(name, bounds=bounds, **settings)
    expected = chain(one, network, x, lambda k: tf.gather(draws, k))
    found = chain(
        other,
        rescaled,
        lower + (upper - lower) * x,
        lambda k: tf.gather(draws, k),
    )
    assert np.max(np.abs(expected - x)) > 0.02
    np.testing.assert_allclose(
        (found - lower) / (upper - lower), expected, rtol=0, atol=1e-9
    )


def test_settings_in_0_to_255_by_hand():
    linf = sampler("mnist_linf", bounds=(0, 255))
    assert linf.threat_model.epsilon == pytest.approx(0.3 * 255)
    assert linf.step_size == pytest.approx(0.01 * 255)
    assert linf.noise_scale == pytest.approx(1e-4 * 255**0.5)
    two = sampler("mnist_l2", bounds=(0, 255), epsilon=255.0)
    assert two.threat_model.epsilon == 255.0
    assert two.step_size == pytest.approx(2.5 * 255 / 40)
    assert two.gamma == 0.05  # which multiplies a way, without the step
    paper = sampler("mnist_l2", bounds=(0, 255), drift="gradient")
    assert paper.step_size == pytest.approx(2.5 * 2.0 / 40 * 255**2)
    assert paper.noise_scale == 1e-2
    assert paper.gamma == pytest.approx(0.05 / 255**2)
    given = sampler("mnist_l2", bounds=(0, 255), step_size=3.0)
    assert given.step_size == 3.0


def test_bounds_are_checked():
    with pytest.raises(ValueError, match="`bounds` must be .* Received"):
        sampler("mnist_linf", bounds=(1, 0))
    with pytest.raises(ValueError, match=r"two numbers.*=None. Give.*L2\("):
        sampler("mnist_l2", bounds=None)


# loss, name, norm, epsilon, steps, step, and what else the loss is given.
PUBLISHED = [
    (ak.AdversarialLoss, "mnist_linf", Linf, 0.3, 40, 0.01, {}),
    (ak.AdversarialLoss, "cifar10_linf", Linf, 8 / 255, 10, 2 / 255, TRAINING),
    (ak.AdversarialLoss, "cifar10_l2", L2, 128 / 255, 10, 15 / 255, TRAINING),
    (ak.AdversarialLoss, "mnist_linf_fast", Linf, 0.3, 1, 0.375, TRAINING),
    (
        ak.AdversarialLoss,
        "cifar10_linf_fast",
        Linf,
        8 / 255,
        1,
        10 / 255,
        TRAINING,
    ),
    (ak.TRADESLoss, "mnist_linf", Linf, 0.3, 40, 0.01, {"beta": 1}),
    (ak.TRADESLoss, "cifar10_linf", Linf, 0.031, 10, 0.007, {"beta": 6}),
    (ak.MARTLoss, "cifar10_linf", Linf, 0.031, 10, 0.007, {"beta": 5}),
]


@pytest.mark.parametrize(
    "kind, name, norm, epsilon, num_steps, step_size, settings", PUBLISHED
)
@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (0, 255)])
def test_what_other_methods_published(
    kind, name, norm, epsilon, num_steps, step_size, settings, bounds
):
    loss = kind.from_preset(name, bounds=bounds)
    width = bounds[1] - bounds[0]
    assert loss.threat_model == norm(loss.threat_model.epsilon, bounds)
    assert loss.threat_model.epsilon == pytest.approx(epsilon * width)
    assert loss.attack.step_size == pytest.approx(step_size * width)
    assert loss.attack.num_steps == num_steps
    unclipped = name == "mnist_linf_fast"
    assert loss.attack.random_start == ("unclipped" if unclipped else True)
    for key, value in settings.items():
        assert getattr(loss, key) == value
    assert loss.loss.from_logits


def test_every_published_preset_is_in_the_table():
    for kind in (ak.AdversarialLoss, ak.TRADESLoss, ak.MARTLoss):
        names = [row[1] for row in PUBLISHED if row[0] is kind]
        assert [*kind.presets] == names


@pytest.mark.parametrize(
    "name, kind, gamma",
    [
        ("cifar10_linf", ak.AdversarialLoss, 0.01),
        ("cifar10_l2", ak.AdversarialLoss, 0.01),
        ("cifar10_linf_trades", ak.TRADESLoss, 0.005),
    ],
)
def test_what_was_published_of_weight_perturbation(name, kind, gamma):
    from_preset = ak.AdversarialWeightPerturbation.from_preset
    loss = from_preset(name, warmup_steps=7)
    assert type(loss.loss) is kind
    assert (loss.gamma, loss.warmup_steps) == (gamma, 7)
    threat_model = loss.threat_model
    expected = 128 / 255 if name.endswith("l2") else 8 / 255
    assert threat_model.epsilon == pytest.approx(expected)
    assert from_preset(name, gamma=0.1, epsilon=0.2).gamma == 0.1
    assert from_preset(name, epsilon=0.2).threat_model.epsilon == 0.2


def test_a_step_in_units_of_the_radius_follows_it():
    loss = ak.AdversarialLoss.from_preset("mnist_linf_fast", epsilon=0.2)
    assert loss.attack.step_size == pytest.approx(0.25)


@pytest.mark.parametrize(
    "kind, name",
    [
        (ak.MARTLoss, "mnist_linf"),
        (ak.TRADESLoss, "cifar10_l2"),
        (ak.AdversarialWeightPerturbation, "mnist_linf"),
    ],
)
def test_what_nobody_published_is_refused(kind, name):
    with pytest.raises(
        ValueError, match=f"'cifar10_linf'.* Received: '{name}'"
    ):
        kind.from_preset(name)
    with pytest.raises(ValueError, match="Overrides .* Received: steps"):
        kind.from_preset("cifar10_linf", steps=3)


@pytest.mark.parametrize("name", ["attack", "sampler", "threat_model"])
@pytest.mark.parametrize(
    "kind",
    [
        ak.ATENTRegularizedLoss,
        ak.TRADESLoss,
        ak.AdversarialWeightPerturbation,
    ],
)
def test_an_attack_is_overridden_by_its_settings_only(kind, name):
    with pytest.raises(ValueError, match=f"by its settings.* Received: {name}"):
        kind.from_preset("cifar10_linf", **{name: None})


def test_a_radius_of_zero_has_a_preset():
    for kind, name in [
        (ak.AdversarialLoss, "mnist_linf_fast"),
        (ak.ATENTRegularizedLoss, "mnist_l2"),
    ]:
        assert kind.from_preset(name, epsilon=0.0).threat_model.epsilon == 0
