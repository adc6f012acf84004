import zipfile

import pytest

import devices
from run_folder import FILES
from run_folder import FOLDERS
from run_folder import RunFolder
from run_folder import is_archive
from run_folder import read_json


def test_takes_its_own_run_up_again(tmp_path):
    config = {"epochs": 3, "boundaries": ["2"], "epsilon": None}
    RunFolder(tmp_path / "run", config).create()
    assert RunFolder(tmp_path / "run", config).rows() == []


def test_says_what_it_was_begun_on(tmp_path):
    """Which is what the whole run is said to have been trained on."""
    folder = RunFolder(tmp_path / "run", {"epochs": 3})
    folder.create()
    config = read_json(folder / "config.json")
    assert config["flags"] == {"epochs": 3}
    assert config["processor"] == devices.name()


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


def test_a_flag_that_is_new_makes_no_other_run(tmp_path):
    folder = RunFolder(tmp_path / "run", {"epochs": 3, "new": None})
    assert folder.different({"epochs": 3}) == []
    assert folder.different({"epochs": 4, "old": 1}) == ["epochs", "old"]


def test_refuses_somebody_elses_files(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="new or empty folder.*config.json"):
        RunFolder(tmp_path, {})


def damages(whole):
    """What may become of a file's bytes, by name."""
    return {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "binary": b"\x80\xff\x00" * 50,
        "a list": b"[1]",
        "without keys": b"{}",
        "of another type": b'{"flags": 1}',
        "deep": b"[" * 100_000,
    }


@pytest.mark.parametrize("damage", damages(b""))
def test_refuses_a_damaged_config(damage, tmp_path):
    folder = RunFolder(tmp_path / "run", {"epochs": 3})
    folder.create()
    file = folder / "config.json"
    file.write_bytes(damages(file.read_bytes())[damage])
    error = f"{file} must hold.*damaged one; bring back .* another --output_dir"
    with pytest.raises(ValueError, match=error):
        RunFolder(tmp_path / "run", {"epochs": 3})


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_refuses_what_is_in_the_way_of_its_files(name, tmp_path):
    folder = RunFolder(tmp_path / "run", {})
    folder.create()
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_text("") if name in FOLDERS else path.mkdir()
    with pytest.raises(ValueError, match=f"{path} must be a .*Received: a f"):
        RunFolder(tmp_path / "run", {})


@pytest.mark.parametrize("damage", [*damages(b""), "flipped", "missing"])
def test_refuses_networks_that_are_not_whole(damage, folder):
    file = folder / "best.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.weights.h5", bytes(1000))
    folder.require_networks("best.keras")
    whole = file.read_bytes()
    flipped = whole[:500] + b"x" + whole[501:]
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({**damages(whole), "flipped": flipped}[damage])
    with pytest.raises(ValueError, match="best.keras must hold a network"):
        folder.require_networks("best.keras")


HEADER = "epoch,seconds,val_accuracy,val_robust_accuracy\n"
LINES = HEADER + "0,3.5,0.1,0.05\n1,2.5,0.3,0.25\n"


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run", {})
    folder.create()
    (folder / "metrics.csv").write_text(LINES)
    return folder


@pytest.mark.parametrize("count", [0, 1, 2])
def test_drops_lines_of_epochs_that_run_again(folder, count):
    before = folder.rows()
    folder.keep_rows(count)
    assert folder.rows() == before[:count]
    assert before[1]["val_robust_accuracy"] == "0.25"
    assert (folder / "metrics.csv").exists() == (count > 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        HEADER,
        LINES[:-1],  # which may have lost digits
        LINES[: LINES.index("1,")],
        LINES[len(HEADER) :],
        LINES.replace("\n1,", "\n2,"),
        LINES.replace("2.5", "2.5\x00"),
        LINES.replace("0.3", "a lot"),
        LINES.replace("seconds", "second"),
        LINES.replace(",0.25", ""),
        b"\x80\xff" * 50,
    ],
    ids=str,
)
def test_refuses_lines_that_are_not_those_of_the_epochs(folder, content):
    if isinstance(content, str):
        content = content.encode()
    (folder / "metrics.csv").write_bytes(content)
    error = "metrics.csv must have a line for each of 2.*Received: a damaged"
    with pytest.raises(ValueError, match=error):
        folder.keep_rows(2)


def test_begins_anew_what_was_killed_in_its_first_epoch(folder):
    (folder / "metrics.csv").write_text(LINES[:10])
    folder.require_state()
    folder.keep_rows(0)
    assert folder.rows() == []
    (folder / "metrics.csv").write_text(LINES)
    with pytest.raises(ValueError, match="checkpoints must hold the state"):
        folder.require_state()


def test_a_run_is_complete_with_whole_files_only(folder):
    report = "97.5 %\n(attacked for 3 s)\n"
    results = '{"seed": 0, "training_seconds": 2.5}\n'
    texts = {"report.txt": report, "results.json": results}

    def write(**changed):
        for name, content in {**texts, **changed}.items():
            (folder / name).write_text(content)
        return folder.report()

    assert folder.report() is None
    assert write() == report
    for torn in ("", report[:-1], "97.5 %\n"):
        assert write(**{"report.txt": torn}) is None
    for torn in ("", results[:-3], "[]", "null", '{"seed": 0}'):
        assert write(**{"results.json": torn}) is None
    (folder / "report.txt").unlink()
    assert folder.report() is None


def test_no_byte_of_an_archive_makes_an_error(tmp_path):
    """Whatever a damage makes of it, it is an archive or it is none."""
    file = tmp_path / "one.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("é.json", "{}")
    whole = file.read_bytes()
    assert is_archive(file)
    for place in range(len(whole)):
        for value in (0, 1, 99, 255):
            file.write_bytes(
                whole[:place] + bytes([value]) + whole[place + 1 :]
            )
            assert is_archive(file) in (True, False)
