"""A network's convolutions and matrix products alone: count and rate."""

import math
from typing import NamedTuple

import keras
import tensorflow as tf

KINDS = (
    "forward",
    "first input gradient",
    "input gradients",
    "weight gradients",
)

# The products that a GPU's peak is measured by: their number, and the rows and
# columns of each.
_PRODUCTS, _SIZE = 8, 8192
PRODUCT_GFLOP = 2 * _PRODUCTS * _SIZE**3 / 1e9


class Passes(NamedTuple):
    """How often a training step goes through a network.

    Attributes:
        forward: Forward passes.
        inputs: Backward passes down to the images.
        last: Backward passes that stop at the first layer's weights.
        weights: Gradients by the weights.
    """

    forward: int = 0
    inputs: int = 0
    last: int = 0
    weights: int = 0

    def gflop(self, model, batch_size):
        """Counts, two for each multiplication with its addition."""
        counts = [multiplications(layer) for layer in layers(model)]
        total = (self.forward + self.inputs + self.last + self.weights) * sum(
            counts
        ) - self.last * counts[0]
        return 2 * total * batch_size / 1e9

    def milliseconds(self, times):
        """What the passes take at the rate of the layers' operations alone.

        Args:
            times: Dictionary from `KINDS` to ms.
        """
        counts = (
            self.forward,
            self.inputs,
            self.inputs + self.last,
            self.weights,
        )
        return sum(count * times[kind] for count, kind in zip(counts, KINDS))


def layers(model):
    """The layers that do arithmetic worth counting, in their order."""
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def multiplications(layer):
    """Of one forward pass, for one example."""
    positions = math.prod(layer.output.shape[1:-1])
    return positions * math.prod(layer.kernel.shape)


def product():
    """Large products in bfloat16, from whose time a device's peak follows.

    Returns:
        A compiled function that runs them, one after the other.
    """
    # Of such a scale that the products keep it.
    x = tf.random.normal((_SIZE, _SIZE)) / _SIZE**0.5
    x = tf.cast(x, tf.bfloat16)

    @tf.function(autograph=False)
    def run():
        y = x
        for _ in range(_PRODUCTS):
            y = tf.matmul(y, x)
        return tf.reshape(y, [-1])[0]

    return lambda: run().numpy()


def operations(model, batch_size, dtype):
    """Functions that run one kind of operation of all layers, one by one.

    Returns:
        Dictionary from `KINDS` to compiled functions.
    """
    forward, inputs, weights = [], [], []
    for layer in layers(model):
        x, y = (
            tf.cast(tf.random.normal((batch_size, *tensor.shape[1:])), dtype)
            for tensor in (layer.input, layer.output)
        )
        for functions, function in zip(
            (forward, inputs, weights), _operations(layer, x, y)
        ):
            functions.append(function)
    parts = (forward, inputs[:1], inputs[1:], weights)
    return dict(zip(KINDS, map(_in_turn, parts)))


def _operations(layer, x, y):
    """A layer's three operations, on given inputs and gradients of outputs."""
    kernel = tf.cast(layer.kernel.value, x.dtype)
    if isinstance(layer, keras.layers.Dense):
        return (
            lambda: tf.matmul(x, kernel),
            lambda: tf.matmul(y, kernel, transpose_b=True),
            lambda: tf.matmul(x, y, transpose_a=True),
        )
    settings = {
        "strides": [1, *layer.strides, 1],
        "padding": layer.padding.upper(),
    }
    return (
        lambda: tf.nn.conv2d(x, kernel, **settings),
        lambda: tf.raw_ops.Conv2DBackpropInput(
            input_sizes=x.shape, filter=kernel, out_backprop=y, **settings
        ),
        lambda: tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=kernel.shape, out_backprop=y, **settings
        ),
    )


def _in_turn(functions):
    """Compiles functions so that each has the machine for itself."""

    @tf.function(autograph=False)
    def run():
        results = []
        for function in functions:
            with tf.control_dependencies(results[-1:]):
                # One number of each, lest it be left out as unused; the rest
                # makes room for the next, as in a network.
                results.append(tf.reshape(function(), [-1])[0])
        return results

    return lambda: [result.numpy() for result in run()]
