"""Chains of points that climb: alone, or teaching on their way."""

import tensorflow as tf

from atent_keras import base_losses
from atent_keras.attacks import gradients
from atent_keras.threat_models import per_example


def climb(
    attack, network, state, x, start, losses, noise, training, steps=None
):
    """Climbs from a start, as an attack does.

    Args:
        attack: An attack that steps along a gradient.
        network: A `Network`.
        state: Its state.
        x: Clean images, `(batch, ...)`.
        start: Where to start, of the same shape.
        losses: Function from the network's outputs to what each example
            climbs, `(batch,)`.
        noise: Function from `k` to N(0, 1) draws in the shape of `x`.
        training: Boolean, the network's mode.
        steps: `range` of the steps to take. Defaults to all of them.

    Returns:
        The last points, and the new state.
    """

    def gradient(x_adv, state):
        def predict(x_adv):
            nonlocal state
            one = network(x_adv, state, training)
            state = one.state
            return one.y_pred

        return gradients.at(predict, x_adv, losses)[0], state

    return attack.climb(x, start, gradient, noise, state, steps, network.unroll)


def ascent_and_average(loss, network, batch, alpha):
    """Returns what `Attack.climb` asks for, averaging the loss on the way.

    ```python
    average = (1 - alpha) * average + alpha * loss(f(x_adv), y)
    ```

    One tape over the point and the weights gives both gradients of a pass, so
    that nothing has to be passed twice, and memory does not grow with the
    number of steps.

    Args:
        loss: A `RobustLoss`.
        network: A `Network`, run in training mode.
        batch: The `Batch`.
        alpha: Float in (0, 1], the weight of the newest point.

    Returns:
        Function from `(x_adv, (state, average, gradients))` to the gradient
        of each example's own loss by `x_adv`, and the newer triple.
    """
    scale, weights = network.loss_scale, network.weights

    def gradient(x_adv, carry):
        state, average, older = carry
        weighted = batch.sample_weight is not None
        with tf.GradientTape(
            persistent=weighted, watch_accessed_variables=False
        ) as tape:
            tape.watch([x_adv, *weights])
            losses = loss.losses(network, state, x_adv, batch)
            newest = alpha * loss.mean(losses.values, batch)
            scaled, scaled_values = scale * newest, scale * losses.values
        if weighted:
            # Two passes back, since an example of weight zero climbs too.
            ascent = base_losses.input_gradient(tape, scaled_values, x_adv)
            ascent /= scale
            newer = tape.gradient(scaled, weights, unconnected_gradients="zero")
        else:
            # One pass back serves point and weights: each example has the
            # same share in the mean, by which its ascent is divided.
            ascent, share, *newer = tape.gradient(
                scaled,
                [x_adv, losses.values, *weights],
                unconnected_gradients="zero",
            )
            share = tf.cast(per_example(share, x_adv), ascent.dtype)
            ascent = tf.math.divide_no_nan(ascent, share)
        average = (1 - alpha) * average + newest
        newer = [
            (1 - alpha) * old + tf.convert_to_tensor(new) / scale
            for old, new in zip(older, newer)
        ]
        return ascent, (losses.state, average, newer)

    return gradient
