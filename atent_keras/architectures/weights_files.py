"""Weights that were trained before, from their files into a network.

A file of this package's own is an `.npz` with an array for each tensor, named
after layer and weight, such as `conv1/kernel`, in float16: half the size, and
rounded by 1/2048 at most, which changes next to no answer.
"""

import hashlib
import io
import os
import pathlib
import zipfile

import h5py
import keras
import numpy as np

from atent_keras.architectures import catalogue
from atent_keras.archives import DAMAGES
from atent_keras.evaluation.results import write_arrays

ENDINGS = (".npz", ".weights.h5", ".keras")


def find(architecture, weights, input_shape, classes, **arguments):
    """Returns where the weights are that a builder was asked for.

    Args:
        architecture: String, the builder's name.
        weights: `None`, a name of the catalogue, or a path.
        input_shape, classes, **arguments: The builder's arguments on which
            the weights depend, as it received them.

    Returns:
        `None`, a `Pretrained` or a `pathlib.Path`.

    Raises:
        TypeError: If `weights` is nothing of the kind.
        ValueError: If there are none of that name for this architecture and
            these arguments, or the file is of another kind.
        FileNotFoundError: If there is no such file.
    """
    if weights is None:
        return None
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            "`weights` must be None, a name or the path of a file. Received: "
            f"weights={weights!r}"
        )
    if not _is_path(weights):
        arguments.update(input_shape=input_shape, classes=classes)
        return _named(architecture, weights, arguments)
    path = pathlib.Path(weights)
    if not path.name.endswith(ENDINGS):
        raise ValueError(
            f"The file of `weights` must end in {', '.join(ENDINGS[:-1])} or "
            f"{ENDINGS[-1]}. Received: weights={os.fspath(weights)!r}"
        )
    if not path.is_file():
        raise FileNotFoundError(
            "`weights` must be a file that exists. Received: "
            f"weights={os.fspath(weights)!r}"
        )
    return path


def load(network, source):
    """Gives a network the weights that `find` found.

    All of them are checked before the first one is changed.

    Args:
        network: A `keras.Model` of `architectures`.
        source: What `find` returned.

    Returns:
        The network.

    Raises:
        ValueError: If the file is damaged, or one of another network.
    """
    if source is None:
        return network
    entry = None
    if isinstance(source, catalogue.Pretrained):
        entry, source = source, source.path
    content = _content(source, entry)
    try:
        if source.name.endswith(".npz"):
            tensors = _from_npz(content)
        else:
            tensors = _from_keras(source, content, network)
    except DAMAGES as error:
        raise ValueError(
            "The file of `weights` must be a whole one. Received: "
            f"{source}, which can't be read: {error}"
        ) from error
    variables = _named_weights(network)
    fault = _difference(variables, tensors)
    if fault:
        raise ValueError(
            "The file of `weights` must hold those of the network that is "
            f"asked for. Received: {source}, which has {fault}"
        )
    for name, variable in variables.items():
        variable.assign(tensors[name])
    return network


def write(path, network):
    """Writes a network's weights as an `.npz` of float16.

    Args:
        path: Where to.
        network: A `keras.Model`.

    Raises:
        ValueError: If a weight is beyond float16, or no number.
        OSError: If the file can't be written; what was there is kept.
    """
    arrays = {}
    for name, variable in _named_weights(network).items():
        values = keras.ops.convert_to_numpy(variable).astype("float32")
        # Beyond the largest number of float16 is infinity.
        with np.errstate(over="ignore"):
            arrays[name] = values.astype("float16")
        if not np.all(np.isfinite(arrays[name])):
            raise ValueError(
                "Weights must be finite numbers of float16, up to 65504. "
                f"Received: {name} with values up to {np.max(np.abs(values))}"
            )
    write_arrays(pathlib.Path(path), arrays)


def _is_path(weights):
    """Whether weights are meant as a path, not as a name."""
    if not isinstance(weights, str):
        return True
    return weights.endswith(ENDINGS) or weights != os.path.basename(weights)


def _named(architecture, name, arguments):
    """Returns the trained network of that name, which has to fit."""
    known = catalogue.weights()
    if name not in known.of(architecture):
        fitting = ", ".join(map(repr, known.of(architecture)))
        other = name in known and known[name].architecture
        raise ValueError(
            "`weights` must be None, "
            + (f"one of {fitting}, " if fitting else "")
            + f"or the path of a file with weights of {architecture}"
            + ("" if fitting else ", of which none come with the package")
            + f". Received: weights={name!r}"
            + (f", which are weights of {other}" if other else "")
        )
    entry = known[name]
    received = {
        # A shape may be a list, too.
        key: tuple(value) if isinstance(value, list) else value
        for key, value in arguments.items()
    }
    different = [
        f"{key}={received[key]!r}"
        for key, value in entry.arguments.items()
        if received[key] != value
    ]
    if different:
        raise ValueError(
            f"weights={name!r} must be those of the network that is asked "
            f"for; they are for {entry.call}. Received: {', '.join(different)}"
        )
    return entry


def _named_weights(network):
    """Returns a network's weights by layer and own name."""
    return {
        f"{layer.name}/{weight.name}": weight
        for layer in network.layers
        for weight in layer.weights
    }


def _content(path, entry):
    """Returns what is in a file, which has to be as it came if shipped."""
    if entry is None:
        return path.read_bytes()
    content = path.read_bytes() if path.is_file() else None
    if content is None or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ValueError(
            f"The file of weights={entry.name!r} must be as it came with the "
            f"package; reinstall it. Received: {path}, "
            + ("which is not there" if content is None else "another checksum")
        )
    return content


def _from_npz(content):
    """Returns the arrays of an `.npz`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)


def _from_keras(path, content, network):
    """Returns the arrays of a file that Keras wrote.

    It numbers a layer's weights, which are named here as the network's are.
    """
    if path.name.endswith(".keras"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read("model.weights.h5")
    names = {
        f"{layer.name}/{i}": f"{layer.name}/{weight.name}"
        for layer in network.layers
        for i, weight in enumerate(layer.weights)
    }
    tensors = {}

    def visit(place, group):
        # Beside the layers there may be an optimizer.
        if "layers" not in place.split("/") or "name" not in group.attrs:
            return
        for i in group:  # What lies in another file is not even opened.
            if not _is_inside(group, i):
                raise ValueError(f"{place}/{i} lies outside of it")
            name = f"{group.attrs['name']}/{i}"
            name = names.get(name, name)
            # Layers of one name, deep in others, are not of these networks.
            tensors[f"{place}/{i}" if name in tensors else name] = group[i][()]

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(visit)
    return tensors


def _is_inside(group, name):
    """Whether a member of an HDF5 group is in that file, not in another."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return False
    values = group[name]
    return not (values.external or values.is_virtual)


def _difference(variables, tensors):
    """Returns what of some tensors is another network's, `None` if nothing."""
    for name, variable in variables.items():
        if name not in tensors:
            return f"no {name}"
        found, shape = tensors[name], tuple(variable.shape)
        if found.shape != shape:
            return f"{name} of shape {found.shape}, not {shape}"
        if found.dtype.kind != "f":
            return f"{name} of {found.dtype}, not floating-point numbers"
    others = tensors.keys() - variables.keys()
    return f"{min(others)}, too" if others else None
