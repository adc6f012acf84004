"""Number by number against the authors' implementation, in float64.

The files hold one batch each, run through that implementation with all of
its random draws recorded. The chain under test is the one that training runs.
"""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))
WEIGHTS = [
    f"{layer}_{kind}"
    for layer in ("conv1", "conv2", "dense")
    for kind in ("kernel", "bias")
]


def golden_model(golden):
    model = keras.Sequential(
        [
            keras.Input((10, 10, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Conv2D(6, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.set_weights([golden[f"weight_{name}"] for name in WEIGHTS])
    return model


def golden_loss(golden):
    norms = {"inf": ak.threat_models.Linf, "2": ak.threat_models.L2}
    settings = ("step_size", "num_steps", "gamma", "noise_scale", "projection")
    sampler = ak.attacks.SGLD(
        norms[str(golden["norm"])](golden["epsilon"].item()),
        # The files without noise start at x.
        random_start=bool(golden["start_noise"].any()),
        **{name: golden[name].item() for name in settings},
    )
    return ak.ATENTRegularizedLoss(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        sampler,
        alpha=golden["alpha"].item(),
    )


def run_chain(golden, monkeypatch):
    """Runs the training chain eagerly; returns the step and all points."""
    draws = np.stack([golden["start_noise"], *golden["noise"]])
    monkeypatch.setattr(
        "atent_keras.attacks.noise.normal_noise",
        # The step beyond the last point is drawn for, too, but not used.
        lambda seed, like, first=0: (
            lambda k: tf.cast(draws[min(k, len(draws) - 1)], like.dtype)
        ),
    )
    chain = []
    step = ak.attacks.SGLD.step

    def recorded_step(*args, **kwargs):
        chain.append(step(*args, **kwargs))
        return chain[-1]

    monkeypatch.setattr(ak.attacks.SGLD, "step", recorded_step)
    result = golden_loss(golden).value_and_gradients(
        golden_model(golden), golden["x"], golden["y"]
    )
    *chain, _ = chain
    return result, chain


@pytest.fixture(params=["float64", "float32"])
def tolerance(request):
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield {"float64": 1e-9, "float32": 1e-5}[request.param]
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def assert_close(actual, expected, tolerance):
    """Compares up to `tolerance`, relative to the largest entry."""
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("name", FILES)
def test_chain_loss_and_gradients(name, tolerance, monkeypatch):
    golden = np.load(FOLDER / f"{name}.npz")
    step, chain = run_chain(golden, monkeypatch)
    assert step.x_adv.dtype == keras.config.floatx()
    assert_close(np.stack(chain), golden["chain"], tolerance)
    assert_close(step.x_adv, golden["chain"][-1], tolerance)
    assert_close(step.loss, golden["loss"], tolerance)
    for key, gradient in zip(WEIGHTS, step.gradients, strict=True):
        assert_close(gradient, golden[f"gradient_{key}"], tolerance)
