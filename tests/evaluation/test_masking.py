import functools
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
import faults
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.evaluation import MaskingChecks
from atent_keras.evaluation import evaluate_robustness
from atent_keras.evaluation import masking
from atent_keras.evaluation.signs import CHECKS
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import small_network

SETTINGS = {"num_images": 50, "num_steps": 20, "num_queries": 300}


@pytest.fixture(scope="module")
def data():
    x, y = ak.datasets.digits()[1]
    return x[:60], y[:60]


@pytest.fixture(scope="module")
def plain():
    return faults.network(ak.datasets.digits()[0])


@pytest.fixture(scope="module")
def robust():
    return faults.network(ak.datasets.digits()[0], faults.robust_loss())


def fired(found):
    return {name for name, finding in found.items() if finding.fired}


@pytest.mark.parametrize("kind", ["plain", "robust"])
def test_all_checks_are_silent_on_honest_networks(kind, plain, robust, data):
    model, other = (plain, robust) if kind == "plain" else (robust, plain)
    found, report = faults.findings(model, data, surrogate=other, **SETTINGS)
    assert {finding.verdict for finding in found.values()} == {"silent"}
    assert list(found) == list(CHECKS)
    # So that the silence is not for want of anything to see.
    assert 0.3 < report.robust_accuracy["PGD"] < 0.9 < report.clean_accuracy
    assert [one for one in found.values()] == list(report.findings)


FAULTS = {
    "saturated": {"zero gradients", "black box", "large radius", "transfer"},
    "rounded": {"zero gradients", "black box", "large radius", "transfer"},
    "gradient not finite": {"zero gradients"},
    "gradient backwards": {"black box", "large radius", "transfer"},
    "rugged": {"black box", "large radius", "transfer"},
    "random": {"randomness"},
    "probabilities": {"probabilities"},
}


@pytest.fixture(scope="module")
def find(plain, data):
    """A function from a fault to what is found of it, once for all tests."""

    @functools.cache
    def find(fault):
        model = faults.faulty(plain)[fault]
        with warnings.catch_warnings():
            # The attacks themselves say that a gradient is zero.
            warnings.filterwarnings(
                "ignore", message="The gradient of the network"
            )
            return faults.findings(model, data, surrogate=plain, **SETTINGS)

    return find


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault, find):
    assert fired(find(fault)[0]) == FAULTS[fault]


def test_every_check_has_a_fault_that_it_finds():
    with_a_fault = set().union(*FAULTS.values(), {"more effort"})
    assert with_a_fault == set(CHECKS)


def test_an_attack_that_is_too_weak_is_found(robust):
    x, y = ak.datasets.digits()[1]
    settings = {**SETTINGS, "num_images": 200}
    found, _ = faults.findings(robust, (x, y), attack_steps=1, **settings)
    assert fired(found) == {"more effort"}
    evidence = found["more effort"].evidence
    assert "images" in evidence and "with 100 steps" in evidence
    assert found["transfer"].verdict == "not run"
    assert "surrogate" in found["transfer"].evidence


def test_a_network_without_any_gradient_gets_its_report(plain, data):
    """Square does what is left to do, and beats those who can do nothing."""

    def quantized(x):
        return plain(tf.round(x * 63) / 63 + tf.stop_gradient(0 * x))

    def outside_tensorflow(x):
        def predict(x):
            return np.asarray(plain(x), "float32")

        found = tf.numpy_function(predict, [tf.round(x * 63) / 63], tf.float32)
        return tf.ensure_shape(found, (None, 10))

    for model in (quantized, outside_tensorflow):
        report = evaluate_robustness(
            model,
            data,
            {"noise": ak.attacks.UniformNoise(faults.THREAT_MODEL)},
            checks=MaskingChecks(**SETTINGS),
            verbose=0,
        )
        found = {finding.check: finding for finding in report.findings}
        assert fired(found) == {"zero gradients", "black box"}
        evidence = found["zero gradients"].evidence
        assert evidence == "the loss has no gradient by the image"
        for check in ("large radius", "more effort"):
            assert found[check].verdict == "not run"


@pytest.mark.parametrize(
    "surrogate, reason",
    [
        (lambda x: tf.nn.softmax(tf.ones((len(x), 10))), "expects logits"),
        (lambda x: tf.ones((len(x), 5)), "Labels must lie in 0..4"),
        (lambda x: tf.reshape(x, [-1, 3, 5]), "reshape"),
    ],
)
def test_a_surrogate_that_does_not_fit_is_refused_at_once(
    surrogate, reason, data
):
    with pytest.raises(
        ValueError, match=f"`surrogate` must take the same .*{reason}"
    ):
        evaluate_robustness(
            small_network(),
            data,
            {"never": Never(Linf(0.1))},
            checks=MaskingChecks(surrogate=surrogate),
            verbose=0,
        )


class Never(FGSM):
    def __call__(self, *arguments, **settings):
        raise RuntimeError("the surrogate was refused too late")


def test_findings_print_their_evidence(find):
    found, report = find("gradient not finite")
    evidence = found["zero gradients"].evidence
    assert evidence == (
        "of the loss's gradients at 50 images 0.0 % are zero, 100.0 % not "
        "finite"
    )
    assert f"zero gradients      fired    {evidence}" in str(report)


def test_the_first_images_that_are_classified_right_are_looked_at(data):
    """And no others, however the data come in batches."""
    x, y = data
    network = small_network()
    right = np.flatnonzero(np.argmax(network.predict(x, verbose=0), 1) == y)
    seen = []

    def model(images):
        if tf.executing_eagerly():
            seen.append(np.asarray(images))
        return network(images, training=False)

    batches = [(x[:7], y[:7]), (x[7:], y[7:])]
    evaluate_robustness(
        model,
        batches,
        {"FGSM": FGSM(Linf(0.1))},
        checks=MaskingChecks(num_images=3, num_steps=1, num_queries=2),
        verbose=0,
    )
    # The last look at them is in the batches in which they came.
    found = np.concatenate(seen[-2:] if right[0] < 7 <= right[2] else seen[-1:])
    np.testing.assert_array_equal(found, x[right[:3]])


LOGIT = keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    "shape, loss, not_run",
    [
        ((2, 3, 1), LOGIT, {}),
        ((3, 2), LOGIT, {}),
        ((6,), LOGIT, {"black box": "neighbours"}),
        # Squared errors have their boundary at 0.5, and not at 0.
        ((2, 3, 1), "mse", dict.fromkeys(("black box", "transfer"), "logits")),
    ],
    ids=["images", "sequences", "tables", "distance"],
)
def test_l2_and_two_classes_with_one_output(shape, loss, not_run):
    """Where a check does not apply, it says why."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(80, 6)).astype("float32")
    y = (x[:, 0] > 0.5).astype(int)
    inputs = keras.Input(shape)
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(flat))
    boundary = 0.5 if loss == "mse" else 0.0
    model.set_weights([np.eye(6, 1) * 4, np.array([boundary - 2.0])])
    model.compile(loss=loss, run_eagerly=True)
    report = evaluate_robustness(
        model,
        (x.reshape(-1, *shape), y),
        {"PGD": PGD(L2(0.1))},
        checks=MaskingChecks(30, 2, 20, surrogate=model),
        verbose=0,
    )
    found = {one.check: one for one in report.findings}
    for check in CHECKS:
        verdict = "not run" if check in not_run else "silent"
        assert found[check].verdict == verdict
        assert not_run.get(check, "") in found[check].evidence
    # 0.1 of the first pixel is what the attack has to turn.
    assert report.robust_accuracy["PGD"] == np.mean(np.abs(x[:, 0] - 0.5) > 0.1)


def test_findings_of_the_same_case_are_not_found_twice(data, tmp_path):
    network, x = small_network(), data[0]
    y = np.argmax(network.predict(x, verbose=0), axis=1)
    attacked = []

    def surrogate(images):
        # Attacks are compiled; eager passes are looks at what it is.
        if not tf.executing_eagerly():
            tf.py_function(attacked.append, [tf.shape(images)], [])
        return network(images)

    def evaluate(num_images):
        return evaluate_robustness(
            network,
            (x, y),
            {"FGSM": FGSM(Linf(0.05))},
            folder=tmp_path,
            checks=MaskingChecks(num_images, 2, 5, surrogate),
            verbose=0,
        ).findings

    first = evaluate(10)
    count = len(attacked)
    assert evaluate(10) == first
    assert len(attacked) == count > 0
    assert evaluate(12) != first
    assert len(attacked) > count


def test_checks_keep_to_the_data_s_batches(data, capsys, monkeypatch):
    """And do not depend on them; the bar counts every attack of a batch."""
    x, y = data[0][:24], data[1][:24]
    network = small_network()
    y = np.where(np.arange(24) % 5, np.argmax(network(x), axis=1), y)
    sizes, passes, count = [], [], masking.Bar.attacked
    monkeypatch.setattr(
        masking.Bar, "attacked", lambda bar: passes.append(1) or count(bar)
    )

    def model(images):
        tf.py_function(sizes.append, [tf.shape(images)[0]], [])
        return network(images)

    def findings(size, verbose=0):
        sizes.clear()
        return evaluate_robustness(
            model,
            [(x[i : i + size], y[i : i + size]) for i in range(0, 24, size)],
            {"FGSM": FGSM(Linf(0.02))},
            checks=MaskingChecks(17, 2, 5, surrogate=network),
            verbose=verbose,
        ).findings

    found = findings(5, verbose=1)
    assert max(sizes) == 5
    shown = capsys.readouterr().out
    assert "checks for masked gradients" in shown
    total = 4 * (2 + 4 + 2 + 1)
    assert len(passes) == total
    assert re.findall(rf"(\d+)/{total}", shown)[-1] == str(total)
    assert findings(24) == found
    assert "checks" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"num_images": 0}, "`num_images` must be .* Received: num_images=0"),
        ({"num_steps": 1.5}, "`num_steps` must be .* Received"),
        ({"num_queries": True}, "`num_queries` must be .* Received"),
        ({"surrogate": "net"}, "`surrogate` must be .* Received: .*'net'"),
    ],
)
def test_bad_settings(settings, error):
    with pytest.raises((ValueError, TypeError), match=error):
        MaskingChecks(**settings)
