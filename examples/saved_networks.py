"""The networks of a command line, from their files, or by name."""

import pathlib

import keras

import atent_keras as ak


def paths(texts):
    """Paths by name.

    Args:
        texts: List of strings, each PATH or NAME=PATH; the default name is
            that of the file's folder, or what comes along is called.

    Raises:
        ValueError: If a name is taken, or no name for a folder.
    """
    found = {}
    for text in texts:
        # A "=" behind a slash is part of the path.
        start, slash, rest = text.partition("/")
        name, separator, start = start.rpartition("=")
        path = pathlib.Path(start + slash + rest)
        if not separator:
            name = path.name if shipped(path) else path.resolve().parent.name
        if name in found or name in ("", ".", ".."):
            raise ValueError(
                "--model must give each network a name of its own, without "
                f"slashes, as NAME=PATH. Received: --model={text}"
                + (f", and {name!r} before it" if name in found else "")
            )
        found[name] = path
    return found


def shipped(path):
    """What comes along by that name, if nothing else has it; or `None`."""
    known = ak.architectures.weights()
    return None if path.exists() else known.get(str(path))


def load(path, flag="model"):
    """The network of a `.keras` file or a SavedModel's folder, or by name."""
    if path.is_dir():
        return ak.load_classifier(path)
    if (found := shipped(path)) is not None:
        builder = getattr(ak.architectures, found.architecture)
        return builder(**found.arguments, weights=found.name)
    if path.suffix != ".keras" or not path.is_file():
        raise FileNotFoundError(
            f"--{flag} must be a .keras file or a folder that exists, or one "
            f"of {', '.join(ak.architectures.weights())}. Received: {path}"
        )
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ValueError(
            f"--{flag} must be a whole file that `model.save` wrote. Received: "
            f"{path}, which Keras cannot load: {error}"
        ) from error


def check_shape(name, model, dataset, shape):
    """Raises a `ValueError` for a network that takes other images."""
    accepts = getattr(model, "input_shape", None)
    if accepts is None:  # a subclass, which shows when it is called
        return
    accepts = accepts[1:]
    if len(accepts) != len(shape) or any(
        size not in (None, given) for size, given in zip(accepts, shape)
    ):
        raise ValueError(
            f"--model must take images of {dataset}, of shape {shape}. "
            f"Received: {name}, a network for images of shape {accepts}"
        )
