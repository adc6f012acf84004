"""The authors' hyperparameters, by name, for each method.

Each entry holds the threat model and the settings of the attack and the loss.
Steps that the authors give in units of the radius are factors of `epsilon`
here, so that they follow an overridden radius. Networks and optimizers belong
to the training script; these are the authors', with SGD's momentum 0.9 and
coupled weight decay (wd):

- ATENT: `mnist_linf`: SmallCNN, SGD 0.01, batch 128, 30 epochs. `mnist_l2`:
  LeNet5, SGD 0.01, batch 50, 30 epochs. `cifar10_linf`: WRN-34-10, SGD 0.1, wd
  5e-4, batch 128, 76 epochs, rate x 0.1 at 75. `cifar10_l2`: ResNet-18 or
  ResNet-20, SGD 0.1, wd 1e-4, batch 256, 84 epochs, rate x 0.1 at 50.
- Adversarial: `mnist_linf`: a CNN of two convolutions, Adam 1e-4 on the sum of
  the losses, batch 50, 100,000 steps. `cifar10_linf`, `cifar10_l2`:
  PreActResNet-18, SGD 0.1, wd 5e-4, batch 128, 200 epochs, rate x 0.1 at 100
  and 150. `mnist_linf_fast`: a small CNN, Adam, batch 100, 10 epochs, rate 0 to
  5e-3 (at 40 %) to 0. `cifar10_linf_fast`: PreActResNet-18, SGD, wd 5e-4, batch
  128, 15 epochs, rate 0 to 0.2 to 0.
- Of the next, the first epoch is 1, and a rate drops as an epoch begins.
- TRADES: `mnist_linf`: SmallCNN, SGD 0.01, batch 128, 100 epochs, rate x 0.1 at
  55, 75, 90. `cifar10_linf`: WRN-34-10, SGD 0.1, wd 2e-4, batch 128, 76 epochs,
  rate x 0.1 at 75.
- MART: `cifar10_linf`: ResNet-18, SGD 0.01, wd 3.5e-3, batch 128, 120 epochs,
  rate x 0.1 at 75, 90, 100.
- Weight perturbation: `cifar10_linf`, `cifar10_l2`, of adversarial training and
  trained as that. `cifar10_linf_trades`: WRN-34-10, SGD 0.1, wd 5e-4, batch
  128, 200 epochs, rate x 0.1 at 100 and 150, perturbed from epoch 10 on.

References:
- Jagatap et al., "Adversarially robust learning via entropic regularization",
  Frontiers in AI 2022, https://arxiv.org/abs/2008.12338, and its code.
- Madry et al., "Towards deep learning models resistant to adversarial
  attacks", ICLR 2018, https://arxiv.org/abs/1706.06083, and its code.
- Rice et al., "Overfitting in adversarially robust deep learning", ICML 2020,
  https://arxiv.org/abs/2002.11569; as in the code of Wu et al.
- Wong et al., "Fast is better than free: revisiting adversarial training",
  ICLR 2020, https://arxiv.org/abs/2001.03994, and its code.
- Zhang et al., "Theoretically principled trade-off between robustness and
  accuracy", ICML 2019, https://arxiv.org/abs/1901.08573, and its code.
- Wang et al., "Improving adversarial robustness requires revisiting
  misclassified examples", ICLR 2020, and its code.
- Wu et al., "Adversarial weight perturbation helps robust generalization",
  NeurIPS 2020, https://arxiv.org/abs/2004.05884, and its code.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from atent_keras.attacks.attack import Attack
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf

PRESETS = {
    "mnist_linf": {
        "norm": Linf,
        "epsilon": 0.3,
        "num_steps": 80,
        "step_size": 0.01,
        "noise_scale": 1e-4,
        "gamma": 0.0,
        "projection": "every_step",
    },
    "mnist_l2": {
        "norm": L2,
        "epsilon": 2.0,
        "num_steps": 40,
        "step_size_per_epsilon": 2.5 / 40,
        "noise_scale": 1e-2,
        "gamma": 0.05,
        "projection": "every_step",
    },
    "cifar10_linf": {
        "norm": Linf,
        "epsilon": 0.031,
        "num_steps": 10,
        "step_size": 0.007,
        "noise_scale": 1e-3,
        "gamma": 0.0,
        "projection": "last_step",
    },
    "cifar10_l2": {
        "norm": L2,
        "epsilon": 0.435,
        "num_steps": 20,
        "step_size_per_epsilon": 0.5 / 20,
        "noise_scale": 0.577,
        "gamma": 0.05,
        "projection": "none",
    },
}

ADVERSARIAL = {
    "mnist_linf": {
        "norm": Linf,
        "epsilon": 0.3,
        "num_steps": 40,
        "step_size": 0.01,
    },
    "cifar10_linf": {
        "norm": Linf,
        "epsilon": 8 / 255,
        "num_steps": 10,
        "step_size": 2 / 255,
        "attack_training": True,
    },
    "cifar10_l2": {
        "norm": L2,
        "epsilon": 128 / 255,
        "num_steps": 10,
        "step_size": 15 / 255,
        "attack_training": True,
    },
    "mnist_linf_fast": {
        "norm": Linf,
        "epsilon": 0.3,
        "num_steps": 1,
        "step_size_per_epsilon": 1.25,
        "random_start": "unclipped",
        "attack_training": True,
    },
    "cifar10_linf_fast": {
        "norm": Linf,
        "epsilon": 8 / 255,
        "num_steps": 1,
        "step_size_per_epsilon": 1.25,
        "attack_training": True,
    },
}

TRADES = {
    "mnist_linf": {
        "norm": Linf,
        "epsilon": 0.3,
        "num_steps": 40,
        "step_size": 0.01,
        "beta": 1.0,
    },
    "cifar10_linf": {
        "norm": Linf,
        "epsilon": 0.031,
        "num_steps": 10,
        "step_size": 0.007,
        "beta": 6.0,
    },
}

MART = {
    "cifar10_linf": {
        "norm": Linf,
        "epsilon": 0.031,
        "num_steps": 10,
        "step_size": 0.007,
        "beta": 5.0,
    },
}

# What is perturbed, by how much, and its settings.
PERTURBED = {
    "cifar10_linf": ("adversarial", 0.01, ADVERSARIAL["cifar10_linf"]),
    "cifar10_l2": ("adversarial", 0.01, ADVERSARIAL["cifar10_l2"]),
    "cifar10_linf_trades": (
        "trades",
        0.005,
        {
            "norm": Linf,
            "epsilon": 8 / 255,
            "num_steps": 10,
            "step_size": 2 / 255,
            "beta": 6.0,
        },
    ),
}


def require(presets: Mapping[str, Any], name: str) -> None:
    """Checks that a preset is there.

    Raises:
        ValueError: If it is not.
    """
    if not presets:
        raise ValueError(
            "A loss must have published settings to have presets. Received: "
            f"{name!r} of a loss without any"
        )
    if name not in presets:
        raise ValueError(
            f"The preset must be one of {', '.join(map(repr, presets))}, the "
            f"published ones. Received: {name!r}"
        )


def resolve(
    presets: Mapping[str, Any],
    name: str,
    kind: type,
    overrides: Mapping[str, Any],
) -> tuple[Attack, dict[str, Any]]:
    """Returns the attack of a preset, and the settings of its loss.

    Args:
        presets: Dictionary of presets, by name.
        name: One of them.
        kind: The class of the attack.
        overrides: Dictionary of `epsilon`, `bounds`, arguments of the attack
            but the threat model, and of the loss. What has a unit is in that
            of the bounds.

    Raises:
        ValueError: If there is no such preset, the attack is overridden as a
            whole, or there are no bounds, whose width the settings follow.
    """
    require(presets, name)
    whole = {"attack", "sampler", "threat_model"} & overrides.keys()
    if whole:
        raise ValueError(
            "A preset's attack must be overridden by its settings, such as "
            "`epsilon`, `bounds`, `step_size` and `num_steps`. Received: "
            f"{', '.join(sorted(whole))}"
        )
    preset, settings = dict(presets[name]), dict(overrides)
    norm, epsilon = preset.pop("norm"), preset.pop("epsilon")
    bounds = settings.pop("bounds", (0.0, 1.0))
    if bounds is None:
        raise ValueError(
            "A preset's `bounds` must be two numbers, since its settings are "
            "those of images and follow the bounds' width. Received: "
            "bounds=None. Give the loss an attack of your own, under a threat "
            f"model `{norm.__name__}(epsilon, bounds=None)`"
        )
    width = norm(0.0, bounds).width
    threat_model = norm(settings.pop("epsilon", epsilon * width), bounds)
    per_epsilon = preset.pop("step_size_per_epsilon", None)
    if per_epsilon is not None:
        # In a ball of radius 0 a step has no unit.
        radius = threat_model.epsilon or epsilon * width
        preset["step_size"] = per_epsilon * radius / width
    names = {field.name for field in dataclasses.fields(kind)} - {"loss"}
    own = {key: preset.pop(key) for key in [*preset] if key not in names}
    drift = settings.get("drift", "steepest")
    settings = {**_converted(preset, drift, width), **own, **settings}
    of_attack = {key: settings.pop(key) for key in names & settings.keys()}
    return kind(threat_model, **of_attack), settings


def _converted(preset, drift, width):
    """Returns a preset's settings for bounds that are `width` apart.

    Every point, difference of points and noise, `noise_scale * sqrt(2 *
    step_size)`, grows by `width`, and every gradient shrinks by it. The
    steepest drift knows only the gradient's direction, and its pull is not
    multiplied by the step.
    """
    step_size, noise_scale, gamma = width, math.sqrt(width), 1.0
    if drift == "gradient":
        step_size, noise_scale, gamma = width**2, 1.0, width**-2
    units = {
        "step_size": step_size,
        "noise_scale": noise_scale,
        "gamma": gamma,
    }
    return {
        key: value * units[key] if key in units else value
        for key, value in preset.items()
    }
