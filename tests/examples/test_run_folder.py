import keras
import numpy as np
import pytest

from conftest import small_model
from run_folder import Resume
from run_folder import RunFolder


def test_takes_its_own_run_up_again(tmp_path):
    config = {"epochs": 3, "boundaries": ["2"], "epsilon": None}
    RunFolder(tmp_path / "run", config).create()
    assert RunFolder(tmp_path / "run", config).rows() == []


@pytest.mark.parametrize(
    "other, message",
    [
        ({"epochs": 4}, "--epochs=3 there, 4 now"),
        ({"epochs": 3, "new": 1}, "--new=None there, 1 now"),
    ],
)
def test_refuses_another_run(tmp_path, other, message):
    RunFolder(tmp_path / "run", {"epochs": 3}).create()
    with pytest.raises(ValueError, match=message):
        RunFolder(tmp_path / "run", other)


def test_refuses_somebody_elses_files(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="new or empty folder.*config.json"):
        RunFolder(tmp_path, {})


def test_refuses_a_damaged_config(tmp_path):
    folder = RunFolder(tmp_path / "run", {})
    folder.create()
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="must hold JSON"):
        RunFolder(tmp_path / "run", {})


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_drops_lines_of_epochs_that_run_again(tmp_path, count):
    folder = RunFolder(tmp_path / "run", {})
    folder.create()
    (folder / "metrics.csv").write_text("epoch,loss\n0,3.5\n1,2.5\n")
    folder.keep_rows(count)
    rows = [{"epoch": "0", "loss": "3.5"}, {"epoch": "1", "loss": "2.5"}]
    assert folder.rows() == rows[:count]


@pytest.fixture
def trained(tmp_path, batch):
    """A model, its checkpoints of two epochs, and its weights then."""
    model = small_model(optimizer=keras.optimizers.Adam(0.01))
    resume = Resume(tmp_path / "checkpoints", model)
    weights = []
    for epoch in (1, 2):
        model.fit(*batch, batch_size=16, verbose=0)
        resume.save(epoch)
        weights.append([v.numpy() for v in model.variables])
    return tmp_path / "checkpoints", weights


def restored(folder):
    keras.utils.set_random_seed(7)
    model = small_model(optimizer=keras.optimizers.Adam(0.01))
    epoch = Resume(folder, model).restore()
    return epoch, [v.numpy() for v in model.variables], model


def test_brings_back_the_newest_state(trained):
    folder, weights = trained
    epoch, found, model = restored(folder)
    assert epoch == 2
    assert int(model.optimizer.iterations) == 4
    for one, other in zip(found, weights[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(trained, caplog):
    folder, weights = trained
    data = folder / "epoch-2.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    epoch, found, _ = restored(folder)
    assert epoch == 1
    for one, other in zip(found, weights[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_refuses_when_no_checkpoint_can_be_read(trained):
    folder, _ = trained
    for path in folder.glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="must be whole and of this network"):
        restored(folder)


def test_refuses_the_checkpoint_of_another_network(trained):
    folder, _ = trained
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    model = small_model(network=network)
    with pytest.raises(ValueError, match="of this network and optimizer"):
        Resume(folder, model).restore()


def test_nothing_to_restore(tmp_path):
    assert Resume(tmp_path / "none", small_model()).restore() == 0
