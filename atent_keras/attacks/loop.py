"""A loop whose body stays a graph of its own."""

import tensorflow as tf


def while_loop(condition, body, state):
    """Repeats a step while a condition holds, as `tf.while_loop` does.

    TensorFlow's own merges a loop's body with the graph around it, which then
    has a cycle. oneDNN does not pair max pooling with its gradient there, and
    leaves them to a kernel that takes many times as long; and each of the
    hundreds of tensors that a network's chain carries becomes half a dozen
    operations, which take seconds to optimize. As a function that an operation
    calls, the body is no part of the cycle, and is optimized by itself.

    Args:
        condition: Function of the state's parts that gives a boolean.
        body: Function of the state's parts that gives the next state, of the
            same structure, shapes and dtypes.
        state: Tuple of nested structures of tensors.

    Returns:
        The last state; no gradient leads back through the loop.
    """
    if tf.executing_eagerly():
        while condition(*state):
            state = body(*state)
        return state
    state = tf.nest.map_structure(tf.convert_to_tensor, state)

    def turn(going, *values):
        after = body(*tf.nest.pack_sequence_as(state, values))
        return [condition(*after), *tf.nest.flatten(after)]

    carried = [condition(*state), *tf.nest.flatten(state)]
    turn = _traced(turn, carried, {"_noinline": True})
    # What the body takes from around it comes along, unchanged.
    held = turn.captured_inputs

    def again(*values):
        types = [value.dtype for value in carried]
        after = tf.raw_ops.StatefulPartitionedCall(
            args=values, Tout=types, f=turn
        )
        return [*after, *values[len(carried) :]]

    _, *found = tf.raw_ops.While(
        input=[*carried, *held],
        cond=_traced(lambda going, *rest: going, [*carried, *held]),
        body=_traced(again, [*carried, *held]),
    )[: len(carried)]
    for value, first in zip(found, carried[1:]):
        value.set_shape(first.shape)
    return tf.nest.pack_sequence_as(state, [*map(tf.stop_gradient, found)])


def _traced(function, arguments, attributes=None):
    """Returns a function's graph, for tensors like the arguments."""
    signature = [tf.TensorSpec(one.shape, one.dtype) for one in arguments]
    return tf.function(
        function, autograph=False, experimental_attributes=attributes
    ).get_concrete_function(*signature)
