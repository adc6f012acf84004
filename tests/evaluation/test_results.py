import json

import numpy as np
import pytest

from atent_keras.evaluation.results import Results
from atent_keras.evaluation.results import write
from conftest import full_disk

BATCH = {"correct": [True, False], "last": [2], "digest": ["d2"]}


ATTACK = {
    "PGD/succeeded": [True, False],
    "PGD/norm": [0.5, 0.0],
    "PGD/seconds": [1.5],
}
PICTURES = {
    "x": np.zeros((2, 3, 3)),
    "y": [0, 1],
    "answers": [0, 0],
    "confidences": [0.5, 1.0],
    "PGD/x_adv": np.ones((1, 3, 3)),
    "PGD/answers": [1],
    "PGD/confidences": [1.0],
}


def filled(folder, **settings):
    """Results of one batch, of one attack."""
    results = Results(folder)
    results.require(seed=1, model="m", **{"attack PGD": "p"}, **settings)
    results.append(**BATCH)
    results.append(**ATTACK)
    results.once("a check", lambda: [True, "evidence"])
    results.keep(**PICTURES)
    return results


def test_what_was_appended_is_there_again(tmp_path):
    filled(tmp_path / "run")
    again = Results(tmp_path / "run")
    again.require(seed=1, model="m")
    assert again.known("correct") == again.known("PGD/succeeded") == 2
    assert again.known("FGSM/succeeded") == 0
    np.testing.assert_array_equal(again.arrays["correct"], [True, False])
    again.require_batch(0, 2, "d2")
    again.append(correct=[True], last=[3], digest=["d3"])
    assert Results(tmp_path / "run").known("correct") == 3


def test_once_asks_once_for_each_name(tmp_path):
    filled(tmp_path)
    asked = []

    def find():
        asked.append(1)
        return True, "other"

    again = Results(tmp_path)
    assert again.once("a check", find) == [True, "evidence"] and not asked
    assert again.once("other", find) == again.once("other", find)
    assert len(asked) == 1


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = filled(None)
    assert results.known("correct") == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings, difference",
    [
        ({"seed": 2}, "seed is 1 there, 2 now"),
        ({"seed": 2, "model": "n"}, "seed is 1 .*; model is m there, n now"),
    ],
)
def test_other_settings_are_refused_and_named(settings, difference, tmp_path):
    filled(tmp_path)
    error = f"`folder` must be new.*Received: .*{difference}"
    with pytest.raises(ValueError, match=error):
        Results(tmp_path).require(**settings)


def test_outputs_may_differ_by_rounding_alone(tmp_path):
    def outputs(values):
        return {"the model's outputs": values}

    known = outputs([[1.0, -2.0], [0.0, 2.0]])
    filled(tmp_path, **known, bounds=[0.0, 1.0])
    again = Results(tmp_path)
    again.require(**outputs([[1.0001, -2.0001], [0.0001, 2.0]]))
    others = [[1.1, -2.0], [0.0, 2.0]], [[1.0, -2.0]], "random", [[{}]], None
    for other in others:
        with pytest.raises(ValueError, match="outputs is .* there, .* now"):
            again.require(**outputs(other))
    with pytest.raises(ValueError, match="bounds is .* there, .* now"):
        again.require(bounds=[0.0, 1.0001])


def test_of_nested_settings_what_differs_is_named(tmp_path):
    attack = {"config": {"steps": 3, "ball": {"config": {"epsilon": 0.1}}}}
    filled(tmp_path, attack=attack)
    other = {"config": {"steps": 3, "ball": {"config": {"epsilon": 0.2}}}}
    with pytest.raises(
        ValueError, match="where attack ball epsilon is 0.1 there, 0.2 now$"
    ):
        Results(tmp_path).require(attack=other)


def test_other_data_are_refused(tmp_path):
    filled(tmp_path).finish(2)
    for number, last, digest in ((0, 2, "d3"), (0, 3, "d2"), (1, 3, "d3")):
        error = f"the same data.*batch {number}, up to example {last}"
        with pytest.raises(ValueError, match=error):
            Results(tmp_path).require_batch(number, last, digest)
    with pytest.raises(ValueError, match="2 examples there, 1 now"):
        Results(tmp_path).finish(1)
    with pytest.raises(ValueError, match="1 batches there, 0 now"):
        Results(tmp_path).require_reach(0)
    Results(tmp_path).require_reach(1)
    Results(tmp_path).require_reach(None)


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("settings.json", "delete .*progress to have"),
        ("examples.npz", "delete it to have"),
        ("findings.json", "delete it to have"),
        ("pictures.npz", "delete it to go on without the images"),
    ],
)
def test_damaged_files_are_refused_and_named(name, remedy, tmp_path):
    filled(tmp_path)
    file = tmp_path / "progress" / name
    whole = file.read_bytes()
    error = f"must hold whole.*{name}, which is damaged; {remedy}"
    binary, deep = b"\x80\xff" * 50, b"[" * 100_000
    for torn in (
        b"",
        whole[: len(whole) // 2],
        b"[1]",
        whole[:-40],
        binary,
        deep,
    ):
        file.write_bytes(torn)
        with pytest.raises(ValueError, match=error):
            Results(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(ValueError, match=error):
        Results(tmp_path)
    file.rmdir()
    file.write_bytes(whole)
    assert Results(tmp_path).known("correct") == 2


@pytest.mark.parametrize("place, value", [(8, 1), (10, 99)])
def test_an_archive_with_another_header_is_damaged(place, value, tmp_path):
    """One that says it is encrypted, or packed in an unknown way."""
    filled(tmp_path)
    file = tmp_path / "progress" / "examples.npz"
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + place] = value
    file.write_bytes(content)
    with pytest.raises(ValueError, match="examples.npz, which is damaged"):
        Results(tmp_path)
    with open(file, "wb") as other:
        np.save(other, np.zeros(2))  # an array, no archive of them
    with pytest.raises(ValueError, match="examples.npz, which is damaged"):
        Results(tmp_path)


@pytest.mark.parametrize("name", ["seed", "model", "attack PGD"])
def test_results_rest_on_their_settings(name, tmp_path):
    """Without one, nobody knows what they are the results of."""
    filled(tmp_path).finish(2)
    file = tmp_path / "progress" / "settings.json"
    settings = json.loads(file.read_text())
    lost = {name: settings.pop(name)}
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="settings.json, which is damaged"):
        Results(tmp_path).require(**lost)
    # Of an attack that is added there are none.
    Results(tmp_path).require(**{"attack FGSM": "f"})


@pytest.mark.parametrize(
    "name, content",
    [
        ("settings.json", {"num_examples": "two"}),
        ("findings.json", {"a check": [True]}),
        ("findings.json", {"a check": ["yes", "evidence"]}),
        ("findings.json", {"a check": None}),
    ],
    ids=str,
)
def test_json_of_other_types_is_damaged(name, content, tmp_path):
    filled(tmp_path)
    (tmp_path / "progress" / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{name}, which is damaged"):
        Results(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"correct": [True]},
        {"correct": [[True, False]]},
        {"correct": [1.0, 0.0]},
        {"correct": None},
        {"digest": ["d1", "d2"]},
        {"last": [2, 2], "digest": ["d1", "d2"]},
        {"PGD/succeeded": [True]},
        {"PGD/succeeded": [0.5, 0.5]},
        {"PGD/norm": [0.5]},
        {"PGD/norm": None},
        {"PGD/seconds": [1.5, 2.5]},
        {"PGD/seconds": 1.5},
        {"radii": [0.5, 0.5]},
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_each_other_are_damaged(changed, tmp_path):
    filled(tmp_path)
    arrays = {**BATCH, **ATTACK, **changed}
    arrays = {name: part for name, part in arrays.items() if part is not None}
    np.savez(tmp_path / "progress" / "examples.npz", **arrays)
    with pytest.raises(ValueError, match="examples.npz, which is damaged"):
        Results(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"x": None},
        {"x": ["a", "b"]},
        {"y": [0, 1, 2]},
        {"answers": [[0], [0]]},
        {"PGD/x_adv": np.ones((1, 3, 4)).tolist()},
        {"PGD/other": [0]},
        {"PGD/answers": None},
        {"PGD/x_adv": 1.0},
        {"y": None},
        {"confidences": 1.0},
    ],
    ids=str,
)
def test_pictures_that_do_not_fit_each_other_are_damaged(changed, tmp_path):
    filled(tmp_path)
    assert Results(tmp_path).pictures.keys() == PICTURES.keys()
    arrays = {**PICTURES, **changed}
    arrays = {name: part for name, part in arrays.items() if part is not None}
    np.savez(tmp_path / "progress" / "pictures.npz", **arrays)
    with pytest.raises(ValueError, match="pictures.npz, which is damaged"):
        Results(tmp_path)


def test_what_is_deleted_is_done_again(tmp_path):
    filled(tmp_path)
    (tmp_path / "progress" / "examples.npz").unlink()
    (tmp_path / "progress" / "findings.json").unlink()
    again = Results(tmp_path)
    again.require(seed=1)
    assert again.known("correct") == 0
    assert again.once("a check", lambda: "anew") == "anew"


def test_folders_of_something_else_are_refused(tmp_path):
    (tmp_path / "progress").mkdir()
    file = tmp_path / "progress" / "thesis.tex"
    file.write_text("x")
    with pytest.raises(ValueError, match="has files but no settings.json"):
        Results(tmp_path)
    with pytest.raises(ValueError, match="must be a folder.*a file"):
        Results(file)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    results, folder = filled(tmp_path), tmp_path / "progress"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    size = 2 * len(before["examples.npz"])
    noise = np.random.default_rng(0).random(1000)  # which does not compress
    with full_disk(size):
        with pytest.raises(OSError, match="start again with the same folder"):
            results.append(**{"PGD/norm": noise})
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before == after
    assert Results(tmp_path).known("PGD/norm") == 2


def test_write_replaces_a_file_whole(tmp_path):
    file = tmp_path / "a.json"
    write(file, "old")
    write(file, json.dumps([1]))
    assert file.read_text() == "[1]"
    with full_disk(10), pytest.raises(OSError, match="a.json"):
        write(file, b"x" * 100)
    assert file.read_text() == "[1]" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileNotFoundError) as error:
        write(tmp_path / "none" / "a.json", "x")
    assert "room" not in str(error.value)


def test_a_draft_of_a_killed_run_is_no_obstacle(tmp_path):
    (tmp_path / "progress").mkdir()
    (tmp_path / "progress" / "settings.json.77.draft").write_text("{")
    assert filled(tmp_path).known("correct") == 2
