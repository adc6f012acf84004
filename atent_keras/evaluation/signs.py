"""The signs of a masked gradient, one function each.

Each takes the settings, a `MaskingChecks`, and a `Case`, and returns whether
it saw its sign, `None` where it can't look for it, and the evidence.
"""

import dataclasses
import math

import numpy as np

from atent_keras.attacks.pgd import PGD
from atent_keras.attacks.square import Square
from atent_keras.evaluation.case import percent
from atent_keras.evaluation.intervals import lower_bound
from atent_keras.threat_models import Linf

# Above these, the sign is seen.
LOST_GRADIENTS = 0.05  # share of the images
LEFT_AT_LARGEST_RADIUS = 0.05  # accuracy
GAIN = 0.01  # share of the images, with 95 % confidence
NOISE = 1e-3  # difference of two passes, relative to the largest output

_RADII = 4


def zero_gradients(settings, case):
    if case.gradients is None:
        return True, "the loss has no gradient by the image"
    zero = ~case.gradients.any(axis=1)
    finite = np.isfinite(case.gradients).all(axis=1)
    return float(np.mean(zero | ~finite)) > LOST_GRADIENTS, (
        f"of the loss's gradients at {len(zero)} images {percent(zero)} are "
        f"zero, {percent(~finite)} not finite"
    )


def black_box(settings, case):
    square = Square(case.threat_model, settings.num_queries)
    if not case.gives_logits:
        return None, "Square needs logits"
    if reason := square.inapplicable(case.x.shape):
        return None, f"Square does not apply: {reason}"
    name = f"Square ({settings.num_queries} queries)"
    return case.against_white_box(name, case.fooled_by(square))


def large_radius(settings, case):
    if case.gradients is None:
        return None, "PGD needs a gradient"
    norm = case.threat_model
    if norm.bounds is None:
        return None, "no ball is as large as data without bounds"
    whole = norm.width  # a ball that holds the box
    if not isinstance(norm, Linf):
        whole *= math.sqrt(math.prod(case.x.shape[1:]))
    smallest = min(max(norm.epsilon, whole / 16), whole)
    accuracies = []
    for radius in np.geomspace(smallest, whole, _RADII):
        ball = dataclasses.replace(norm, epsilon=float(radius))
        fooled = case.fooled_by(PGD(ball, num_steps=settings.num_steps))
        accuracies.append((radius, np.mean(~fooled)))
    return bool(accuracies[-1][1] > LEFT_AT_LARGEST_RADIUS), (
        f"accuracy under PGD-{settings.num_steps}: "
        + ", ".join(
            f"{100 * accuracy:.1f} % at {radius:.3g}"
            for radius, accuracy in accuracies
        )
        + f" (the whole box), {len(case.places)} images"
    )


def more_effort(settings, case):
    if case.gradients is None:
        return None, "PGD needs a gradient"
    standing = ~case.comparable(case.attacks)
    gains = {}
    steps = settings.num_steps
    for name, attack in {
        f"{5 * steps} steps": PGD(case.threat_model, num_steps=5 * steps),
        "5 restarts": PGD(case.threat_model, num_steps=steps, restarts=5),
    }.items():
        gains[name] = int((standing & case.fooled_by(attack)).sum())
    most = max(gains.values())
    return lower_bound(most, len(standing), 0.95) > GAIN, (
        f"of {len(standing)} images {standing.sum()} withstood all attacks; of "
        "these, PGD fools "
        + ", ".join(f"{count} with {name}" for name, count in gains.items())
    )


def randomness(settings, case):
    # Not compiled: a graph keeps what Python drew while it was made.
    one, other = (
        np.concatenate(
            [
                np.asarray(case.target.predict(case.x[rows]), "float64")
                for rows in case.batches
            ]
        )
        for _ in range(2)
    )
    difference = np.abs(one - other).max() / max(np.abs(one).max(), 1e-30)
    return bool(difference > NOISE), (
        f"two passes over {len(one)} images differ by up to {difference:.1e} "
        "of the largest output"
    )


def probabilities(settings, case):
    sums = case.outputs.sum(axis=-1)
    return case.gives_probabilities, (
        f"outputs lie in {case.outputs.min():.3g} to {case.outputs.max():.3g} "
        f"and sum to {sums.min():.3g} to {sums.max():.3g}"
    )


def transfer(settings, case):
    if settings.surrogate is None:
        return None, "needs another network as a `surrogate`"
    if not case.gives_logits:
        return None, "APGD, to compare with, needs logits"
    attack = PGD(case.threat_model, num_steps=settings.num_steps)
    fooled = case.fooled_by(attack, settings.surrogate)
    name = f"PGD-{settings.num_steps} on another network"
    return case.against_white_box(name, fooled)


CHECKS = {
    "zero gradients": zero_gradients,
    "black box": black_box,
    "large radius": large_radius,
    "more effort": more_effort,
    "randomness": randomness,
    "probabilities": probabilities,
    "transfer": transfer,
}

# How many attacks a check runs, if it can. APGD, with which two of them
# compare, counts for the first one.
ATTACKS = {
    "black box": 2,
    "large radius": _RADII,
    "more effort": 2,
    "transfer": 1,
}
