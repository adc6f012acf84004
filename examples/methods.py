"""The methods of training, and which settings each takes."""

from typing import NamedTuple

import keras

import atent_keras as ak


class Method(NamedTuple):
    """A robust loss of `atent_keras`, as the command lines offer it.

    Attributes:
        title: Its name in tables.
        loss: Its class.
        settings: Names of what can be set beside `epsilon`: arguments of the
            attack and of the loss.
        needed: Of those, what must be set, with `epsilon`, where the authors
            published nothing.
        fixed: Settings that make the method what it is.
        suffix: What the names of its presets end in.
    """

    title: str
    loss: type
    settings: tuple
    needed: tuple = ("num_steps", "step_size")
    fixed: dict = {}
    suffix: str = ""


STEPS = ("num_steps", "step_size", "last_step_size")
METHODS = {
    "atent": Method(
        "ATENT",
        ak.ATENTRegularizedLoss,
        (
            *STEPS,
            "noise_scale",
            "gamma",
            "projection",
            "drift",
            "random_start",
            "alpha",
            "loss_iterates",
            "chain_training",
        ),
    ),
    "pgd": Method(
        "PGD training",
        ak.AdversarialLoss,
        (*STEPS, "random_start", "attack_training"),
    ),
    "fast": Method(
        "Fast-AT",
        ak.AdversarialLoss,
        ("step_size", "random_start", "attack_training"),
        needed=("step_size",),
        fixed={"num_steps": 1, "attack_training": True},
        suffix="_fast",
    ),
    "trades": Method(
        "TRADES",
        ak.TRADESLoss,
        (*STEPS, "beta", "clean_passes"),
        needed=("num_steps", "step_size", "beta"),
    ),
    "mart": Method(
        "MART",
        ak.MARTLoss,
        (*STEPS, "beta"),
        needed=("num_steps", "step_size", "beta"),
    ),
}
# All that can be set, once each.
SETTINGS = tuple(
    dict.fromkeys(
        name for method in METHODS.values() for name in method.settings
    )
)
# Of them, what an attack takes; the others are the loss's.
ATTACK = ("num_steps", "step_size", "random_start")


def passes(loss):
    """Returns what a training step of a loss costs, in passes of its batch.

    Forward, back to the images or the first layer, and gradients by weights
    count one each, as docs/methods.md does.

    Args:
        loss: One of `METHODS`, perhaps within
            `atent_keras.AdversarialWeightPerturbation`; `None` for plain
            training.

    Returns:
        Integer.
    """
    if loss is None:
        return 3
    perturbed = isinstance(loss, ak.AdversarialWeightPerturbation)
    inner = loss.loss if perturbed else loss
    perturbed = perturbed and loss.gamma > 0
    if isinstance(inner, ak.ATENTRegularizedLoss):
        num_steps = inner.sampler.num_steps
        kept = min(inner.loss_iterates or num_steps, num_steps)
        if perturbed:  # The points are found first, then passed twice.
            return 2 * num_steps + 6 * kept
        return 2 * (num_steps + 1) + kept
    # At the points that were found; TRADES and MART pass the images, too.
    last = 3 if isinstance(inner, ak.AdversarialLoss) else 6
    found = 2 * inner.attack.num_steps
    if isinstance(inner, ak.TRADESLoss):
        found += 1  # what its attack leads away from
        last += 3 * (inner.clean_passes - 1)
    return found + (2 * last if perturbed else last)


def shrinking(first, last, num_steps):
    """Returns the schedule of steps that shrink by the same factor each."""
    return keras.optimizers.schedules.ExponentialDecay(
        first, num_steps - 1, last / first
    )


def make(name, preset, given):
    """Returns a method's loss.

    Args:
        name: One of `METHODS`.
        preset: Data set and norm, such as `"mnist_linf"`: the authors'
            settings, if they published any for that, else the norm alone.
        given: Dictionary of `epsilon`, the method's settings, and other
            arguments of the loss.

    Raises:
        ValueError: If nothing is published, and settings are missing.
    """
    method, given = METHODS[name], dict(given)
    if (last := given.pop("last_step_size", None)) is not None:
        given["step_size"] = shrinking(
            given["step_size"], last, given["num_steps"]
        )
    if preset + method.suffix in method.loss.presets:
        return method.loss.from_preset(preset + method.suffix, **given)
    needed = ("epsilon", *method.needed)
    missing = [f"--{setting}" for setting in needed if setting not in given]
    if missing:
        raise ValueError(
            f"{method.title} has no published settings for --preset={preset}: "
            f"{', '.join(f'--{setting}' for setting in needed)} must be "
            f"given. Received: --method={name}, --preset={preset}, without "
            f"{', '.join(missing)}"
        )
    given = {**method.fixed, **given}
    threat_models = ak.threat_models
    norm = threat_models.L2 if preset.endswith("l2") else threat_models.Linf
    attack = ak.attacks.PGD(
        norm(given.pop("epsilon")),
        **{key: given.pop(key) for key in ATTACK if key in given},
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return method.loss(loss=loss, attack=attack, **given)
