"""Projected gradient descent: the field's standard attack."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras.attacks import accuracy
from atent_keras.attacks.attack import Attack
from atent_keras.attacks.loop import while_loop
from atent_keras.threat_models import per_example
from atent_keras.types import Loss
from atent_keras.types import Noise
from atent_keras.types import Schedule

UNCLIPPED = "unclipped"


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class PGD(Attack):
    """Climbs the loss by steepest ascent, projecting after each step.

    ```python
    x_adv = clip(x + uniform_in_ball())
    for k in range(num_steps):
        x_adv += step_size * ascent_direction(gradient(x_adv))
        x_adv = clip(project(x, x_adv))
    ```

    Args:
        threat_model: Where the points may go: `Linf` or `L2`.
        step_size: Float, the length of a step in the threat model's norm, in
            the images' units; or one of `keras.optimizers.schedules`, which
            gives the length of step `k`, from 0. Defaults to `None`: `2.5 *
            epsilon / num_steps`, with which every point of the ball is in
            reach.
        num_steps: Positive integer. Defaults to 20.
        restarts: Positive integer, the number of chains; each example gets
            the one that fools the network, and among those the one with the
            highest loss. Defaults to 1.
        random_start: Boolean; if `False` the chain starts at `x`. Or
            `"unclipped"`: the start may lie outside of the box, as in the
            authors' fast adversarial training on MNIST. Defaults to `True`.
        loss: What is climbed: a Keras loss (name, config or instance), such
            as `atent_keras.attacks.Margin()` or `DLR()`. Defaults to `None`:
            the model's compiled base loss, else cross-entropy from logits;
            the lead of the best wrong class if that is a hinge or a distance
            such as `"mse"`.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> attack = atent_keras.attacks.PGD(threat_model, num_steps=40)
    >>> x_adv = attack(model, x, y, seed=0)

    References:
    - Madry et al., "Towards deep learning models resistant to adversarial
      attacks", ICLR 2018, https://arxiv.org/abs/1706.06083.
    - Wong, Rice & Kolter, "Fast is better than free: revisiting adversarial
      training", ICLR 2020, https://arxiv.org/abs/2001.03994.
    """

    step_size: float | Schedule | None = None
    num_steps: int = 20
    restarts: int = 1
    random_start: bool | str = True
    loss: Loss | None = None

    def __post_init__(self):
        super().__post_init__()
        self._require_count(num_steps=self.num_steps, restarts=self.restarts)
        if self.step_size is not None:
            self._require_step_size()
        valid = isinstance(self.random_start, bool)
        if not valid and self.random_start != UNCLIPPED:
            raise ValueError(
                f"`random_start` must be True, False or {UNCLIPPED!r}. "
                f"Received: random_start={self.random_start!r}"
            )

    def start(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        if not self.random_start:
            return x
        start = self.threat_model.random_start(x, noise(0))
        if self.random_start == UNCLIPPED:
            return start
        return self.threat_model.clip(start)

    def step(
        self,
        x: tf.Tensor,
        x_adv: tf.Tensor,
        gradient: tf.Tensor,
        k: int | tf.Tensor,
        noise: Noise,
    ) -> tf.Tensor:
        step_size = self._step_size_at(k, x.dtype)
        if step_size is None:
            step_size = 2.5 * self.threat_model.epsilon / self.num_steps
        x_adv += step_size * self.threat_model.ascent_direction(gradient)
        return self.threat_model.clip(self.threat_model.project(x, x_adv))

    def run(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        loss: Loss,
        x: tf.Tensor,
        y: tf.Tensor,
        noise_of: Callable[[Any], Noise],
    ) -> tf.Tensor:
        best = super().run(predict, loss, x, y, noise_of)
        if self.restarts == 1:
            return best

        def judge(x_adv):
            y_pred = predict(x_adv)
            fooled = ~accuracy.is_correct(y, y_pred, loss)
            if base_losses.is_distance(loss):
                # Of a regression there is nothing but the loss.
                fooled &= checks.name_classes(y, y_pred.shape[-1])
            return fooled, base_losses.per_example(loss, y, y_pred)

        def body(restart, best, best_fooled, best_losses):
            x_adv = super(PGD, self).run(
                predict, loss, x, y, lambda _: noise_of(restart)
            )
            fooled, losses = judge(x_adv)
            better = (fooled & ~best_fooled) | (
                (fooled == best_fooled) & (losses > best_losses)
            )
            return (
                restart + 1,
                tf.where(per_example(better, x), x_adv, best),
                fooled | best_fooled,
                tf.where(better, losses, best_losses),
            )

        _, best, _, _ = while_loop(
            lambda restart, *_: restart < self.restarts,
            body,
            (tf.constant(1), best, *judge(best)),
        )
        return best
