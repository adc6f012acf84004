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


METHODS = {
    "atent": Method(
        "ATENT",
        ak.ATENTRegularizedLoss,
        (
            "num_steps",
            "step_size",
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
        ("num_steps", "step_size", "random_start", "attack_training"),
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
        ("num_steps", "step_size", "beta", "clean_passes"),
        needed=("num_steps", "step_size", "beta"),
    ),
    "mart": Method(
        "MART",
        ak.MARTLoss,
        ("num_steps", "step_size", "beta"),
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
    method = METHODS[name]
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
