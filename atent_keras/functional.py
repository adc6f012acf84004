"""Models made from tensors, of classes that have a `call` of their own, too."""

import functools

import keras


def from_tensors(args, kwargs):
    """Whether a model is made from tensors, by Keras's rule."""
    return (
        len(args) == 2
        or (len(args) == 1 and "outputs" in kwargs)
        or ("inputs" in kwargs and "outputs" in kwargs)
    )


def single(tensors):
    """Takes a single tensor out of its list."""
    if isinstance(tensors, (list, tuple)) and len(tensors) == 1:
        return tensors[0]
    return tensors


@functools.cache
def twin(cls):
    """Returns `cls` with Keras's functional models among its bases.

    Keras would put them among the bases of `RobustModel` itself, for good, and
    no other subclass could then have a `call` of its own. So each class gets
    a functional twin of the same name instead.
    """
    base = _functional()
    if issubclass(cls, base):
        return cls
    made = type(cls.__name__, (cls, base), {"__module__": cls.__module__})
    package, _, name = keras.saving.get_registered_name(cls).rpartition(">")
    if package:
        # Saved under the name of its class, it is loaded through its class.
        for one in (made, cls):
            keras.saving.register_keras_serializable(package, name)(one)
    return made


@functools.cache
def _functional():
    # The class has no public name; a model made from tensors has its type.
    # Keras 3.10 to 3.13 refuse one without a layer, which has a name here, so
    # that those of other layers are not counted up.
    inputs = keras.Input((1,))
    outputs = keras.layers.Identity(name="identity")(inputs)
    return type(keras.Model(inputs, outputs))
