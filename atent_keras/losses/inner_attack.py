"""Which attacks can find the points of a training step."""

from atent_keras.attacks.attack import Attack


def steps_by_gradient(attack):
    """Whether an attack is a start and steps along a gradient, no more."""
    return (
        isinstance(attack, Attack)
        and attack.uses_gradient
        and type(attack).start is not Attack.start
    )


def require_single(attack):
    """Checks that an attack can find the points of a training step.

    Raises:
        TypeError: If it is no attack of `atent_keras.attacks`.
        ValueError: If it needs no gradient, or has restarts.
    """
    if not isinstance(attack, Attack):
        raise TypeError(
            "`attack` must be an `atent_keras.attacks` attack. Received: "
            f"attack={attack!r}"
        )
    if not attack.uses_gradient:
        raise ValueError(
            "`attack` must follow a gradient, since a training step can't "
            f"afford queries. Received: attack={attack!r}"
        )
    if not steps_by_gradient(attack) and type(attack).run is Attack.run:
        raise ValueError(
            "`attack` must be a single attack, which runs within a training "
            f"step. Received: attack={attack!r}"
        )
    if getattr(attack, "restarts", 1) != 1:
        raise ValueError(
            "`attack` must have restarts=1: a training step takes the points "
            f"as they come. Received: attack={attack!r}"
        )
