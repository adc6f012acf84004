"""What an object is, as JSON has it: the same in every process."""

import json
import re
import warnings

import keras


def describe(thing):
    """Returns the settings of an attack or a loss, for JSON.

    That is its Keras config; of what has none, its `repr` without addresses.
    How much an attack prints is no setting, nor are names of losses, which
    Keras counts up within a process.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = keras.saving.serialize_keras_object(thing)
            found = json.loads(json.dumps(found))
    except Exception:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))
    if isinstance(found, dict) and isinstance(found.get("config"), dict):
        found["config"].pop("verbose", None)
    return _without_names(found)


def _without_names(found):
    if isinstance(found, list):
        return [_without_names(one) for one in found]
    if isinstance(found, dict):
        kept = found.keys() - {"name"}
        return {key: _without_names(found[key]) for key in found if key in kept}
    return found


def differences(name, one, other):
    """Yields `(name, one, other)` for each part in which two values differ.

    Args:
        name: String, what the values are.
        one, other: Values from JSON.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            part = name if key == "config" else f"{name} {key}"
            yield from differences(part, one.get(key), other.get(key))
    elif one != other:
        yield name, one, other
