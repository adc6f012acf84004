"""A radius that changes in training, by a share of the whole one."""

import keras
import tensorflow as tf


def checked(schedule):
    """Returns a schedule of shares of the radius, or `None`.

    Raises:
        TypeError: If it is no schedule.
        ValueError: If it starts outside of [0, 1].
    """
    if schedule is None:
        return None
    kind = keras.optimizers.schedules.LearningRateSchedule
    if not isinstance(schedule, kind):
        raise TypeError(
            "`radius_schedule` must be one of keras.optimizers.schedules. "
            f"Received: radius_schedule={schedule!r}"
        )
    with tf.init_scope():
        first = float(schedule(0))
    if not 0 <= first <= 1:
        raise ValueError(
            "`radius_schedule` must give a share of the radius, from 0 to 1. "
            f"Received: {first:g} at iteration 0"
        )
    return schedule


def at_iteration(schedule, optimizer, attack):
    """Returns an attack, at the radius of the step that is to be made."""
    if schedule is None or optimizer is None:
        return attack
    iteration = tf.convert_to_tensor(optimizer.iterations)
    share = tf.cast(schedule(iteration), keras.config.floatx())
    return attack.scaled(tf.clip_by_value(share, 0, 1))
