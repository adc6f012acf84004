import keras
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

import atent_keras as ak
import settings

FLAGS = flags.FLAGS


@pytest.fixture(autouse=True, scope="module")
def defined():
    saved = flagsaver.save_flag_values(FLAGS)
    settings.define("mnist", "small_cnn", ["mnist_linf", "mnist_l2"], 40)
    FLAGS(["test"])
    yield
    names = FLAGS.flags_by_module_dict()["settings"]
    for flag in list(names):
        delattr(FLAGS, flag.name)
    flagsaver.restore_flag_values(saved, FLAGS)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"epsilon": 8.0}, "below 1.*--epsilon=8"),
        (
            {"method": "plain", "num_steps": 3},
            "no chain to set up. Received: --method=plain, --num_steps=3",
        ),
        (
            {"method": "plain", "strategy": "mirrored"},
            "--strategy belongs to --method=atent",
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


@pytest.mark.parametrize("text", ["", "a", "1/0", "nan", "inf", "1/2/3"])
def test_refuses_what_is_no_number(text):
    with pytest.raises(ValueError, match="fraction like 8/255"):
        settings.NumberParser().parse(text)


def test_overrides_of_the_preset():
    with flagsaver.flagsaver(preset="mnist_l2", epsilon=1.5, loss_iterates=2):
        loss, threat_model = settings.loss()
    assert threat_model == ak.threat_models.L2(1.5)
    assert loss.loss_iterates == 2
    assert loss.sampler.step_size == 2.5 * 1.5 / 40


@pytest.mark.parametrize(
    "given, steps, expected",
    [
        (
            {"schedule": "piecewise", "boundaries": ["2", "3"]},
            [0, 20, 21, 30, 31],
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
        model = settings.model(steps_per_epoch=10)
    expected = 0.05 * sum(
        float(tf.reduce_sum(tf.square(v.value)))
        for v in model.trainable_weights
    )
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
