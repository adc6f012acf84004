"""What a network ends in: probabilities, or numbers of any size."""

import keras
import tensorflow as tf

# What keeps the values, or takes averages of them.
_TRANSPARENT = {
    "Cast",
    "ExpandDims",
    "Identity",
    "Mean",
    "Reshape",
    "Squeeze",
    "StopGradient",
}
_LINEAR = {"BatchMatMulV2", "BiasAdd", "Conv2D", "MatMul"}


def ends_in_probabilities(predict, shape):
    """Whether a network ends in a sigmoid or softmax.

    Its graph is asked, which knows what a `call` of one's own does; layers
    only know themselves.

    Args:
        predict: Function from images to outputs, in inference mode.
        shape: The shape of an image, `None` where any size will do.

    Returns:
        `False` for a linear layer and tanh; `None` for anything else.
    """
    spec = tf.TensorSpec((None, *shape), keras.config.floatx())
    graph = tf.function(predict, autograph=False).get_concrete_function(spec)
    last = graph.outputs[0].op
    while last.type in _TRANSPARENT:
        last = last.inputs[0].op
    kinds = {last.type}
    if last.type in ("Add", "AddV2"):  # a layer's bias
        kinds |= {tensor.op.type for tensor in last.inputs}
    if last.type in ("Sigmoid", "Softmax"):
        return True
    return False if kinds & {*_LINEAR, "Tanh"} else None
