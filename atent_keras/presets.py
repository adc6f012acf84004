"""The authors' hyperparameters, by name.

Each entry holds the threat model and the settings of the sampler and the
loss. Steps that the authors give in units of the radius are factors of
`epsilon` here, so that they follow an overridden radius. All of them are for
images in 0..1; for other bounds they are converted, and the chain is the same
in other units. Networks and
optimizers belong to the training script:

| preset | network | optimizer |
|---|---|---|
| `mnist_linf` | SmallCNN | SGD 0.01, momentum 0.9, batch 128, 30 epochs |
| `mnist_l2` | LeNet5 | SGD 0.01, momentum 0.9, batch 50, 30 epochs |
| `cifar10_linf` | WRN-34-10 | SGD 0.1, momentum 0.9, coupled weight decay 5e-4,
  batch 128, 76 epochs, rate x 0.1 at 75 |
| `cifar10_l2` | ResNet-18 or ResNet-20 | SGD 0.1, momentum 0.9, coupled
  weight decay 1e-4, batch 256, 84 epochs, rate x 0.1 at 50 |

References:
- Jagatap et al., "Adversarially robust learning via entropic regularization",
  Frontiers in AI 2022, https://arxiv.org/abs/2008.12338, and its code.
"""

import math

from atent_keras.attacks import SGLD
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


def sampler(name, **overrides):
    """Returns the SGLD sampler of a preset.

    Args:
        name: One of `PRESETS`.
        **overrides: `epsilon`, `bounds`, or any argument of `SGLD` but the
            threat model. What has a unit is in that of the bounds.

    Raises:
        ValueError: If there is no such preset or setting.
    """
    if name not in PRESETS:
        raise ValueError(
            f"The preset must be one of {', '.join(map(repr, PRESETS))}. "
            f"Received: {name!r}"
        )
    preset, settings = dict(PRESETS[name]), dict(overrides)
    norm, epsilon = preset.pop("norm"), preset.pop("epsilon")
    bounds = settings.pop("bounds", (0.0, 1.0))
    width = norm(0.0, bounds).width
    threat_model = norm(settings.pop("epsilon", epsilon * width), bounds)
    per_epsilon = preset.pop("step_size_per_epsilon", None)
    if per_epsilon is not None:
        preset["step_size"] = per_epsilon * threat_model.epsilon / width
    drift = settings.get("drift", "steepest")
    settings = {**_converted(preset, drift, width), **settings}
    try:
        return SGLD(threat_model, **settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(
            "Overrides of a preset must be `epsilon`, `bounds` or settings of "
            f"the sampler or the loss. Received: {', '.join(overrides)}"
        ) from error


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
    return {
        **preset,
        "step_size": preset["step_size"] * step_size,
        "noise_scale": preset["noise_scale"] * noise_scale,
        "gamma": preset["gamma"] * gamma,
    }
