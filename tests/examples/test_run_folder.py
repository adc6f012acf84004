import pytest

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
