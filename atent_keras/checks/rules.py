"""Rules that hold now, or when a graph runs; and what breaks them, by name."""

import contextlib
import numbers
import re

import numpy as np
import tensorflow as tf

from atent_keras import base_losses

# Delimits the messages of this module in TensorFlow's own.
_MARK = "\u2063"
# TensorFlow counts in 32 bits.
_MOST = 2**31 - 1


def require(condition, tensor, message, *received):
    """Returns `tensor` once `condition` holds, now or when a graph runs."""
    if tf.executing_eagerly():
        if not condition:
            values = (value.numpy() for value in received)
            raise ValueError(message.format(*values))
        return tensor
    # XLA knows assertions, which it drops, but no formatting of strings.
    data = [_MARK + message + _MARK, *received]
    with tf.control_dependencies([tf.debugging.Assert(condition, data)]):
        return tf.identity(tensor)


@contextlib.contextmanager
def plain_errors():
    """Turns the failed check of a graph into the `ValueError` it stands for."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # The form is "[<mark>message<mark>] [value] [value]".
        _, *found = error.message.split(_MARK)
        if not found:
            raise
        message, values = found[0], re.findall(r"\[([^][]*)\]", found[1])
        # TensorFlow shows the message as a literal.
        message = message.replace("\\'", "'")
        raise ValueError(message.format(*values)) from None


def require_count(least=1, /, **settings):
    """Checks that settings are integers, at least `least`, of 32 bits.

    Raises:
        ValueError: If one is not.
    """
    for name, value in settings.items():
        integer = isinstance(value, numbers.Integral)
        if (
            not integer
            or isinstance(value, bool)
            or not least <= value <= _MOST
        ):
            raise ValueError(
                f"`{name}` must be an integer, at least {least} and at most "
                f"{_MOST}. Received: {name}={value!r}"
            )


def require_seed(seed):
    """Checks that a seed is an integer of 64 bits.

    Raises:
        TypeError: If it is not.
    """
    if (
        isinstance(seed, bool)
        or not isinstance(seed, numbers.Integral)
        or not -(2**63) <= seed < 2**63
    ):
        raise TypeError(
            f"`seed` must be an integer of 64 bits. Received: seed={seed!r}"
        )


def require_flag(**settings):
    """Checks that settings are booleans.

    Raises:
        ValueError: If one is not.
    """
    for name, value in settings.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(
                f"`{name}` must be True or False. Received: {name}={value!r}"
            )


def name_of(loss):
    if loss is None:
        return "no loss"
    loss = base_losses.unwrap(loss)
    return getattr(loss, "__name__", type(loss).__name__)
