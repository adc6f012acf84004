"""Functions of a network, compiled once and called on as many rows as fit."""

import contextlib
import re
import warnings

import tensorflow as tf

from atent_keras import config
from atent_keras.memory import Memory
from atent_keras.memory import weakly

# XLA compiles anew for each number of rows. Fewer rows are therefore filled
# up, unless that made so many times as many of them.
_MOST_FILLED_UP = 8

# The compiled functions hold their network weakly, so that neither outlives
# the last outside reference to it.
_compiled = Memory()


def compiled(model, key, function, signature):
    """Returns `function` with the model as its first argument, compiled.

    It is compiled once for a signature and equal keys, and remembered while
    the model lives; see `Memory`. XLA compiles it if `config` says so.

    Args:
        model: A Keras model or another callable.
        key: What the function depends on besides its arguments.
        function: Function of the model and tensors, of which each that the
            signature gives any number of rows has as many, and so has each
            that is returned: one for each example, regardless of the others.
        signature: Tuple of `tf.TensorSpec`; see `any_batch`.

    Returns:
        A `Compiled`.
    """
    eager = getattr(model, "run_eagerly", False)
    xla = config.uses_xla() and not eager
    # Which precision a product of matrices has is a constant of XLA's.
    precision = tf.config.experimental.tensor_float_32_execution_enabled()
    reference = weakly(model)

    def bound(*arguments):
        return function(reference(), *arguments)

    def compile():
        if eager:
            return Compiled(bound, signature)
        graph = tf.function(
            bound, autograph=False, input_signature=signature, jit_compile=xla
        )
        return Compiled(graph.get_concrete_function(), signature, xla)

    return _compiled.get(
        model, (key, eager, xla, precision, signature), compile
    )


class Compiled:
    """A function of one row for each example, and of more.

    Args:
        function: The function, compiled or not.
        signature: Tuple of `tf.TensorSpec`. If any of them have rows, the
            first one has.
        xla: Boolean, whether each number of rows is compiled by itself.
    """

    def __init__(self, function, signature, xla=False):
        self._function, self._signature = function, signature
        self._xla = xla
        self._has_rows = [
            spec.shape.rank > 0 and spec.shape[0] is None for spec in signature
        ]
        self._sizes = []
        # Where memory ran out, it would run out again.
        self._most = None

    def __call__(self, *arguments):
        """Calls the function on all rows at once."""
        arguments = [
            tf.convert_to_tensor(value, spec.dtype)
            for value, spec in zip(arguments, self._signature)
        ]
        if not self._xla or not any(self._has_rows):
            return self._function(*arguments)
        count = arguments[0].shape[0]
        more = self._size(count) - count
        if more:
            arguments = [
                _filled_up(value, more) if rows else value
                for value, rows in zip(arguments, self._has_rows)
            ]
        with _plain_words():
            found = self._function(*arguments)
        return tf.nest.map_structure(lambda value: value[:count], found)

    def over(self, count, arguments):
        """Calls the function on some rows after the other.

        Args:
            count: Integer, the number of rows.
            arguments: Function from a slice of rows to the arguments.

        Yields:
            The slices, and what the function gives for them.
        """
        done = 0
        while done < count:
            most = min(config.batch_size(), self._most or count)
            rows = slice(done, min(done + most, count))
            try:
                found = self(*arguments(rows))
            except tf.errors.ResourceExhaustedError:
                if rows.stop - done == 1:
                    raise
                found = None
            if found is None:
                self._halve(rows.stop - done)
                continue
            yield rows, found
            done = rows.stop

    def _size(self, count):
        """Returns how many rows to fill up so many to."""
        for size in sorted(self._sizes):
            if count <= size < _MOST_FILLED_UP * count:
                return size
        self._sizes.append(count)
        return count

    def _halve(self, failed):
        if self._most is None:
            warnings.warn(
                f"Memory ran out with {failed} examples at once, so that it "
                "goes on with fewer. `batch_size` says how many from the start",
                stacklevel=3,
            )
        self._most = failed // 2
        self._sizes = [size for size in self._sizes if size <= self._most]


def slices(count):
    """Yields slices of `config.batch_size()` rows, together so many."""
    size = config.batch_size()
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def any_batch(tensor):
    """Returns the signature of tensors like this one, of any batch size."""
    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)


def _filled_up(rows, more):
    return tf.concat([rows, tf.repeat(rows[-1:], more, axis=0)], axis=0)


@contextlib.contextmanager
def _plain_words():
    """Says in plain words what XLA can't compile.

    Raises:
        ValueError: Instead of TensorFlow's error.
    """
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as e:
        found = re.findall(
            r"(\w+) \(No registered.*?\{node ([^}]*)\}", e.message
        )
        if not found:
            raise
        where = ", ".join(f"{kind} in {node!r}" for kind, node in found)
        raise ValueError(
            "The network must consist of operations that XLA can compile. "
            f"Received: {where}. Have it computed without XLA: "
            "`atent_keras.config.set_jit_compile(False)`"
        ) from e
