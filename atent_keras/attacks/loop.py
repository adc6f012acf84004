"""TensorFlow's loop, with a body that stays a graph of its own."""

import tensorflow as tf


def while_loop(condition, body, state, maximum_iterations):
    """Calls `tf.while_loop`, with a body that runs as fast as it can.

    TensorFlow merges a loop's body with the graph around it, which then has a
    cycle. oneDNN does not pair max pooling with its gradient there, and leaves
    them to a kernel that takes many times as long. Called as a function, the
    body is no part of the cycle.
    """
    if not tf.executing_eagerly():
        body = tf.function(
            body, autograph=False, experimental_attributes={"_noinline": True}
        )
    return tf.while_loop(
        condition, body, state, maximum_iterations=maximum_iterations
    )
