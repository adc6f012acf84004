"""`tools/ship_weights.py`, as its users run it."""

import hashlib
import json
import re

import keras
import numpy as np
import pytest

import atent_keras as ak
from atent_keras.architectures import catalogue
from conftest import cross_entropy
from scripts import ROOT
from scripts import run

SCRIPT = ROOT / "tools" / "ship_weights.py"
COUNT = 40
ENTRY = {
    "architecture": "SmallCNN",
    "arguments": {},
    "dataset": "digits",
    "norm": "linf",
    "epsilon": 0.1,
    "method": "plain",
    "command": "",
    "accuracies": {},
    "first_images": {},
    "sha256": "",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a network, evaluations, and an index of two others."""
    folder = tmp_path_factory.mktemp("finished")
    train, test = ak.datasets.digits()
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    network.compile(keras.optimizers.Adam(2e-3), cross_entropy())
    network.fit(*train, batch_size=64, epochs=2, verbose=0)
    network.save(folder / "best.keras")
    threat_model = ak.threat_models.Linf(0.05)
    reports = [
        ak.evaluate_robustness(
            network,
            tuple(part[:count] for part in test),
            {name: ak.attacks.FGSM(ball)},
            folder=folder / name,
            checks=None,
            verbose=0,
        )
        for name, count, ball in [
            ("few", COUNT, threat_model),
            ("all", len(test[0]), threat_model),
            ("wider", COUNT, ak.threat_models.Linf(0.1)),
        ]
    ]
    (folder / "index").mkdir()
    index = {"kept": ENTRY, "shipped": ENTRY}
    (folder / "index" / "index.json").write_text(json.dumps(index))
    return folder, network, reports


def ship(folder, *flags):
    return run(
        SCRIPT,
        f"--model={folder / 'best.keras'}",
        f"--evaluation={folder / 'few'},{folder / 'all'}",
        "--dataset=digits",
        "--name=shipped",
        "--method=plain",
        "--command=python train.py",
        '--arguments={"padding": "same"}',
        f"--output_dir={folder / 'index'}",
        *flags,
    )


def test_ships_the_figures_of_the_evaluations(finished):
    folder, network, (few, every, _) = finished
    code, output = ship(folder, "--overwrite")
    assert code == 0, output
    assert re.search(r"float16 changes [01] of 500 clean answers", output)
    found = catalogue.Catalogue.read(folder / "index")
    assert [*found] == ["kept", "shipped"]
    assert found["kept"].to_dict() == ENTRY
    entry = found["shipped"]
    content = entry.path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry.sha256
    assert entry.call == (
        "SmallCNN(input_shape=(8, 8, 1), classes=10, padding='same')"
    )
    assert (entry.norm, entry.epsilon) == ("linf", 0.05)
    assert (entry.dataset, entry.method) == ("digits", "plain")
    assert entry.command == "python train.py"
    setting = "FGSM(threat_model=Linf(epsilon=0.05, bounds=(0.0, 1.0)))"
    assert entry.accuracies == {
        # On most images.
        "clean": catalogue.Accuracy(every.clean_accuracy, 500),
        "few": catalogue.Accuracy(
            few.robust_accuracy["few"], COUNT, few.results["few"].setting
        ),
        "all": catalogue.Accuracy(
            every.robust_accuracy["all"], 500, every.results["all"].setting
        ),
    }
    assert few.results["few"].setting.startswith(setting[:-1])
    x, y = (part[:100] for part in ak.datasets.digits()[1])
    right = int(np.sum(np.argmax(network(x), axis=-1) == y))
    assert entry.first_images["num_examples"] == 100
    assert abs(entry.first_images["clean"] - right) <= 1
    assert 0 < entry.first_images["PGD-40"] <= entry.first_images["clean"]
    loaded = ak.architectures.SmallCNN(
        (8, 8, 1), padding="same", weights=entry.path
    )
    for one, other in zip(loaded.get_weights(), network.get_weights()):
        np.testing.assert_array_equal(one, other.astype("float16"))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--name=shipped"], "must be new, or --overwrite given. .*shipped"),
        (["--name=../a"], "must be small letters.*Received: --name=../a"),
        (["--name=b", "--evaluation={f}/none"], "whole evaluations.*none"),
        (["--name=b", "--evaluation={f}/other"], "which is that of other weig"),
        (["--name=b", "--evaluation={f}/moved"], "which is on others"),
        (["--name=b", "--evaluation={f}/own"], "of `ak.attacks`.*few: mine"),
        (["--name=b", "--evaluation={f}/coarse"], "in bfloat16; evaluate"),
        (["--name=b", "--evaluation={f}/few,{f}/wider"], "a norm and a radius"),
        (["--name=b", "--arguments={}"], "dense1/kernel|at least 16"),
    ],
    ids=lambda value: None if isinstance(value, list) else value[:12],
)
def test_refuses(flags, message, finished):
    folder = finished[0]
    if not (folder / "other").exists():
        for name, file, key, value in [
            ("other", "progress/settings.json", "the model's weights", "a"),
            ("moved", "report.json", "data", "a"),
            ("own", "progress/settings.json", "attack few", "mine"),
            ("coarse", "report.json", "precision", "bfloat16"),
        ]:
            copy = folder / name
            (copy / "progress").mkdir(parents=True)
            for part in ("report.json", "progress/settings.json"):
                found = json.loads((folder / "few" / part).read_text())
                found |= {key: value} if part == file else {}
                (copy / part).write_text(json.dumps(found))
    before = {path.name for path in (folder / "index").iterdir()}
    code, output = ship(
        folder, *(flag.replace("{f}", str(folder)) for flag in flags)
    )
    assert code != 0
    assert re.search(message, output), output
    assert "Traceback" not in output
    assert {path.name for path in (folder / "index").iterdir()} == before
