import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import atent_keras as ak
from conftest import small_loss
from conftest import small_model
from conftest import small_network
from resume import Resume

pytestmark = pytest.mark.usefixtures("on_the_cpu")

STEPS = 5  # an epoch
EPOCHS = 3


def resumable(folder, digits, strategy=None, every=2, **settings):
    """A model, its data, and the callback, as the command lines make them."""
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = small_model(
            settings.pop("loss", None) or small_loss(noise_scale=0.1),
            keras.optimizers.Adam(0.01, use_ema=True),
            settings.pop("network", None) or small_network(0.3, True),
        )
    x, y = digits[0][:160], digits[1][:160]
    # For the metrics alone, for which nothing need be compiled.
    model.run_eagerly = True
    model.evaluate(x[:32], y[:32], verbose=0)
    model.run_eagerly = False
    resume = Resume(folder, model, STEPS, every, strategy, **settings)
    return model, resume, (x, y)


class Stop(keras.callbacks.Callback):
    """Ends a training as a kill would, after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if not self.steps:
            raise KeyboardInterrupt


def train(folder, digits, steps=None, **settings):
    model, resume, (x, y) = resumable(folder, digits, **settings)
    done = resume.restore()
    epoch, step = divmod(done, STEPS)
    data = ak.datasets.pipeline(
        x,
        y,
        32,
        shuffle=True,
        augment=True,
        first_epoch=epoch,
        endless=True,
    )
    history = {}
    try:
        history = model.fit(
            data.skip(step),
            steps_per_epoch=STEPS,
            epochs=EPOCHS,
            initial_epoch=epoch,
            callbacks=[
                keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
                *([Stop(steps)] if steps else []),
                resume,
            ],
            shuffle=False,
            verbose=0,
        ).history
    except KeyboardInterrupt:
        pass
    return done, model, history


def values(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    _, model, history = train(tmp_path_factory.mktemp("whole"), digits)
    return values(model), history


# In an epoch; before, at and after its end; twice.
@pytest.mark.parametrize("stops", [(3,), (5,), (6,), (3, 4), (13,)])
def test_ends_as_if_nothing_had_happened(tmp_path, digits, whole, stops):
    before = 0
    for steps in stops:
        done, _, _ = train(tmp_path, digits, steps)
        assert done == before
        # At most two steps, and the one in which it was stopped, are lost.
        before = done + steps
        before = max(
            step
            for step in range(done, before)
            if step == done or step % STEPS % 2 == 0
        )
    done, model, history = train(tmp_path, digits)
    assert done == before
    for one, other in zip(values(model), whole[0], strict=True):
        np.testing.assert_array_equal(one, other)
    for name, expected in whole[1].items():
        found = history[name]
        np.testing.assert_array_equal(found, expected[-len(found) :])
    assert model.optimizer.iterations == EPOCHS * STEPS


def test_ends_the_same_on_two_devices(tmp_path, digits, strategy):
    _, whole, _ = train(tmp_path / "whole", digits, strategy=strategy)
    train(tmp_path / "stopped", digits, 8, strategy=strategy)
    done, model, _ = train(tmp_path / "stopped", digits, strategy=strategy)
    assert done == 7
    for one, other in zip(values(model), values(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def test_ends_the_same_with_warm_ups(tmp_path, digits):
    """Stopped while the radius still grows, before weights are perturbed."""

    def perturbed():
        schedules = keras.optimizers.schedules
        threat_model = ak.threat_models.Linf(0.1)
        trades = ak.TRADESLoss(
            ak.attacks.PGD(threat_model, 0.05, num_steps=2),
            radius_schedule=schedules.PolynomialDecay(0.0, 2 * STEPS, 1.0),
        )
        return ak.AdversarialWeightPerturbation(trades, 0.01, warmup_steps=7)

    _, whole, _ = train(tmp_path / "whole", digits, loss=perturbed())
    train(tmp_path / "stopped", digits, 5, loss=perturbed())
    done, model, _ = train(tmp_path / "stopped", digits, loss=perturbed())
    assert done == 4
    for one, other in zip(values(model), values(whole), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("left_behind")
    train(folder, digits, 5)
    return folder


@pytest.fixture
def stopped(left_behind, tmp_path):
    """The checkpoints of a run that was stopped after step 4 was saved."""
    return shutil.copytree(left_behind, tmp_path / "stopped")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    stopped, digits, whole, caplog
):
    data = stopped / "step-4.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    done, model, _ = train(stopped, digits)
    assert done == 2
    assert "step-4 cannot be read and is left out" in caplog.text
    for one, other in zip(values(model), whole[0], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name, content, done",
    [
        ("checkpoint", None, 4),
        ("checkpoint", b"", 4),
        ("checkpoint", b"\x80\xff", 4),
        ("checkpoint", b'model_checkpoint_path: "step', 4),
        ("checkpoint", b'model_checkpoint_path: "step-2"\n', 4),
        ("step-4.index", None, 2),
        ("step-4.index", b"", 2),
        ("step-4.index", b"\x80\xff" * 50, 2),
        ("step-4.data-00000-of-00001", None, 2),
    ],
    ids=lambda part: str(part)[:12],
)
def test_goes_on_from_what_is_whole(name, content, done, stopped, digits):
    (stopped / name).unlink()
    if content is not None:
        (stopped / name).write_bytes(content)
    _, resume, _ = resumable(stopped, digits)
    assert resume.restore() == done
    # The list is whole again, and two are kept.
    resume.step.assign(6)
    resume.save()
    newest = str(stopped / "step-6")
    assert tf.train.latest_checkpoint(stopped) == newest
    assert len([*stopped.glob("*.index")]) == 2


@pytest.mark.parametrize("name", ["checkpoint", "step-4.index"])
def test_refuses_a_folder_in_the_place_of_a_file(name, stopped, digits):
    (stopped / name).unlink()
    (stopped / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} must be a file"):
        resumable(stopped, digits)


def test_refuses_when_no_checkpoint_can_be_read(stopped, digits):
    for path in stopped.glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="must be whole and of this network"):
        train(stopped, digits)


def test_refuses_the_checkpoint_of_another_network(stopped, digits):
    with pytest.raises(ValueError, match="of this network and optimizer"):
        train(stopped, digits, network=small_network(0.3))


@pytest.mark.parametrize("preset", ["mnist_linf", "mnist_l2"])
def test_refuses_the_checkpoint_of_another_preset(stopped, digits, preset):
    loss = ak.ATENTRegularizedLoss.from_preset(preset)
    with pytest.raises(ValueError, match="same loss.* step_size=0.05 there"):
        train(stopped, digits, loss=loss)


def test_nothing_to_restore(tmp_path, digits):
    _, resume, _ = resumable(tmp_path / "none", digits)
    assert resume.restore() == 0


def test_only_one_process_writes(tmp_path, digits):
    _, resume, _ = resumable(tmp_path / "run", digits, writes=False)
    resume.save()
    assert not [*tmp_path.glob("run/*.index")]


def test_counts_the_seconds_before_a_kill(tmp_path, digits):
    _, first, _ = resumable(tmp_path, digits)
    first.clock.on_epoch_begin(0)
    first.clock.start -= 1000
    for batch in range(3):  # of which two are kept
        first.on_train_batch_end(batch)
    _, again, _ = resumable(tmp_path, digits)
    assert again.restore() == 2
    seconds = []
    for epoch in range(2):
        logs = {}
        again.clock.on_epoch_begin(epoch)
        again.clock.on_epoch_end(epoch, logs)
        seconds.append(logs["seconds"])
    assert seconds[0] >= 1000 > seconds[1]
