"""What was found out about networks, kept for as long as they live."""

import dataclasses
import weakref

import keras

# What a network keeps, of that last used: more than one evaluation has
# attacks, since they take turns at every batch.
_MOST = 64

# Keras compares these by identity.
_BY_VALUE = (
    keras.losses.Loss,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.DTypePolicy,
)


class Memory:
    """Remembers what was made of a network, under the settings for it.

    A network that can't be referred to weakly is not remembered, nor is one
    that is made anew for each call, such as a bound method.
    """

    def __init__(self):
        self._found = weakref.WeakKeyDictionary()

    def get(self, model, settings, make):
        """Returns what `make` gives, from an earlier call if there was one.

        `None` is not kept.

        Args:
            model: A Keras model or another callable.
            settings: What the result depends on; see `by_value`.
            make: Function without arguments. What it gives must not hold the
                model, which would keep the model alive.
        """
        try:
            found = self._found.setdefault(model, {})
        except TypeError:
            return make()
        key = by_value(settings)
        if key not in found:
            made = make()
            if made is None:
                return None
            found[key] = made
            if len(found) > _MOST:
                del found[next(iter(found))]
        # The one last used comes last.
        found[key] = found.pop(key)
        return found[key]


def by_value(settings):
    """Returns a key that is the same for equal settings.

    Losses and schedules are what they hold, but for their names, which Keras
    counts up. What has no hash stands for itself.
    """
    if isinstance(settings, (tuple, list)):
        return tuple(map(by_value, settings))
    if isinstance(settings, dict):
        return tuple((by_value(k), by_value(v)) for k, v in settings.items())
    if isinstance(settings, _BY_VALUE) or dataclasses.is_dataclass(settings):
        held = {k: v for k, v in vars(settings).items() if k != "name"}
        return type(settings), by_value(held)
    try:
        hash(settings)
    except TypeError:
        return id(settings)
    return settings


def weakly(model):
    """Returns a function that gives the model, for as long as it lives."""
    try:
        return weakref.ref(model)
    except TypeError:
        return lambda: model
