"""The attacks of a command line, by name."""

import re

import atent_keras as ak

MAKERS = {
    "AutoAttack": ak.attacks.AutoAttack,
    "AutoAttack-plus": lambda norm: ak.attacks.AutoAttack(norm, "plus"),
    "AutoAttack-rand": lambda norm: ak.attacks.AutoAttack(norm, "rand"),
    "FGSM": ak.attacks.FGSM,
    "APGD": ak.attacks.APGD,
    "APGD-DLR": lambda norm: ak.attacks.APGD(norm, loss=ak.attacks.DLR()),
    "APGD-T": ak.attacks.APGDT,
    "FAB": lambda norm: ak.attacks.FAB(norm, targets=None),
    "FAB-T": ak.attacks.FAB,
    "Square": ak.attacks.Square,
    "DeepFool": ak.attacks.DeepFool,
    "CarliniWagner": ak.attacks.CarliniWagner,
    "UniformNoise": ak.attacks.UniformNoise,
}
NAMES = ", ".join(["PGD-40", "SGLD-40", *MAKERS])


def make(names, threat_model, step_size=None, restarts=1):
    """Returns attacks by name.

    Args:
        names: List of strings; case does not matter.
        threat_model: Of all of them.
        step_size: Float, of PGD and SGLD. Defaults to `None`: 2.5 epsilon /
            steps.
        restarts: Integer, of PGD. Defaults to 1.

    Raises:
        ValueError: If there is no attack of that name, or it refuses the norm
            or a setting.
    """
    known = {name.upper(): name for name in MAKERS}
    made = {}
    for name in names:
        steps = re.fullmatch(r"(PGD|SGLD)-([1-9]\d*)", name, re.IGNORECASE)
        if steps:
            kind, count = steps[1].upper(), int(steps[2])
            length = step_size
            if length is None:
                length = 2.5 * threat_model.epsilon / count
            if kind == "PGD":
                attack = ak.attacks.PGD(
                    threat_model, step_size, count, restarts
                )
            else:
                attack = ak.attacks.SGLD(threat_model, length, count)
            made[f"{kind}-{count}"] = attack
        elif name.upper() in known:
            name = known[name.upper()]
            made[name] = MAKERS[name](threat_model)
        else:
            raise ValueError(
                "--attacks must be PGD or SGLD with a number of steps, such "
                f"as PGD-40, or one of {', '.join(MAKERS)}. Received: {name}"
            )
    return made
