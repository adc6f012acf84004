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
import zlib

import h5py
import keras
import numpy as np

from atent_keras.architectures import catalogue
from atent_keras.evaluation.results import write_arrays

ENDINGS = (".npz", ".weights.h5", ".keras")
# What reading a damaged `.npz` raises: a single array, too, is no archive.
_DAMAGES = (
    AttributeError,
    EOFError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


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
    if isinstance(source, catalogue.Pretrained):
        tensors = _read_npz(source.path, source)
        source = source.path
    elif source.name.endswith(".npz"):
        tensors = _read_npz(source)
    elif source.name.endswith(".keras"):
        tensors = _read_keras(source)
    else:
        _load_h5(network, source)
        return network
    variables = _named_weights(network)
    _require_same(source, variables, tensors)
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
    found = {}
    for variable in network.weights:
        # Without the scopes that a model around it adds.
        name = "/".join(variable.path.split("/")[-2:])
        found[variable.path if name in found else name] = variable
    return found


def _read_npz(path, entry=None):
    """Returns the arrays of an `.npz`, if `entry` says so a checked one."""
    try:
        content = path.read_bytes()
    except OSError:
        if entry is None:
            raise
        content = b""
    if entry and hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ValueError(
            f"The file of weights={entry.name!r} must be as it came with the "
            f"package; reinstall it. Received: {path}, "
            + ("of another checksum" if content else "which is not there")
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            tensors = dict(file)
    except _DAMAGES as error:
        raise _damaged(path, error) from error
    for name, values in tensors.items():
        if values.dtype.kind != "f":
            raise ValueError(
                "The file of `weights` must hold floating-point numbers. "
                f"Received: {path}, where {name} is {values.dtype}"
            )
    return tensors


def _read_keras(path):
    """Returns the weights of the network in a `.keras` file, by name."""
    try:
        network = keras.models.load_model(path, compile=False)
    except Exception as error:
        raise _damaged(path, error) from error
    return _named_weights(network)


def _load_h5(network, path):
    """Gives a network weights as `keras.Model.save_weights` writes them."""
    try:
        with h5py.File(path) as file:
            count = _count(file.get("layers", {}))
    except (OSError, RuntimeError) as error:
        raise _damaged(path, error) from error
    # Keras does not look at tensors that a network has no place for.
    if count > len(network.weights):
        raise _another(path, f"has {count} tensors, not {len(network.weights)}")
    try:
        network.load_weights(path)
    except Exception as error:
        raise _another(path, f"does not fit: {error}") from error


def _count(group):
    """Returns the number of tensors in a group of an HDF5 file."""
    names = []
    if group:
        group.visititems(
            lambda name, one: names.append(name) if hasattr(one, "shape") else 0
        )
    # The state of a dropout's random numbers is no weight.
    return sum("seed_generator" not in name for name in names)


def _require_same(path, variables, tensors):
    """Checks that tensors are those of a network, to the last one."""
    for name, variable in variables.items():
        if name not in tensors:
            raise _another(path, f"has no {name}")
        found, expected = tuple(tensors[name].shape), tuple(variable.shape)
        if found != expected:
            raise _another(path, f"has {name} of shape {found}, not {expected}")
    for name in tensors:
        if name not in variables:
            raise _another(path, f"has {name}, too")


def _another(path, why):
    return ValueError(
        "The file of `weights` must hold those of the network that is asked "
        f"for. Received: {path}, which {why}"
    )


def _damaged(path, error):
    return ValueError(
        f"The file of `weights` must be a whole one. Received: {path}, which "
        f"can't be read: {error}"
    )
