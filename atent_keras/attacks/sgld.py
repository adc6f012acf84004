"""Stochastic gradient Langevin dynamics: a cloud of high-loss points."""

import dataclasses

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras.attacks.attack import Attack
from atent_keras.threat_models import Linf
from atent_keras.threat_models import require_number
from atent_keras.types import Loss
from atent_keras.types import Noise
from atent_keras.types import Schedule

PROJECTIONS = ("every_step", "last_step", "none")
DRIFTS = ("steepest", "gradient")


def langevin_step(x_adv, drift, noise, step_size, noise_scale):
    """Takes one step of discretized Langevin dynamics.

    ```python
    x_adv + drift + noise_scale * sqrt(2 * step_size) * noise
    ```

    With `drift = -step_size * grad(U)` and N(0, 1) noise, the chain's
    stationary density is, for small steps, proportional to
    `exp(-U / noise_scale**2)`.

    Args:
        x_adv: Where the chain stands, of any shape.
        drift: The deterministic part of the step, of the same shape.
        noise: N(0, 1) draws of the same shape.
        step_size: Float or scalar tensor, the time that a step takes.
        noise_scale: Float, the square root of the temperature.

    References:
    - Welling & Teh, "Bayesian learning via stochastic gradient Langevin
      dynamics", ICML 2011.
    """
    return x_adv + drift + noise_scale * (2 * step_size) ** 0.5 * noise


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class SGLD(Attack):
    """Samples points of high loss around each image: ATENT's inner loop.

    ```python
    x_adv = x + epsilon * sign(N(0, 1))                             # Linf
    x_adv = project(x, x + (upper - lower) * N(0, 1))               # L2
    for k in range(num_steps):
        g = gradient(x_adv)                   # of each example's own loss
        drift = step_size * ascent_direction(g) + gamma * (x - x_adv)
        x_adv += drift + noise_scale * sqrt(2 * step_size) * N(0, 1)
        x_adv = clip(project(x, x_adv))
    ```

    The drift above is `"steepest"`, that of the authors' code; `"gradient"`
    is the paper's `step_size * (g + gamma * (x - x_adv))`. The start follows
    the authors' code, too; without bounds `upper - lower` counts as 1.

    Args:
        threat_model: Where the chain may go: `Linf` or `L2`.
        step_size: Positive float. With the steepest drift, the length of a
            step in the threat model's norm, in the images' units. Or one of
            `keras.optimizers.schedules`, which gives the size of step `k`,
            from 0: a chain whose steps shrink finds higher losses in as many.
        num_steps: Positive integer. Defaults to 10.
        gamma: Float, at least 0: the precision of the pull towards `x`.
            Defaults to 0.
        noise_scale: Float, at least 0: the square root of the temperature.
            The noise of a step, `noise_scale * sqrt(2 * step_size)`, is in the
            images' units. Defaults to 1e-3.
        projection: `"every_step"`, `"last_step"` or `"none"`: when points are
            brought back into the ball. They are always clipped to the box.
        drift: `"steepest"` or `"gradient"`.
        random_start: Boolean; if `False` the chain starts at `x`.
        loss: What is climbed: a Keras loss (name, config or instance).
            Defaults to `None`: the model's compiled base loss, else
            cross-entropy from logits.

    Raises:
        ValueError, TypeError: If a setting is out of its range; or for
            `gamma > 0` with `Linf` and the steepest drift, which the authors'
            rule would ignore.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=0.3)
    >>> sampler = atent_keras.attacks.SGLD(threat_model, step_size=0.05)
    >>> x_adv = sampler(model, x, y, seed=0)

    References:
    - Jagatap et al., "Adversarially robust learning via entropic
      regularization", Frontiers in AI 2022, https://arxiv.org/abs/2008.12338.
    """

    step_size: float | Schedule
    num_steps: int = 10
    gamma: float = 0.0
    noise_scale: float = 1e-3
    projection: str = "every_step"
    drift: str = "steepest"
    random_start: bool = True
    loss: Loss | None = None

    def __post_init__(self):
        super().__post_init__()
        self._require_step_size()
        self._require_count(num_steps=self.num_steps)
        for name in ("gamma", "noise_scale"):
            value = getattr(self, name)
            require_number(**{name: value})
            object.__setattr__(self, name, float(value))
        for name, valid in (("projection", PROJECTIONS), ("drift", DRIFTS)):
            value = getattr(self, name)
            if value not in valid:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(map(repr, valid))}. "
                    f"Received: {name}={value!r}"
                )
        if (
            self.gamma > 0
            and self.drift == "steepest"
            and isinstance(self.threat_model, Linf)
        ):
            raise ValueError(
                "`gamma` must be 0 with Linf and drift='steepest', whose rule "
                "has no pull towards the clean image; use drift='gradient' or "
                f"L2. Received: gamma={self.gamma}"
            )

    def _default_loss(self, model, y, classes):
        # The chain samples around that loss, whatever it is.
        return base_losses.of_model(model, y)

    def start(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        if not self.random_start:
            return x
        if isinstance(self.threat_model, Linf):
            return x + self.threat_model.epsilon * tf.sign(noise(0))
        # The authors' images lie in 0..1.
        return self.threat_model.project(
            x, x + self.threat_model.width * noise(0)
        )

    def step(
        self,
        x: tf.Tensor,
        x_adv: tf.Tensor,
        gradient: tf.Tensor,
        k: int | tf.Tensor,
        noise: Noise,
    ) -> tf.Tensor:
        step_size = self._step_size_at(k, x.dtype)
        pull = self.gamma * (x - x_adv) if self.gamma else 0.0
        if self.drift == "steepest":
            direction = self.threat_model.ascent_direction(gradient)
            drift = step_size * direction + pull
        else:
            drift = step_size * (gradient + pull)
        # A chain without temperature draws nothing.
        draw = noise(k) if self.noise_scale else 0.0
        x_adv = langevin_step(x_adv, drift, draw, step_size, self.noise_scale)
        projected = self.threat_model.project(x, x_adv)
        if self.projection == "every_step":
            x_adv = projected
        elif self.projection == "last_step":
            x_adv = tf.where(tf.equal(k, self.num_steps), projected, x_adv)
        return self.threat_model.clip(x_adv)
