"""Chains of points that climb: alone, or teaching on their way."""

import tensorflow as tf

from atent_keras import base_losses
from atent_keras.attacks import gradients
from atent_keras.losses.reduction import share_of_replica
from atent_keras.losses.step import Step
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

        return gradients.at(predict, x_adv, losses, training)[0], state

    return attack.climb(x, start, gradient, noise, state, steps, network.unroll)


def climb_and_average(
    attack, network, state, batch, start, loss, alpha, noise, steps, classes
):
    """Climbs a robust loss's own values, and averages them on the way.

    ```python
    average = (1 - alpha) * average + alpha * loss(f(x_adv), y)
    ```

    One tape over the point and the weights gives both gradients of a pass, so
    that nothing has to be passed twice, and memory does not grow with the
    number of steps. From the last point there is nowhere to climb, but it is
    treated like the others: that costs the way back through the first layer,
    while a pass of another kind would have to be compiled, too.

    Args:
        attack: An attack that steps along a gradient.
        network: A `Network`, run in training mode.
        state: Its state.
        batch: The `Batch`.
        start: The first point, of the shape of the images.
        loss: A `RobustLoss`.
        alpha: Float in (0, 1], the weight of the newest point.
        noise: Function from `k` to N(0, 1) draws in the shape of the images.
        steps: `range` of the steps: one from each point.
        classes: Integer, the number of the network's outputs.

    Returns:
        A `Step`, with regularization losses at the last point, and the new
        state.
    """
    weights, scale = network.weights, network.loss_scale
    weighted = batch.sample_weight is not None
    unconnected = set()

    def gradient(x_adv, carry):
        left, state, average = carry
        with tf.GradientTape(
            persistent=weighted, watch_accessed_variables=False
        ) as tape:
            tape.watch([x_adv, *weights])
            losses = loss.losses(network, state, x_adv, batch)
            newest = alpha * loss.mean(losses.values, batch)
            # The weights' own penalties count once.
            last = tf.cast(left == 1, newest.dtype)
            newest += last * share_of_replica(losses.penalties, newest.dtype)
            scaled = tf.cast(scale, newest.dtype) * newest
            # Not by the optimizer's scale, which goes as high as the mean lets
            # it: what an example climbs is no share of a mean.
            scaled_values = gradients.LARGEST * losses.values
        if weighted:
            # Two passes back, since an example of weight zero climbs too.
            ascent = base_losses.input_gradient(tape, scaled_values, x_adv)
            ascent /= gradients.LARGEST
            newer = tape.gradient(scaled, weights)
        else:
            # One pass back serves point and weights: each example has the
            # same share in the mean, by which its ascent is divided.
            ascent, share, *newer = tape.gradient(
                scaled, [x_adv, losses.values, *weights]
            )
            share = tf.cast(per_example(share, x_adv), x_adv.dtype)
            ascent = tf.math.divide_no_nan(ascent, share)
        ascent = network.without_overflow(ascent)
        unconnected.update(i for i, new in enumerate(newer) if new is None)
        newer = [
            old
            if new is None
            else (1 - alpha) * old + tf.convert_to_tensor(new) / scale
            for old, new in zip(average.gradients, newer)
        ]
        y_pred = tf.ensure_shape(losses.y_pred, average.y_pred.shape)
        newest += (1 - alpha) * average.loss
        return ascent, (
            left - 1,
            losses.state,
            Step(newest, newer, x_adv, y_pred),
        )

    size = start.shape[0] or tf.shape(start)[0]
    nothing = Step(
        loss=tf.zeros((), loss.dtype),
        gradients=[tf.zeros_like(weight) for weight in weights],
        x_adv=start,
        y_pred=tf.zeros((size, classes), loss.dtype),
    )
    _, (_, state, step) = attack.climb(
        batch.x,
        start,
        gradient,
        noise,
        (tf.constant(len(steps)), state, nothing),
        steps,
        network.unroll,
    )
    # A weight that nothing depends on has no gradient, as in Keras.
    connected = [
        None if i in unconnected else one
        for i, one in enumerate(step.gradients)
    ]
    return step._replace(gradients=connected), state
