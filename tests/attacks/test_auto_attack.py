import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from atent_keras.attacks import APGD
from atent_keras.attacks import APGDT
from atent_keras.attacks import DLR
from atent_keras.attacks import FAB
from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.attacks import AutoAttack
from atent_keras.attacks import Square
from atent_keras.attacks import UniformNoise
from atent_keras.attacks import auto_attack
from atent_keras.attacks.accuracy import is_correct
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from conftest import assert_repeats
from conftest import cross_entropy
from conftest import small_network


def quick(norm, **settings):
    """AutoAttack's four attacks, each cut short."""
    attacks = [
        APGD(norm, 20),
        APGDT(norm, 10, targets=3),
        FAB(norm, 10, targets=3),
        Square(norm, 150),
    ]
    return AutoAttack(norm, attacks, **{"verbose": 0, **settings})


@pytest.fixture(scope="module")
def trained(digits):
    keras.utils.set_random_seed(0)
    network = small_network()
    network.compile("adam", cross_entropy())
    network.fit(*digits, epochs=5, verbose=0)
    return network


def test_versions():
    norm = Linf(0.1)
    standard = AutoAttack(norm)
    assert standard.attacks == (
        APGD(norm, num_steps=100, restarts=1),
        APGDT(norm, num_steps=100, targets=9, restarts=1),
        FAB(norm, num_steps=100, targets=9, restarts=1),
        Square(norm, num_queries=5000),
    )
    names = [attack.name for attack in AutoAttack(norm, "plus").attacks]
    assert names == ["APGD-CE", "APGD-DLR", "FAB", "Square", "APGD-T", "FAB-T"]
    assert [a.restarts for a in AutoAttack(norm, "plus").attacks[:3]] == [5] * 3
    rand = AutoAttack(norm, "rand").attacks
    assert [(a.name, a.num_samples) for a in rand] == [
        ("APGD-CE", 20),
        ("APGD-DLR", 20),
    ]
    for attack in (standard, AutoAttack(norm, "rand"), quick(norm)):
        config = keras.saving.serialize_keras_object(attack)
        again = keras.saving.deserialize_keras_object(config)
        assert again == attack and repr(again) == repr(attack)


@pytest.mark.parametrize("norm", [Linf, L2])
def test_a_linear_network_in_closed_form(norm):
    """Three classes; the smallest gap over its dual norm decides."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    network = keras.Model(inputs, outputs)
    weights = rng.normal(size=(16, 3)).astype("float32")
    network.set_weights([weights, np.zeros(3, "float32")])
    x = rng.uniform(0.4, 0.6, size=(60, 4, 4, 1)).astype("float32")
    y = np.argmax(network(x), axis=-1)
    smallest = []
    for image, label in zip(x.reshape(60, -1), y):
        smallest.append(np.inf)
        for other in {0, 1, 2} - {int(label)}:
            normal = weights[:, label] - weights[:, other]
            dual = np.linalg.norm(normal, 1 if norm is Linf else 2)
            smallest[-1] = min(smallest[-1], image @ normal / dual)
    epsilon = float(np.mean(np.sort(smallest)[29:31]))
    assert epsilon < 0.35  # the box does not bind
    threat_model = norm(epsilon)
    attack = AutoAttack(
        threat_model,
        [APGD(threat_model, 50), FAB(threat_model, 20, 2)],
        verbose=0,
    )
    result = attack.evaluate(network, x, y, seed=0)
    correct = is_correct(tf.constant(y), network(result.x_adv)).numpy()
    np.testing.assert_array_equal(correct, np.array(smallest) > epsilon)
    assert result.stages[-1].accuracy == 0.5


@dataclasses.dataclass(frozen=True)
class Spy(UniformNoise):
    """Records how many images it is given, and fools some of them."""

    fools: int = 0
    given = {}

    def _perform(self, model, loss, x, y, seed, places, *_, **__):
        self.given[self.fools] = places.numpy().tolist()
        x = x.numpy()
        x[: self.fools] = 1.0  # which the network below takes for class 1
        return tf.constant(x)


def bright(x):
    lead = tf.reduce_mean(x, axis=[1, 2, 3]) - 0.5
    return tf.stack([-lead, lead], axis=-1)


def test_each_attack_meets_only_what_still_stands():
    x = np.full((8, 2, 2, 1), 0.2, "float32")
    x[3] = 0.9  # wrong as it is
    norm = Linf(1.0)
    spies = [Spy(norm, fools=fools) for fools in (2, 0, 1, 4)]
    attack = AutoAttack(norm, [*spies, Spy(norm, fools=9)], verbose=0)
    result = attack.evaluate(bright, x, np.zeros(8, int), seed=0, first=10)
    assert Spy.given == {
        2: [10, 11, 12, 14, 15, 16, 17],
        0: [12, 14, 15, 16, 17],
        1: [12, 14, 15, 16, 17],
        4: [14, 15, 16, 17],
    }
    # The last found nothing left to do.
    accuracies = [stage.accuracy for stage in result.stages]
    assert accuracies == [7 / 8, 5 / 8, 5 / 8, 4 / 8, 0, 0]
    names = [stage.name for stage in result.stages]
    assert names == ["clean", *["Spy"] * 5]
    assert all(stage.seconds >= 0 for stage in result.stages)
    # Found where it was fooled, clean where it was wrong from the start.
    fooled = np.delete(np.arange(8), 3)
    assert np.all(result.x_adv.numpy()[fooled] == 1)
    np.testing.assert_array_equal(result.x_adv[3], x[3])
    assert str(result).splitlines()[0].startswith("clean   87.50 %")


@pytest.mark.parametrize("norm", [Linf(0.08), L2(0.5)])
def test_it_is_the_attacks_one_after_the_other(norm, trained, digits):
    x, y = digits[0][:150], digits[1][:150]
    attack = quick(norm)
    result = attack.evaluate(trained, x, y, seed=3)
    standing = is_correct(tf.constant(y), trained(x)).numpy()
    by_hand = [standing.mean()]
    for part in attack.attacks:
        x_adv = part(trained, x, y, seed=3)
        standing &= is_correct(tf.constant(y), trained(x_adv)).numpy()
        by_hand.append(standing.mean())
    accuracies = [stage.accuracy for stage in result.stages]
    assert accuracies == pytest.approx(by_hand, abs=1 / 150 + 1e-9)
    assert 0.05 < accuracies[-1] < accuracies[0] - 0.1
    assert accuracies == sorted(accuracies, reverse=True)
    # No worse than PGD, never outside, and what it returns is what it counts.
    pgd = PGD(norm, num_steps=40)(trained, x, y, seed=0)
    correct = is_correct(tf.constant(y), trained(pgd)).numpy()
    assert accuracies[-1] <= correct.mean()
    assert np.max(norm.norm(result.x_adv - x)) <= norm.epsilon * (1 + 1e-6)
    final = is_correct(tf.constant(y), trained(result.x_adv)).numpy()
    assert final.mean() == pytest.approx(accuracies[-1], abs=1 / 150 + 1e-9)


@pytest.fixture
def table():
    """A linear network of tables, and rows that it has right."""
    inputs = keras.Input((6,))
    network = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    x = np.random.default_rng(0).uniform(size=(20, 6)).astype("float32")
    return network, x, np.argmax(network(x), axis=1)


def test_tables_are_attacked_without_square_which_is_said(
    table, capsys, monkeypatch
):
    norm = Linf(0.05)
    few = quick(norm).attacks
    monkeypatch.setitem(auto_attack._VERSIONS, "standard", lambda norm: few)
    result = AutoAttack(norm, verbose=0).evaluate(*table, seed=0)
    names = [stage.name for stage in result.stages]
    assert names == ["clean", "APGD-CE", "APGD-T", "FAB-T"]
    reason = "a table (batch, features) has no neighbours to repaint"
    assert result.not_run == {"Square": reason}
    last = str(result).splitlines()[-1]
    assert last == f"Square   not run: {reason}"
    # It is what the others do.
    by_name = AutoAttack(norm, list(few[:3]), verbose=0)
    assert by_name.evaluate(*table, seed=0).not_run == {}
    assert_repeats(by_name(*table, seed=0), result.x_adv)
    assert capsys.readouterr().out == ""
    # Printed, and in each form of a report.
    AutoAttack(norm, verbose=2)(*table, seed=0)
    assert f"Square not run: {reason}" in capsys.readouterr().out
    network, *data = table
    report = ak.evaluate_robustness(
        network,
        tuple(data),
        {"AA": AutoAttack(norm), "FGSM": FGSM(norm)},
        checks=None,
        verbose=0,
    )
    for shown in (
        str(report),
        report.to_markdown(),
        report.to_csv(),
        report.to_json(),
    ):
        assert f"; not run: Square: {reason}" in shown
    assert report.results["FGSM"].not_run == {}


def test_what_is_asked_for_by_name_is_not_left_out(table):
    norm = Linf(0.05)
    attack = AutoAttack(norm, [APGD(norm, 3), Square(norm, 3)], verbose=0)
    with pytest.raises(ValueError, match="`x` must be images.*leaves Square"):
        attack(*table)
    assert AutoAttack(norm).left_out((None, 8, 8, 1)) == {}
    assert AutoAttack(norm).left_out((None, 8, 3)) == {}
    assert list(AutoAttack(norm, "plus").left_out((None, 8))) == ["Square"]
    assert AutoAttack(norm, "rand").left_out((None, 8)) == {}


def test_in_a_report_and_in_any_batches(trained, digits):
    x, y = digits[0][:60], digits[1][:60]
    attack = quick(Linf(0.08))
    report = ak.evaluate_robustness(
        trained,
        (x, y),
        {"AA": attack},
        seed=1,
        checks=ak.MaskingChecks(10, 2, 5),
    )
    cuts = ((0, 25), (25, 30), (30, 60))
    batches = [(x[i:j], y[i:j]) for i, j in cuts]
    again = ak.evaluate_robustness(
        trained, batches, {"AA": attack}, seed=1, checks=None
    )
    stages = attack.evaluate(trained, x, y, seed=1).stages
    for found in (report, again):
        assert found.robust_accuracy["AA"] == pytest.approx(
            stages[-1].accuracy, abs=1 / 60 + 1e-9
        )


def test_one_hot_labels_and_the_models_own_loss(trained, digits):
    """Whatever the model was compiled with, APGD-CE climbs cross-entropy."""
    x, y = digits[0][:40], digits[1][:40]
    one_hot = keras.utils.to_categorical(y, 10)
    expected = quick(Linf(0.08))(trained, x, y, seed=0)
    network = keras.models.clone_model(trained)
    network.set_weights(trained.get_weights())
    network.compile(loss="categorical_hinge")
    found = quick(Linf(0.08))(network, x, one_hot, seed=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_progress(trained, digits, capsys):
    x, y = digits[0][:20], digits[1][:20]
    norm = Linf(0.05)
    attacks = [APGD(norm, 3), FGSM(norm)]
    AutoAttack(norm, attacks, verbose=0)(trained, x, y)
    assert capsys.readouterr().out == ""
    AutoAttack(norm, attacks)(trained, x, y, seed=0)
    shown = capsys.readouterr().out
    assert "APGD-CE" in shown and "FGSM" in shown
    assert "robust_accuracy: 0." in shown or "robust_accuracy: 1.0" in shown
    result = AutoAttack(norm, attacks, verbose=2).evaluate(trained, x, y, 0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["clean", "APGD-CE", "FGSM"]
    assert f"{100 * result.stages[-1].accuracy:.2f} %" in lines[-1]


def with_output(network, layer):
    return keras.Model(network.inputs[0], layer(network.outputs[0]))


def poisoned(network, x):
    """The network, but NaN for bright images."""
    logits = network(x)
    return (
        logits
        + tf.where(
            tf.reduce_max(x, axis=[1, 2, 3], keepdims=False) > 0.99, np.nan, 0.0
        )[:, None]
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"model": lambda n: with_output(n, keras.layers.Softmax())},
            "expects logits. Received: a network whose outputs are prob",
        ),
        (
            {"model": lambda n: with_output(n, keras.layers.Dense(1))},
            "Labels of two classes must be .* Received: labels from 0 to 9",
        ),
        (
            {"model": lambda n: lambda x: poisoned(n, x)},
            "outputs must be finite. Received: .* NaN or infinity",
        ),
        ({"y": lambda y: y + 1}, "Labels must lie in 0..9 .* from 1 to 10"),
        ({"y": lambda y: y - 1}, "Labels must lie in 0..9 .* from -1 to 8"),
        ({"x": lambda x: 2 * x}, "Images must lie within .* Received: values"),
        ({"x": lambda x: x - 0.1}, "Images must lie within .* Received"),
        ({"x": lambda x: x * np.nan}, "Images must lie within .* Received"),
        ({"x": lambda x: x[:, 0, :, 0]}, "`x` must be images .* Received"),
    ],
)
def test_bad_input_is_refused_before_any_work(change, message, batch):
    x, y = (change.get(name, lambda z: z)(z) for name, z in zip("xy", batch))
    network = change.get("model", lambda n: n)(small_network())
    norm = Linf(0.1)

    @dataclasses.dataclass(frozen=True)
    class Never(Square):
        def _perform(self, *args):
            raise AssertionError("work had begun")

    with pytest.raises(ValueError, match=message):
        AutoAttack(norm, [Never(norm)], verbose=0)(network, x, y)


def test_points_outside_the_ball_do_not_count(trained, digits):
    x, y = digits[0][:40], digits[1][:40]
    loose = SGLD(L2(0.5), step_size=1.0, num_steps=3, projection="none")
    assert np.max(L2(1.0).norm(loose(trained, x, y, seed=0) - x)) > 1
    attack = AutoAttack(L2(0.5), [loose], verbose=0)
    x_adv = attack(trained, x, y, seed=0)
    assert np.max(L2(1.0).norm(x_adv - x)) <= 0.5 * (1 + 1e-6)


def test_zero_epsilon(trained, digits):
    x, y = digits[0][:30], digits[1][:30]
    for norm in (Linf(0.0), L2(0.0)):
        result = quick(norm).evaluate(trained, x, y, seed=0)
        np.testing.assert_array_equal(result.x_adv, x)
        assert result.stages[-1].accuracy == result.stages[0].accuracy


def test_fewer_classes_than_targets_and_no_gradient(digits):
    """It goes on with what there is, and says so."""
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    steep = keras.layers.Dense(2, kernel_initializer="normal")
    network = keras.Model(inputs, steep(flat))
    x = digits[0][:20]
    y = np.argmax(network(x), axis=-1)
    norm = Linf(0.02)
    attack = AutoAttack(norm, [APGDT(norm, 5), FAB(norm, 5)], verbose=0)
    with pytest.warns(UserWarning, match="tries all 1 of them. .* targets=9"):
        accuracy = attack.evaluate(network, x, y, seed=0).stages[-1].accuracy
    assert 0 < accuracy < 1
    # Of a version by name nobody asked for any targets.
    named = AutoAttack(Linf(0.5), verbose=0)
    assert not named.evaluate(network, x, y, seed=0).stages[-1].accuracy

    # Steps have no slope; Square needs none.
    def stepped(x):
        logits = network(x)
        return tf.stop_gradient(tf.round(40 * logits)) + 0 * logits

    y = np.argmax(stepped(x), axis=-1)
    attack = AutoAttack(norm, [APGD(norm, 5), Square(norm, 200)], verbose=0)
    with pytest.warns(UserWarning, match="gradient .* zero at all .* first 20"):
        stages = attack.evaluate(stepped, x, y, seed=0).stages
    assert stages[-1].accuracy < 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"version": "best"}, "`version` must be one of 'standard', "),
        ({"version": []}, "`version` must be one of"),
        ({"version": ["APGD"]}, "`version` must be one of"),
        ({"version": [AutoAttack(Linf(0.1))]}, "AutoAttack excepted"),
        ({"version": [PGD(Linf(0.2))]}, "under the same threat model"),
        ({"verbose": 3}, "`verbose` must be 0, 1 or 2"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=f"{message}.* Received"):
        AutoAttack(Linf(0.1), **settings)


def test_rand_and_plus_run(trained, digits):
    x, y = digits[0][:10], digits[1][:10]
    norm = Linf(0.05)
    for version in ("rand", "plus"):
        parts = [
            dataclasses.replace(
                part,
                **{
                    name: 2
                    for name in ("num_steps", "num_queries", "restarts")
                    if hasattr(part, name)
                },
            )
            for part in AutoAttack(norm, version).attacks
        ]
        result = AutoAttack(norm, parts, verbose=0).evaluate(trained, x, y, 0)
        assert len(result.stages) == len(parts) + 1
    assert DLR() == parts[1].loss
