import re
import runpy
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

import atent_keras as ak
import methods
import settings
import suites
import training
from conftest import cross_entropy
from kills import EXAMPLES
from run_folder import RunFolder

FLAGS = flags.FLAGS
FLAG_FILES = sorted((EXAMPLES / "flags").glob("*.flags"))
# What the names of flag files hold, and the passes that all of those spend.
SPENT = {"digits": 960, "_cpu": 506, "_small": 70, "_gpu": 1200}


@pytest.fixture(autouse=True)
def defined():
    saved = flagsaver.save_flag_values(FLAGS)
    settings.define("mnist", "small_cnn", ["mnist_linf", "mnist_l2"], 40)
    FLAGS(["test"])
    yield
    undefine()
    flagsaver.restore_flag_values(saved, FLAGS)


def undefine():
    for flag in list(FLAGS.flags_by_module_dict()["settings"]):
        delattr(FLAGS, flag.name)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"epsilon": 8.0}, "below 1.*--epsilon=8"),
        (
            {"method": "plain", "num_steps": 3},
            "plain takes only --epsilon. Received: --method=plain, --num_st.*3",
        ),
        (
            {"method": "plain", "strategy": "mirrored"},
            "--strategy belongs to the robust methods",
        ),
        (
            {"method": "plain", "awp_gamma": 0.01},
            "takes only --epsilon. Received: --method=plain, --awp_gamma=0.01",
        ),
        (
            {"method": "plain", "epsilon_warmup_epochs": 2},
            "takes only --epsilon. Received: .*, --epsilon_warmup_epochs=2",
        ),
        (
            {"method": "trades", "noise_scale": 0.1, "random_start": False},
            "takes only --epsilon, --num_steps, --step_size, --last_step_size, "
            "--beta, --clean_p.*Received: --method=trades, --noise_scale=0.1, "
            "--random_start=F",
        ),
        (
            {"method": "mart", "clean_passes": 2},
            "takes only .*Received: --method=mart, --clean_passes=2",
        ),
        (
            {"method": "fast", "num_steps": 2},
            "takes only .*Received: --method=fast, --num_steps=2",
        ),
        *(
            (
                {"step_size": first, "last_step_size": last, "num_steps": n},
                "--last_step_size must be positive and at most --step_size.*--"
                f"step_size={first}, --last_step_size={last}, --num_steps={n}",
            )
            for first, last, n in (
                (0.2, 0.1, None),
                (0.2, 0.1, 1),
                (None, 0.1, 3),
                (0.2, 0.3, 3),
                (0.2, -0.1, 3),
            )
        ),
        ({"beta": 6.0}, "takes only .*Received: --method=atent, --beta=6.0"),
        ({"awp_gamma": -1.0}, "must not be negative. Received: --awp_gamma=-1"),
        ({"awp_warmup_epochs": 2}, "belongs to --awp_gamma. Received: --awp_"),
        (
            {"awp_gamma": 0.01, "awp_warmup_epochs": 31},
            "at most --epochs. Received: --awp_warmup_epochs=31, --epochs=30",
        ),
        (
            {"epsilon_warmup_epochs": 31},
            "at most --epochs. Received: --epsilon_warmup_epochs=31, --epochs",
        ),
        ({"schedule": "piecewise"}, "--boundaries belong to"),
        ({"boundaries": ["2"]}, "--boundaries belong to"),
        ({"schedule": "piecewise", "boundaries": ["b"]}, "increasing epochs"),
        ({"schedule": "piecewise", "boundaries": ["0"]}, "from 1.*=.'0'"),
        (
            {"schedule": "piecewise", "boundaries": ["4", "2"]},
            "increasing epochs",
        ),
        ({"optimizer": "adam", "momentum": 0.5}, "--momentum belongs to"),
        ({"momentum": 1.0}, "below 1. Received: --momentum=1.0"),
        ({"ema": 1.5}, "between 0 and 1. Received: --ema=1.5"),
        ({"learning_rate": 0.0}, "--learning_rate must be positive"),
        ({"weight_decay": -1.0}, "--weight_decay must not be negative"),
    ],
)
def test_refuses(given, message):
    with flagsaver.flagsaver(**given):
        with pytest.raises(ValueError, match=message):
            settings.check()


def test_the_defaults_are_accepted():
    settings.check()


@pytest.mark.parametrize("text, value", [("8/255", 8 / 255), ("1e-4", 1e-4)])
def test_reads_fractions(text, value):
    assert settings.NumberParser().parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *["", "a", "1/0", "nan", "inf", "1/2/3"],
        *["1e300", "1e400", "1e1000000000", f"1{'0' * 400}/3"],
    ],
    ids=lambda text: text[:12] or "nothing",
)
def test_refuses_what_is_no_number(text):
    with pytest.raises(ValueError, match="fraction like 8/255"):
        settings.NumberParser().parse(text)


@pytest.mark.parametrize(
    "flag, value",
    [("epochs", 2**31), ("batch_size", 10**400), ("seed", -1), ("seed", 2**32)],
    ids=["epochs", "batch_size", "negative seed", "large seed"],
)
def test_refuses_integers_that_nothing_counts_to(flag, value):
    with pytest.raises(flags.IllegalFlagValueError, match=f"flag --{flag}="):
        FLAGS(["test", f"--{flag}={value}"])


def test_overrides_of_the_preset():
    with flagsaver.flagsaver(preset="mnist_l2", epsilon=1.5, loss_iterates=2):
        loss, threat_model = settings.loss()
    assert threat_model == ak.threat_models.L2(1.5)
    assert loss.loss_iterates == 2
    assert loss.sampler.step_size == 2.5 * 1.5 / 40


@pytest.mark.parametrize(
    "method, kind, preset",
    [
        ("atent", ak.ATENTRegularizedLoss, "mnist_linf"),
        ("pgd", ak.AdversarialLoss, "mnist_linf"),
        ("fast", ak.AdversarialLoss, "mnist_linf_fast"),
        ("trades", ak.TRADESLoss, "mnist_linf"),
    ],
)
def test_a_method_has_its_authors_settings(method, kind, preset):
    with flagsaver.flagsaver(method=method):
        settings.check()
        loss, threat_model = settings.loss(steps_per_epoch=10)
    assert repr(loss) == repr(kind.from_preset(preset))
    assert threat_model == ak.threat_models.Linf(0.3)


@pytest.mark.parametrize(
    "given, expected",
    [
        (
            {"method": "mart", "num_steps": 3, "beta": 2.0},
            lambda attack: ak.MARTLoss(attack, beta=2.0),
        ),
        (
            {
                "method": "trades",
                "preset": "mnist_l2",
                "num_steps": 3,
                "beta": 2.0,
            },
            lambda attack: ak.TRADESLoss(attack, beta=2.0),
        ),
        (
            {
                "method": "pgd",
                "preset": "mnist_l2",
                "num_steps": 3,
                "random_start": False,
            },
            lambda attack: ak.AdversarialLoss(cross_entropy(), attack),
        ),
        (
            {"method": "fast", "preset": "mnist_l2"},
            lambda attack: ak.AdversarialLoss(
                cross_entropy(), attack, attack_training=True
            ),
        ),
    ],
)
def test_flags_say_what_nobody_published(given, expected):
    norm = "L2" if given.get("preset") == "mnist_l2" else "Linf"
    with flagsaver.flagsaver(epsilon=0.5, step_size=0.2, **given):
        settings.check()
        loss, _ = settings.loss()
    attack = ak.attacks.PGD(
        getattr(ak.threat_models, norm)(0.5),
        step_size=0.2,
        num_steps=given.get("num_steps", 1),
        random_start=given.get("random_start", True),
    )
    assert repr(loss) == repr(expected(attack))


@pytest.mark.parametrize("method", ["atent", "pgd", "trades", "mart"])
def test_steps_that_shrink(method):
    given = {"beta": 2.0} if method == "mart" else {}
    with flagsaver.flagsaver(
        method=method,
        epsilon=0.3,
        num_steps=3,
        step_size=0.4,
        last_step_size=0.1,
        **given,
    ):
        settings.check()
        loss, _ = settings.loss(steps_per_epoch=10)
    attack = loss.sampler if method == "atent" else loss.attack
    sizes = [float(attack.step_size(k)) for k in range(3)]
    np.testing.assert_allclose(sizes, [0.4, 0.2, 0.1], rtol=1e-6)


def test_names_what_is_missing_where_nobody_published():
    with flagsaver.flagsaver(method="mart", epsilon=0.3, num_steps=3):
        with pytest.raises(
            ValueError,
            match="MART has no published settings for --preset=mnist_linf: "
            "--epsilon, --num_steps, --step_size, --beta must be given.*"
            "without --step_size, --beta$",
        ):
            settings.loss()


def test_warm_ups_are_counted_in_steps():
    given = {"awp_gamma": 0.01, "awp_warmup_epochs": 2}
    with flagsaver.flagsaver(method="pgd", epsilon_warmup_epochs=3, **given):
        settings.check()
        loss, _ = settings.loss(steps_per_epoch=10)
        early, _ = settings.loss()
    assert isinstance(loss, ak.AdversarialWeightPerturbation)
    assert (loss.gamma, loss.warmup_steps) == (0.01, 20)
    shares = [float(loss.radius_schedule(step)) for step in (0, 15, 30, 40)]
    assert shares == [0, 0.5, 1, 1]
    # A schedule makes tensors, which no strategy could be made after.
    assert early.radius_schedule is None


@pytest.mark.parametrize(
    "given, kind, title",
    [
        ({"method": "plain"}, keras.Model, "plain training"),
        ({}, ak.ATENTModel, "ATENT"),
        ({"awp_gamma": 0.01}, ak.ATENTModel, "ATENT with AWP"),
        ({"method": "trades"}, ak.RobustModel, "TRADES"),
    ],
)
def test_who_trains(given, kind, title):
    with flagsaver.flagsaver(**given):
        model = settings.model("mnist", steps_per_epoch=10)
        assert settings.title() == title
    assert type(model).__name__ in (kind.__name__, "Functional")
    assert isinstance(model, kind)


@pytest.mark.parametrize("method", ["plain", "atent"])
def test_begins_with_weights(method, tmp_path):
    saved = ak.architectures.SmallCNN()
    saved.save(tmp_path / "saved.keras")
    given = {"method": method, "weights": str(tmp_path / "saved.keras")}
    with flagsaver.flagsaver(**given):
        model = settings.model("mnist", steps_per_epoch=10)
    for found, expected in zip(model.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "weights, error, message",
    [
        ("none.keras", FileNotFoundError, "must be a file that exists"),
        ("digits_linf_atent", ValueError, r"are for .*\(8, 8, 1\)"),
    ],
)
def test_refuses_weights(weights, error, message):
    with flagsaver.flagsaver(weights=weights):
        with pytest.raises(error, match=message):
            settings.model("mnist", steps_per_epoch=10)


@pytest.mark.parametrize(
    "method, monitor",
    [("plain", "val_accuracy"), ("trades", "val_robust_accuracy")],
)
def test_which_epoch_is_the_best(tmp_path, method, monitor):
    images = np.zeros((2, 28, 28, 1), "float32"), np.zeros(2)
    with flagsaver.flagsaver(method=method, tensorboard=False):
        chain = training.callbacks(
            RunFolder(tmp_path / "run", {}),
            images,
            ak.threat_models.Linf(0.3),
            types.SimpleNamespace(clock=None),
        )
    checkpoints = [one for one in chain if hasattr(one, "save_best_only")]
    assert [one.monitor for one in checkpoints if one.save_best_only] == [
        monitor
    ]


def read(path):
    """Reads a flag file as its script does, and returns the loss."""
    script = path.name.partition("_")[0]
    undefine()
    runpy.run_path(str(EXAMPLES / f"{script}.py"))
    FLAGS(["script", f"--flagfile={path}"])
    settings.check()
    return settings.loss(steps_per_epoch=10)[0]


@pytest.mark.parametrize(
    "file, preset, warmup_steps",
    [
        ("cifar10_linf_awp", "cifar10_linf", 0),
        ("cifar10_linf_trades_awp", "cifar10_linf_trades", 90),
    ],
)
def test_published_perturbations(file, preset, warmup_steps):
    published = ak.AdversarialWeightPerturbation.from_preset(
        preset, warmup_steps=warmup_steps
    )
    loss = read(EXAMPLES / "flags" / f"{file}.flags")
    assert repr(loss) == repr(published)


PASSES = re.compile(
    r"(?:(\d+) passes forward, (\d+) back by images and (\d+) by weights|"
    r"(\d+) passes) a step"
)


@pytest.mark.parametrize("path", FLAG_FILES, ids=lambda path: path.stem)
def test_flag_files(path):
    """They can be read, and say what they spend, the same in a suite."""
    loss = read(path)
    comment = " ".join(re.findall("^# (.*)", path.read_text(), re.MULTILINE))
    kind = next((kind for kind in SPENT if kind in path.stem), None)
    if kind is None:
        return
    plain = FLAGS.method == "plain"
    step = methods.passes(None if plain else loss)
    said = PASSES.search(comment)
    assert sum(int(count or 0) for count in said.groups()) == step
    images = suites.TRAINING_IMAGES[path.stem.partition("_")[0]]
    share = (FLAGS.train_limit or images) / images
    total = round(step * FLAGS.epochs * share)
    assert f" {total:,} passes over " in comment
    if not plain:
        assert total == pytest.approx(SPENT[kind], rel=0.03)


@pytest.mark.parametrize(
    "given, steps, expected",
    [
        (
            {"schedule": "piecewise", "boundaries": ["2", "3"]},
            [0, 19, 20, 29, 30],
            [1, 1, 0.1, 0.1, 0.01],
        ),
        ({"schedule": "cosine"}, [0, 20, 40], [1, 0.5, 0]),
        ({"schedule": "one_cycle"}, [0, 12, 26, 40], [0.04, 1, 0.5, 0]),
    ],
)
def test_schedules(given, steps, expected):
    with flagsaver.flagsaver(epochs=4, learning_rate=1.0, **given):
        optimizer = settings.optimizer(steps_per_epoch=10)
    config = optimizer.get_config()["learning_rate"]
    schedule = keras.optimizers.schedules.deserialize(config)
    found = [float(schedule(step)) for step in steps]
    assert found == pytest.approx(expected, abs=1e-6)


def test_weight_decay_is_pytorchs():
    with flagsaver.flagsaver(weight_decay=0.1, method="plain"):
        model = settings.model("mnist", steps_per_epoch=10)
    expected = 0.05 * sum(
        float(tf.reduce_sum(tf.square(v.value)))
        for v in model.trainable_weights
    )
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
