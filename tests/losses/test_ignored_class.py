"""Examples whose label the base loss ignores, beside Keras's own loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import largest_difference
from conftest import small_network
from evaluations import assert_same
from evaluations import evaluate

BALL = Linf(0.1)


def ignoring(label=-1, **settings):
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=label, **settings
    )


def still(ball=BALL):
    return PGD(ball, 0.05, num_steps=2, random_start=False)


METHODS = {
    "ATENT": lambda loss, **settings: ak.ATENTRegularizedLoss(
        loss,
        SGLD(BALL, 0.05, 2, noise_scale=0, random_start=False),
        **settings,
    ),
    "Adversarial": lambda loss, **settings: ak.AdversarialLoss(
        loss, still(), **settings
    ),
    "TRADES": lambda loss, **settings: ak.TRADESLoss(
        still(L2(0.5)), loss=loss, **settings
    ),
    "MART": lambda loss, **settings: ak.MARTLoss(
        still(), loss=loss, **settings
    ),
}


@pytest.fixture
def mixed(batch):
    """16 images, of whose labels the loss ignores the last 6."""
    x, y = batch[0][:16], batch[1][:16].astype("int64")
    y[10:] = -1
    return x, y


@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"]
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore:.*plain Keras loss:UserWarning")
def test_the_plain_loss_is_kerass(reduction, weighted, mixed):
    logits = np.random.default_rng(0).normal(size=(16, 10)).astype("float32")
    weights = np.linspace(0, 2, 16, dtype="float32") if weighted else None
    base = ignoring(reduction=reduction)
    expected = base(mixed[1], logits, weights)
    for dtype in ("float32", "float64"):
        loss = METHODS["ATENT"](ignoring(), reduction=reduction, dtype=dtype)
        for y in (mixed[1], mixed[1][:, None], mixed[1].astype("float32")):
            found = loss(y, logits, weights)
            np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_that_of_the_other_examples(method, weighted, mixed):
    (x, y), network = mixed, small_network()
    loss = METHODS[method](ignoring())
    plain = METHODS[method](ignoring(None))
    weights = np.linspace(0.5, 2, 16, dtype="float32")
    found, expected = (
        one.value_and_gradients(
            network,
            x[:count],
            y[:count],
            weights[:count] if weighted else None,
            seed=0,
        )
        for one, count in ((loss, 16), (plain, 10))
    )
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)
    assert largest_difference(found.gradients, expected.gradients) < 1e-5
    np.testing.assert_allclose(found.x_adv[:10], expected.x_adv, atol=1e-5)
    if method in ("ATENT", "Adversarial"):
        np.testing.assert_array_equal(found.x_adv[10:], x[10:])
    nobody = loss.value_and_gradients(network, x, np.full(16, -1), seed=0)
    assert nobody.loss == 0
    assert not any(np.any(one) for one in nobody.gradients)


def fitted(mixed, **settings):
    x, y = mixed
    network = small_network()
    model = ak.RobustModel(network.inputs, network.outputs)
    model.compile("sgd", METHODS["Adversarial"](ignoring()))
    history = model.fit(x, y, verbose=0, **settings)
    return model, history.history


def test_fit_evaluate_and_perturb(mixed):
    model, _ = fitted(mixed)
    plain = small_network()
    plain.set_weights(model.get_weights())
    plain.compile("sgd", ignoring())
    expected = plain.evaluate(*mixed, verbose=0)
    found = model.evaluate(*mixed, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    x_adv = model.perturb(*mixed)
    np.testing.assert_array_equal(x_adv[10:], mixed[0][10:])
    with pytest.raises(ValueError, match="0..9 .* labels from -2 to"):
        model.evaluate(mixed[0], np.where(mixed[1] < 0, -2, mixed[1]))
    # Whose accuracies have no place for them.
    several = ak.attacks.AutoAttack(BALL, [still()], verbose=0)
    with pytest.raises(ValueError, match="0..9 .* labels from -1 to"):
        several.evaluate(model, *mixed)


def test_accuracies_leave_them_out(mixed, tmp_path):
    x, y = mixed
    callback = ak.callbacks.RobustAccuracy(mixed)
    model, logs = fitted(mixed, callbacks=[callback])
    attacks = {"PGD": PGD(BALL, num_steps=3)}
    others = evaluate(model, (x[:10], y[:10]), attacks)
    reports = [
        evaluate(model, data, attacks, folder=folder)
        for data, folder in (
            ((x, y), tmp_path),
            ([(x[12:], y[12:]), (x[:5], y[:5]), (x[5:12], y[5:12])], None),
            ((x, y), tmp_path),
        )
    ]
    for report in reports:
        assert report.num_examples == 10 and report.num_ignored == 6
        assert report.clean_accuracy == others.clean_accuracy
        for part in (str(report), report.to_markdown()):
            assert "10 examples, 6 ignored" in part
        assert '"num_ignored": 6' in report.to_json()
        np.testing.assert_array_equal(report.correct, others.correct)
        assert report.data == others.data
    assert_same(reports[0], reports[2])
    assert "ignored" not in str(others)
    twenty = evaluate(model, (x[:10], y[:10]), {"PGD": PGD(BALL)})
    assert logs["val_robust_accuracy"] == [twenty.robust_accuracy["PGD"]]
    with pytest.raises(ValueError, match="with 4 examples, all ignored"):
        evaluate(model, (x[12:], y[12:]), attacks)


def test_certificates_leave_them_out(mixed):
    model, _ = fitted(mixed)
    smoothed = ak.SmoothedClassifier(model, 0.1)
    settings = {"num_samples": 50, "selection_samples": 10, "verbose": 0}
    found, others = (
        ak.certify_robustness(smoothed, (x, y), **settings)
        for x, y in (mixed, [part[:10] for part in mixed])
    )
    assert found.num_ignored == 6
    assert "10 examples, 6 ignored" in str(found)
    for name, values in others.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], values)


def test_a_class_of_bytes_may_be_ignored(mixed):
    """255 is -1 as a byte; it is the label that counts."""
    x, y = mixed[0], np.where(mixed[1] < 0, 255, mixed[1]).astype("uint8")
    loss = METHODS["Adversarial"](ignoring(255))
    loss.value_and_gradients(small_network(), x, y, seed=0)
    with pytest.raises(ValueError, match="labels from 0 to 255"):
        METHODS["Adversarial"](ignoring(-1)).value_and_gradients(
            small_network(), x, y, seed=0
        )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_steps_learn_the_same(jit_compile, mixed):
    network = small_network()
    loss = METHODS["ATENT"](ignoring())
    step = tf.function(
        lambda x, y: loss.value_and_gradients(network, x, y, seed=0).loss,
        jit_compile=jit_compile,
        autograph=False,
    )
    x, y = map(tf.constant, mixed)
    expected = loss.value_and_gradients(network, x, y, seed=0).loss
    np.testing.assert_allclose(step(x, y), expected, rtol=1e-5)
