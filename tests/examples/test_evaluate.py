"""`examples/evaluate.py`, as its users run it."""

import json
import pathlib
import re
import signal
import time

import keras
import matplotlib.image
import numpy as np
import pytest

import atent_keras as ak
import named_attacks
import saved_networks
from atent_keras.lock import Lock
from conftest import cross_entropy
from kills import EXAMPLES
from scripts import run
from scripts import run_afresh
from scripts import running

SCRIPT = EXAMPLES / "evaluate.py"
FLAGS = (
    "--dataset=digits",
    "--epsilon=0.1",
    "--test_limit=60",
    "--attacks=PGD-5,sgld-3,apgd",
    "--check_images=10",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a `.keras` file and, of the same network, a SavedModel."""
    folder = tmp_path_factory.mktemp("digits_run")
    train, _ = ak.datasets.digits()
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    network.compile(keras.optimizers.Adam(2e-3), cross_entropy())
    network.fit(*train, batch_size=64, epochs=4, verbose=0)
    network.save(folder / "best.keras")
    ak.export_classifier(network, folder / "saved")
    return folder


@pytest.fixture(scope="module")
def whole(models):
    """All that it does, which nothing interrupted."""
    output_dir = models / "whole"
    code, output = run_afresh(
        SCRIPT,
        f"--model=file={models / 'best.keras'},saved={models / 'saved'}",
        *FLAGS,
        f"--surrogate={models / 'best.keras'}",
        "--radii=1/20,0.1",
        "--certify=0.1,0.2",
        "--certify_limit=20",
        "--certify_samples=200",
        f"--output_dir={output_dir}",
    )
    assert code == 0, output
    return output_dir, output


def report(folder):
    found = json.loads((folder / "report.json").read_text())
    for row in found["rows"]:
        del row["seconds"]
    return found


def test_writes_everything(whole):
    folder, _ = whole
    assert {path.name for path in folder.iterdir()} == {
        "certified_accuracy_0.1.png",
        "certified_accuracy_0.2.png",
        "comparison.csv",
        "comparison.html",
        "comparison.md",
        "file",
        "robust_accuracy.png",
        "saved",
    }
    for name in ("file", "saved"):
        assert {path.name for path in (folder / name).iterdir()} == {
            "images.png",
            "loss_surface.png",
            "progress",
            "radii",
            "report.csv",
            "report.html",
            "report.json",
            "report.md",
            "report.npz",
            "sigma_0.1",
            "sigma_0.2",
        }
    for path in folder.rglob("*.png"):
        # Something is drawn on it.
        assert matplotlib.image.imread(path).std() > 0.05


def test_the_figures_are_those_of_the_package(whole, models):
    folder, output = whole
    network = keras.models.load_model(models / "best.keras", compile=False)
    data = tuple(part[:60] for part in ak.datasets.digits()[1])
    threat_model = ak.threat_models.Linf(0.1)
    expected = ak.evaluate_robustness(
        network,
        data,
        named_attacks.make(["PGD-5", "SGLD-3", "APGD"], threat_model),
        checks=None,
        verbose=0,
    )
    assert 0.1 < expected.worst_case_accuracy < expected.clean_accuracy
    for name in ("file", "saved"):
        found = report(folder / name)
        assert found["num_examples"] == 60
        assert found["robust_accuracy"] == pytest.approx(
            expected.robust_accuracy, abs=1 / 60 + 1e-9
        )
        assert [f["verdict"] for f in found["findings"]].count("not run") == 0
        curve = report(folder / name / "radii")["robust_accuracy"]
        assert set(curve) == {"PGD-5 at 0.05", "PGD-5 at 0.1"}
        assert curve["PGD-5 at 0.05"] > curve["PGD-5 at 0.1"]
    certified = json.loads(
        (folder / "file" / "sigma_0.2" / "certificates.json").read_text()
    )
    assert certified["sigma"] == 0.2 and certified["num_examples"] == 20
    assert "accuracy on 60 examples" in output
    assert re.search(r"\nfile +\d+\.\d\d \(", output)
    assert (folder / "comparison.md").read_text().count("\n| ") == 4


def test_goes_on_after_a_kill_to_the_same_report(whole, models, tmp_path):
    """Killed as soon as the first attack is on the disk."""
    command = [
        SCRIPT,
        f"--model=file={models / 'best.keras'}",
        *FLAGS,
        f"--surrogate={models / 'best.keras'}",
        f"--output_dir={tmp_path}",
        "--nopictures",
    ]
    examples = tmp_path / "file" / "progress" / "examples.npz"
    with running(*command) as process:
        while process.returncode is None and not known(examples):
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert "PGD-5/succeeded" in known(examples)
    assert not (tmp_path / "file" / "report.json").exists()
    code, output = run(*command)
    assert code == 0, output
    assert report(tmp_path / "file") == report(whole[0] / "file")


def known(path):
    """Names of an attack's arrays that are written."""
    if not path.exists():
        return []
    with np.load(path) as arrays:
        return [name for name in arrays if "/" in name]


@pytest.mark.parametrize(
    "flags, error",
    [
        (["--attacks=PGD-5,Cube"], "one of AutoAttack, .*Received: Cube"),
        (["--certify=0"], "--certify must be positive .*Received: --certify=0"),
        (["--model={m}/best.keras,{m}/best.keras"], "a name of its own"),
        (["--model={m}/best.keras/none"], "a .keras file or a folder that ex"),
        (["--seed=1"], "seed is 0 there, 1 now"),
        (["--certify=0.1", "--certify_samples=5"], "must be at least 10"),
    ],
)
def test_bad_flags(flags, error, whole, models):
    code, output = run(
        SCRIPT,
        f"--model=file={models / 'best.keras'}",
        *FLAGS,
        f"--output_dir={whole[0]}",
        f"--surrogate={models / 'best.keras'}",
        *(flag.replace("{m}", str(models)) for flag in flags),
    )
    assert code != 0
    assert re.search(error, output), output
    assert "Traceback" not in output


def test_refuses_a_folder_in_which_another_is_at_work(models, tmp_path):
    with Lock(tmp_path):
        code, output = run(
            SCRIPT,
            f"--model=file={models / 'best.keras'}",
            *FLAGS,
            f"--output_dir={tmp_path}",
        )
    assert code != 0 and not [*tmp_path.iterdir()]
    assert "--output_dir must not be in use by another process" in output
    assert "Traceback" not in output


def test_networks_that_come_along(tmp_path, monkeypatch):
    """By name, unless a file or a folder of that name is there."""
    monkeypatch.chdir(tmp_path)
    name = "digits_linf_atent"
    found = saved_networks.paths([name, f"ours={name}"])
    assert found == {name: pathlib.Path(name), "ours": pathlib.Path(name)}
    expected = ak.architectures.SmallCNN(
        (8, 8, 1), padding="same", weights=name
    )
    model = saved_networks.load(pathlib.Path(name))
    for one, other in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(FileNotFoundError, match=f"--model .*one of .*{name}"):
        saved_networks.load(pathlib.Path("none"))
    ak.export_classifier(model, tmp_path / name)
    assert saved_networks.paths([name]) == {tmp_path.name: pathlib.Path(name)}
    assert not isinstance(
        saved_networks.load(pathlib.Path(name)), type(expected)
    )


def test_names_end_before_the_path():
    found = saved_networks.paths(["a/eps=0.3/best.keras", "a=b/c=d/e.keras"])
    assert found == {
        "eps=0.3": pathlib.Path("a/eps=0.3/best.keras"),
        "a": pathlib.Path("b/c=d/e.keras"),
    }


def test_attacks_by_name():
    norm = ak.threat_models.Linf(0.1)
    made = named_attacks.make(["pgd-20", "SGLD-5", "apgd-dlr"], norm, 0.02, 3)
    assert made == {
        "PGD-20": ak.attacks.PGD(norm, 0.02, 20, 3),
        "SGLD-5": ak.attacks.SGLD(norm, 0.02, 5),
        "APGD-DLR": ak.attacks.APGD(norm, loss=ak.attacks.DLR()),
    }
    made = named_attacks.make(["SGLD-5"], norm)
    assert made["SGLD-5"].step_size == pytest.approx(0.05)
    every = named_attacks.make(named_attacks.MAKERS, ak.threat_models.L2(0.1))
    assert list(every) == list(named_attacks.MAKERS)
    for name in ("PGD", "PGD-0", "PGD--1", "Cube", ""):
        with pytest.raises(ValueError, match=f"AutoAttack.*Received: {name}"):
            named_attacks.make([name], norm)
