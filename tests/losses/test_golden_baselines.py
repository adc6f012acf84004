"""Number by number against the authors' code of the methods beside ATENT.

Each file holds one batch that went through the authors' own code in float64,
with its start recorded, which an attack of the test gives back.
"""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.losses import weight_perturbation
from conftest import cross_entropy

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "baselines"
FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))
LAYERS = {"conv1": "kernel bias", "conv2": "kernel bias"}
NORMALIZED = {
    "conv1": "kernel",
    "bn1": "gamma beta",
    "conv2": "kernel",
    "bn2": "gamma beta",
}


@dataclasses.dataclass(frozen=True)
class From(ak.attacks.PGD):
    """PGD from given points, or the points themselves where it stays."""

    points: object = None
    stays: bool = False

    def start(self, x, noise):
        return tf.cast(self.points, x.dtype)

    def step(self, x, x_adv, *rest):
        return x_adv if self.stays else super().step(x, x_adv, *rest)


@pytest.fixture(params=["float64", "float32"])
def tolerance(request):
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield {"float64": 1e-9, "float32": 3e-4}[request.param]
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def names(golden):
    layers = NORMALIZED if "weight_bn1_gamma" in golden else LAYERS
    return [
        f"{layer}_{part}"
        for layer, parts in {**layers, "dense": "kernel bias"}.items()
        for part in parts.split()
    ]


def golden_model(golden):
    layers = keras.layers
    normalized = "weight_bn1_gamma" in golden

    def block(filters, strides, number):
        yield layers.Conv2D(filters, 3, strides, use_bias=not normalized)
        if normalized:
            yield layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name=f"bn{number}"
            )
        yield layers.ReLU()

    network = keras.Sequential(
        [
            keras.Input((9, 9, 1)),
            *block(4, 1, 1),
            *block(6, 2, 2),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    for variable, name in zip(
        network.trainable_variables, names(golden), strict=True
    ):
        variable.assign(golden[f"weight_{name}"])
    for number in (1, 2) if normalized else ():
        layer = network.get_layer(f"bn{number}")
        layer.moving_mean.assign(golden[f"stat_bn{number}_mean"])
        layer.moving_variance.assign(golden[f"stat_bn{number}_variance"])
    return ak.RobustModel(network.inputs, network.outputs)


def golden_loss(golden, points, **settings):
    norms = {"linf": ak.threat_models.Linf, "l2": ak.threat_models.L2}
    attack = From(
        norms[str(golden["norm"])](golden["epsilon"].item()),
        golden["step_size"].item(),
        golden["num_steps"].item() if "num_steps" in golden else 1,
        points=points,
        **settings,
    )
    method = str(golden["method"])
    training = str(golden["attack_mode"]) == "train"
    if "trades" in method:
        loss = ak.TRADESLoss(attack, golden["beta"].item(), clean_passes=2)
    elif method == "mart":
        loss = ak.MARTLoss(attack, golden["beta"].item())
    else:
        reduction = "sum" if method == "pgd_at_madry" else "sum_over_batch_size"
        loss = ak.AdversarialLoss(
            cross_entropy(), attack, training, reduction=reduction
        )
    if "gamma" in golden:
        gamma = golden["gamma"].item()
        loss = ak.AdversarialWeightPerturbation(loss, gamma)
    return loss


def assert_close(actual, expected, tolerance):
    """Compares up to `tolerance`, relative to the largest entry."""
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, atol=tolerance * scale, rtol=0)


def limit(golden, tolerance):
    # The authors' projection is inexact in l_2.
    exact = str(golden["norm"]) == "linf"
    return tolerance if exact else max(tolerance, 1e-6)


@pytest.mark.parametrize("name", FILES)
def test_points_losses_and_gradients(name, tolerance, monkeypatch):
    golden = np.load(FOLDER / f"{name}.npz")
    tolerance = limit(golden, tolerance)
    chain = []
    step = ak.attacks.PGD.step

    def recorded(*args):
        chain.append(step(*args))
        return chain[-1]

    monkeypatch.setattr(ak.attacks.PGD, "step", recorded)
    model = golden_model(golden)
    loss = golden_loss(golden, golden["start"])
    found = loss.value_and_gradients(model, golden["x"], golden["y"])
    points = golden["chain"] if "chain" in golden else golden["point"][None]
    assert_close(np.stack(chain), points, tolerance)
    assert_close(found.x_adv, points[-1], tolerance)
    assert_close(found.loss, golden["loss"], tolerance)
    if "gamma" not in golden:
        assert_close(found.y_pred, golden["logits_adv"], tolerance)
    for key, gradient in zip(names(golden), found.gradients, strict=True):
        assert_close(gradient, golden[f"gradient_{key}"], tolerance)


def test_the_statistics_of_trades_move_as_the_authors(tolerance):
    golden = np.load(FOLDER / "trades_linf_bn.npz")
    model = golden_model(golden)
    loss = golden_loss(golden, golden["start"])
    loss.value_and_gradients(model, golden["x"], golden["y"])
    for number in (1, 2):
        layer = model.get_layer(f"bn{number}")
        mean = golden[f"after_bn{number}_mean"]
        assert_close(layer.moving_mean, mean, tolerance)
        # PyTorch's variances are of n - 1 values.
        variance = golden[f"after_bn{number}_variance"]
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-2)


@pytest.mark.parametrize("name", ["awp_at_linf", "awp_trades_linf"])
def test_the_perturbation_is_the_authors(name, tolerance, monkeypatch):
    golden = np.load(FOLDER / f"{name}.npz")
    handed = []
    network = weight_perturbation.Network

    def recorded(model, weights, dtype):
        handed.append(weights)
        return network(model, weights, dtype)

    monkeypatch.setattr(weight_perturbation, "Network", recorded)
    model = golden_model(golden)
    before = model.get_weights()
    loss = golden_loss(golden, golden["start"])
    loss.value_and_gradients(model, golden["x"], golden["y"])
    plain, perturbed = handed
    for key, one, other in zip(names(golden), plain, perturbed, strict=True):
        assert_close(one, golden[f"weight_{key}"], tolerance)
        assert_close(other, golden[f"perturbed_{key}"], tolerance)
        if f"diff_{key}" in golden:
            difference = (other - one) / loss.gamma
            assert_close(difference, golden[f"diff_{key}"], 1e3 * tolerance)
        else:
            np.testing.assert_array_equal(one, other)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name", ["awp_at_linf", "awp_trades_linf", "pgd_at_linf", "pgd_at_l2"]
)
def test_two_steps_of_fit_are_the_authors(name, tolerance):
    """Momentum and coupled decay: the step starts at unperturbed weights."""
    golden = np.load(FOLDER / f"{name}.npz")
    model = golden_model(golden)
    decay = keras.regularizers.L2(golden["sgd_weight_decay"].item() / 2)
    for variable in model.trainable_variables:
        variable.regularizer = decay
    optimizer = keras.optimizers.SGD(
        golden["sgd_learning_rate"].item(), golden["sgd_momentum"].item()
    )
    perturbed = "restored2_dense_kernel" in golden
    points = golden["chain"][-1]
    ends = ["restored", "restored2"] if perturbed else ["stepped"]
    for end in ends:
        # The projection of the authors is not under test here.
        loss = golden_loss(golden, points, stays=True)
        model.compile(optimizer, loss)
        model.train_on_batch(golden["x"], golden["y"])
        for key, one in zip(names(golden), model.trainable_variables):
            assert_close(one, golden[f"{end}_{key}"], tolerance)
        points = golden["x_adv2"] if perturbed else None
        # Keras takes the momentum, 0.9, through float32.
        tolerance = max(tolerance, 3e-8)
