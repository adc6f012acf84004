"""Counts what is really computed of a network: its passes, there and back."""

import collections

import keras
import tensorflow as tf


class Counted(keras.layers.Dense):
    """A dense layer that tells what is really computed of it."""

    def __init__(self, tell):
        super().__init__(10, use_bias=False)
        self.tell = tell

    def _count(self, name, value):
        def count(array):
            self.tell(name)
            return array

        # Without a state, it is left out where nobody needs its value.
        counted = tf.numpy_function(count, [value], value.dtype, stateful=False)
        return tf.ensure_shape(counted, value.shape)

    def call(self, x):
        @tf.custom_gradient
        def product(x, kernel):
            def gradient(upstream):
                by_x = tf.matmul(upstream, kernel, transpose_b=True)
                by_kernel = tf.matmul(x, upstream, transpose_a=True)
                return (
                    self._count("by inputs", by_x),
                    self._count("by weights", by_kernel),
                )

            return self._count("forward", tf.matmul(x, kernel)), gradient

        return product(x, tf.convert_to_tensor(self.kernel))


def count(loss):
    """Returns the passes of one compiled step, of two layers: `Counter`s.

    The passes of the first layer by its inputs are those that the attack
    makes: a pass back for the weights ends there.
    """
    told = [], []
    inputs = keras.Input((10,))
    outputs = Counted(told[1].append)(Counted(told[0].append)(inputs))
    network = keras.Model(inputs, outputs)
    x = tf.random.stateless_uniform((4, 10), (0, 1))
    y = tf.range(4)
    loss.value_and_gradients(network, x, y)  # probes the network
    for one in told:
        one.clear()
    step = tf.function(
        lambda: loss.value_and_gradients(network, x, y).gradients
    )
    step()
    return [collections.Counter(one) for one in told]
