"""Trained weights: those that come with the package, and files of one's own."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil

import h5py
import keras
import numpy as np
import pytest

import atent_keras as ak
from atent_keras import architectures
from atent_keras.architectures import LeNet5
from atent_keras.architectures import PreActResNet18
from atent_keras.architectures import ResNet20
from atent_keras.architectures import SmallCNN
from atent_keras.architectures import WideResNet
from atent_keras.architectures import catalogue
from atent_keras.architectures import weights_files
from conftest import largest_difference

SHIPPED = dict(architectures.weights())
DIGITS = {"input_shape": (8, 8, 1), "padding": "same"}
NAME = "digits_linf_atent"
SMALL = {
    LeNet5: {"input_shape": (4, 4, 1)},
    PreActResNet18: {"input_shape": (4, 4, 1), "width": 1},
    ResNet20: {"input_shape": (4, 4, 1), "width": 1},
    SmallCNN: {"input_shape": (4, 4, 1), "padding": "same"},
    WideResNet: {"input_shape": (4, 4, 1), "depth": 10, "width": 1},
}


def randomized(network):
    """The network with weights that all differ from those it starts with."""
    rng = np.random.default_rng(0)
    network.set_weights([rng.random(w.shape) for w in network.get_weights()])
    return network


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network, and a folder with its weights in every form."""
    folder = tmp_path_factory.mktemp("weights")
    network = randomized(ResNet20(**SMALL[ResNet20]))
    weights_files.write(folder / "w.npz", network)
    network.save(folder / "w.keras")
    network.save_weights(folder / "w.weights.h5")
    return network, folder


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A copy of what comes with the package, to be damaged."""
    folder = tmp_path / "pretrained"
    shutil.copytree(catalogue.FOLDER, folder)
    monkeypatch.setattr(catalogue, "FOLDER", folder)
    return folder


def first_images(dataset, count):
    if dataset == "digits":
        x, y = ak.datasets.digits()[1]
        return x[:count], y[:count]
    try:
        from tensorflow_datasets import builder
    except ImportError as error:
        pytest.skip(f"tensorflow_datasets is broken: {error}")
    if not builder(dataset).is_prepared():
        pytest.skip(f"no prepared copy of {dataset}")
    batches = getattr(ak.datasets, dataset)("test", count, limit=count)
    x, y = next(iter(batches))
    return x.numpy(), y.numpy()


def pgd(entry):
    """The name of the first PGD among an entry's attacks."""
    return next(name for name in entry.accuracies if name.startswith("PGD-"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_is_as_its_entry_says(name):
    entry = SHIPPED[name]
    content = entry.path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry.sha256
    assert len(content) < 1.5e6
    network = getattr(architectures, entry.architecture)(
        **entry.arguments, weights=name
    )
    assert network.input_shape[1:] == entry.arguments["input_shape"]
    assert network.output_shape[-1] == entry.arguments["classes"]
    with np.load(entry.path) as file:
        assert {values.dtype.name for values in file.values()} == {"float16"}
        assert len(file) == len(network.weights)
        for variable in network.weights:
            assert variable.dtype == "float32"
            np.testing.assert_array_equal(variable, file[variable.path])
    # Every figure has the settings that it was measured with.
    assert {"clean", pgd(entry)} <= entry.accuracies.keys()
    for name, one in entry.accuracies.items():
        assert 0 < one.accuracy <= 1 and one.num_examples >= 500
        assert name == "clean" or f"epsilon={entry.epsilon}" in one.setting


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_is_as_robust_as_its_entry_says(name):
    entry = SHIPPED[name]
    count = entry.first_images["num_examples"]
    network = getattr(architectures, entry.architecture)(
        **entry.arguments, weights=name
    )
    attack = ak.attacks.PGD(entry.threat_model, num_steps=40)
    report = ak.evaluate_robustness(
        network,
        first_images(entry.dataset, count),
        {"PGD-40": attack},
        checks=None,
        verbose=0,
    )
    found = {
        "clean": report.correct.sum(),
        "PGD-40": report.robust["PGD-40"].sum(),
    }
    for attacked, right in found.items():
        # The same images and draws: only another machine's roundings can
        # tip an image over.
        assert abs(right - entry.first_images[attacked]) <= 2
        # These images are a sample of those of the figure.
        figure = "clean" if attacked == "clean" else pgd(entry)
        accuracy = entry.accuracies[figure].accuracy
        error = (accuracy * (1 - accuracy) / count) ** 0.5
        assert abs(right / count - accuracy) < 4 * error + 0.01


def test_the_list_prints_as_a_table_and_is_indexed_by_name():
    listed = architectures.weights()
    entry = listed[NAME]
    assert entry.threat_model == ak.threat_models.Linf(0.15)
    assert entry.call == (
        "SmallCNN(input_shape=(8, 8, 1), classes=10, padding='same')"
    )
    header, *rows = str(listed).splitlines()
    for text in ("name", "architecture", "data set", *entry.accuracies):
        assert text in header
    assert len(rows) == len(listed)
    (row,) = (row for row in rows if row.startswith(NAME))
    for text in ("SmallCNN", "digits", "linf", "0.15", "ATENT"):
        assert f" {text} " in row
    for one in entry.accuracies.values():
        assert f" {100 * one.accuracy:.2f} % of {one.num_examples}" in row
    assert repr(listed) == str(listed)
    with pytest.raises(KeyError, match=f"'none' is not one.*'{NAME}'"):
        listed["none"]
    assert json.loads(listed.to_json()) == json.loads(
        (catalogue.FOLDER / "index.json").read_text()
    )


def test_networks_under_different_attacks_share_a_table():
    """A column for each attack, empty where it was not run."""
    first = SHIPPED[NAME]
    second = dataclasses.replace(
        first,
        name="other",
        accuracies={
            "clean": catalogue.Accuracy(0.5, 10_000),
            "PGD-20": catalogue.Accuracy(0.25, 1_000),
        },
    )
    header, one, other = str(catalogue.Catalogue([first, second])).splitlines()
    assert header.split()[-4:] == ["clean", "PGD-40", "AutoAttack", "PGD-20"]
    assert one.endswith(str(first.accuracies["AutoAttack"]))
    assert re.search(r" 50.00 % of 10,000 {20,}25.00 % of 1,000$", other)


@pytest.mark.parametrize("builder", SMALL, ids=lambda one: one.__name__)
def test_every_builder_takes_a_file(builder, tmp_path):
    network = randomized(builder(**SMALL[builder]))
    path = tmp_path / "w.npz"
    weights_files.write(path, network)
    loaded = builder(**SMALL[builder], weights=path)
    for one, other in zip(loaded.get_weights(), network.get_weights()):
        np.testing.assert_array_equal(one, other.astype("float16"))


def test_every_kind_of_file_gives_the_same_network(files):
    network, folder = files
    for name, tolerance in [
        ("w.keras", 0.0),
        ("w.weights.h5", 0.0),
        ("w.npz", 2**-12),  # numbers up to 1, halves of 2 ** -11
    ]:
        # As a string, as a path, and whatever the network is called.
        for path in (str(folder / name), folder / name):
            loaded = ResNet20(**SMALL[ResNet20], weights=path, name="mine")
            difference = largest_difference(
                loaded.get_weights(), network.get_weights()
            )
            assert difference <= tolerance
    assert loaded.name == "mine"


def test_a_file_in_the_working_folder(files, monkeypatch):
    monkeypatch.chdir(files[1])
    loaded = ResNet20(**SMALL[ResNet20], weights="w.npz")
    assert largest_difference(loaded.weights, files[0].weights) <= 2**-12


def test_the_file_may_be_of_a_trained_model_around_it(tmp_path):
    network = randomized(SmallCNN(**DIGITS))
    model = ak.ATENTModel(network.inputs, network.outputs)
    loss = ak.ATENTRegularizedLoss.from_preset("mnist_linf", num_steps=1)
    model.compile("adam", loss=loss)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    outer = keras.Sequential([keras.Input((8, 8, 1)), network])
    outer.save(tmp_path / "outer.keras")
    for file in ("model.keras", "model.weights.h5", "outer.keras"):
        loaded = SmallCNN(**DIGITS, weights=tmp_path / file)
        assert largest_difference(loaded.weights, network.weights) == 0


@pytest.mark.parametrize("floatx", ["float64", "float32"])
@pytest.mark.parametrize("policy", [None, "mixed_bfloat16"])
def test_values_take_the_dtype_of_the_network(floatx, policy):
    before = keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy or floatx)
    try:
        network = SmallCNN(**DIGITS, weights=NAME)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(before)
    with np.load(SHIPPED[NAME].path) as file:
        for variable in network.weights:
            assert variable.dtype == ("float32" if policy else floatx)
            np.testing.assert_array_equal(variable, file[variable.path])


def test_a_network_can_be_built_inside_another_ones_scope():
    """Where the names of its weights are longer."""

    class Outer(keras.layers.Layer):
        def build(self, input_shape):
            self.network = SmallCNN(**DIGITS, weights=NAME)

    outer = Outer()
    outer.build((None, 8, 8, 1))
    assert (
        largest_difference(
            outer.network.weights, SmallCNN(**DIGITS, weights=NAME).weights
        )
        == 0
    )


@pytest.mark.parametrize(
    "builder, arguments, message",
    [
        (
            SmallCNN,
            {"weights": "mnist"},
            f"must be None, one of .*'{NAME}'.* or the path .* weights of "
            "SmallCNN. Received: weights='mnist'$",
        ),
        (
            LeNet5,
            {"weights": NAME},
            "path of a file with weights of LeNet5, of which none come with "
            f"the package. Received: weights='{NAME}', which are weights of "
            "SmallCNN",
        ),
        (
            SmallCNN,
            {"weights": NAME},
            r"they are for SmallCNN\(input_shape=\(8, 8, 1\), classes=10, "
            r"padding='same'\). Received: input_shape=\(28, 28, 1\), "
            "padding='valid'$",
        ),
        # The rule of the weights, not that of valid padding.
        (
            SmallCNN,
            {"input_shape": [8, 8, 1], "weights": NAME},
            "they are for .*padding='same'.*Received: padding='valid'$",
        ),
        (
            SmallCNN,
            {**DIGITS, "classes": 7, "weights": NAME},
            "they are for .*classes=10.*Received: classes=7$",
        ),
        (SmallCNN, {"weights": "w.pt"}, "file that|one of"),
        (SmallCNN, {"weights": pathlib.Path("w.pt")}, "must end in .npz, "),
        (SmallCNN, {"weights": "runs/best"}, "must end in .npz, "),
        (SmallCNN, {"weights": "w.h5"}, "one of"),
    ],
)
def test_rejects_names(builder, arguments, message):
    with pytest.raises(ValueError, match=message):
        builder(**arguments)


@pytest.mark.parametrize("weights", [True, 3, ["w.npz"]], ids=repr)
def test_rejects_what_is_no_name_and_no_path(weights):
    with pytest.raises(TypeError, match="Received: weights="):
        SmallCNN(weights=weights)


@pytest.mark.parametrize("ending", weights_files.ENDINGS)
def test_rejects_a_path_without_a_file(ending, tmp_path):
    for path in (tmp_path / f"none{ending}", tmp_path / f"folder{ending}"):
        (tmp_path / f"folder{ending}").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match=f"exists.*{path.name}"):
            SmallCNN(weights=path)


@pytest.mark.parametrize("ending", weights_files.ENDINGS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_rejects_a_truncated_file(ending, share, files, tmp_path):
    content = (files[1] / f"w{ending}").read_bytes()
    path = tmp_path / f"torn{ending}"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"a whole one.*{path.name}"):
        ResNet20(**SMALL[ResNet20], weights=path)


@pytest.mark.parametrize("kind", ["external", "soft", "raw", "virtual"])
def test_reads_no_other_file_than_was_named(kind, files, tmp_path):
    """What HDF5 may point at: any file of whoever reads it."""
    path, other = tmp_path / "w.weights.h5", tmp_path / "other.h5"
    shutil.copy(files[1] / "w.weights.h5", path)
    place = "layers/dense/vars/0"
    with h5py.File(path, "r+") as file, h5py.File(other, "w") as secret:
        secret["values"] = values = file[place][()]
        secret.flush()
        del file[place]
        if kind == "external":
            file[place] = h5py.ExternalLink(other, "values")
        elif kind == "soft":
            file["values"] = values
            file[place] = h5py.SoftLink("/values")
        elif kind == "raw":
            stored = [(str(other), 0, values.nbytes)]
            file.create_dataset(
                place, values.shape, values.dtype, external=stored
            )
        else:
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[...] = h5py.VirtualSource(
                other, "values", values.shape, values.dtype
            )
            file.create_virtual_dataset(place, layout)
    message = f"a whole one. Received: {path}, .*: {place} lies outside of it"
    with pytest.raises(ValueError, match=message):
        ResNet20(**SMALL[ResNet20], weights=path)


@pytest.mark.parametrize("ending", weights_files.ENDINGS)
@pytest.mark.parametrize(
    "builder, arguments, first",
    [
        (
            ResNet20,
            {"width": 2},
            "conv/kernel of shape (3, 3, 1, 1), not (3, 3, 1, 2)",
        ),
        (
            ResNet20,
            {"width": 1, "classes": 9},
            "logits/kernel of shape (4, 10), not (4, 9)",
        ),
        (
            ResNet20,
            {"width": 1, "input_shape": (4, 4, 3)},
            "conv/kernel of shape (3, 3, 1, 1), not (3, 3, 3, 1)",
        ),
        (SmallCNN, {"padding": "same"}, "no conv1/kernel"),
    ],
    ids=["width", "classes", "channels", "architecture"],
)
def test_rejects_the_file_of_another_network(
    ending, builder, arguments, first, files
):
    arguments = {"input_shape": (4, 4, 1), **arguments}
    message = re.escape(f"w{ending}, which has {first}") + "$"
    with pytest.raises(ValueError, match=f"asked for. .*{message}"):
        builder(**arguments, weights=files[1] / f"w{ending}")


@pytest.mark.parametrize("ending", weights_files.ENDINGS)
def test_rejects_the_file_of_a_network_with_more(ending, tmp_path):
    """All that the smaller network has is there, in the same shapes."""
    deep = {**SMALL[WideResNet], "depth": 16}
    network, path = WideResNet(**deep), tmp_path / f"deep{ending}"
    if ending == ".npz":
        weights_files.write(path, network)
    elif ending == ".keras":
        network.save(path)
    else:
        network.save_weights(path)
    message = "asked for.*, which has stage1_block2_bn1/.*, too$"
    with pytest.raises(ValueError, match=message):
        WideResNet(**SMALL[WideResNet], weights=path)


def test_rejects_arrays_that_are_no_weights(tmp_path):
    network = SmallCNN(**DIGITS)
    arrays = {w.path: np.asarray(w) for w in network.weights}
    path = tmp_path / "w.npz"
    np.savez(path, **{**arrays, "conv1/bias": np.arange(32)})
    with pytest.raises(ValueError, match="conv1/bias of int64, not floating"):
        SmallCNN(**DIGITS, weights=path)
    np.savez(path, **{**arrays, "conv1/bias": np.array([None] * 32)})
    with pytest.raises(ValueError, match="a whole one.*w.npz"):
        SmallCNN(**DIGITS, weights=path)
    with open(path, "wb") as file:
        np.save(file, arrays["conv1/bias"])
    with pytest.raises(ValueError, match="a whole one.*w.npz"):
        SmallCNN(**DIGITS, weights=path)
    np.savez(path, **arrays, more=np.zeros(3))
    with pytest.raises(ValueError, match="w.npz, which has more, too"):
        SmallCNN(**DIGITS, weights=path)
    del arrays["dense1/bias"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="w.npz, which has no dense1/bias"):
        SmallCNN(**DIGITS, weights=path)


def test_rejects_a_shipped_file_that_is_not_as_it_came(shipped):
    path = shipped / f"{NAME}.npz"
    SmallCNN(**DIGITS, weights=NAME)
    content = path.read_bytes()
    # A whole file, but another one.
    weights_files.write(path, SmallCNN(**DIGITS))
    with pytest.raises(ValueError, match=f"reinstall.*{NAME}.npz, another"):
        SmallCNN(**DIGITS, weights=NAME)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"reinstall.*{NAME}.npz, another"):
        SmallCNN(**DIGITS, weights=NAME)
    os.remove(path)
    with pytest.raises(ValueError, match=f"reinstall.*{NAME}.npz, .*not there"):
        SmallCNN(**DIGITS, weights=NAME)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"a": {}}'])
def test_rejects_a_damaged_index(content, shipped):
    path = shipped / "index.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match="reinstall .*index.json"):
        architectures.weights()


@pytest.mark.parametrize("value", [1e5, np.nan, np.inf])
def test_does_not_write_what_float16_cannot_hold(value, tmp_path):
    network = SmallCNN(**DIGITS)
    network.get_layer("conv2").bias.assign(np.full(32, value))
    with pytest.raises(ValueError, match="65504. Received: conv2/bias"):
        weights_files.write(tmp_path / "w.npz", network)
    assert not [*tmp_path.iterdir()]
