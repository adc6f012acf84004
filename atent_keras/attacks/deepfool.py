"""DeepFool: straight to the nearest linearized boundary, again and again."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from atent_keras import margins
from atent_keras.attacks import boundary
from atent_keras.attacks.loop import while_loop
from atent_keras.attacks.rounds import RoundAttack
from atent_keras.threat_models import per_example
from atent_keras.threat_models import require_number
from atent_keras.types import Loss
from atent_keras.types import Noise

CLASSES = 10  # that a step looks at, at most, the likeliest first


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class DeepFool(RoundAttack):
    """Steps onto the nearest linearized boundary until the class changes.

    ```python
    while not fools(x_k):
        gap, normal = nearest_linearized_boundary(x_k)
        step = smallest p with sum(normal * p) == -gap, within the box
        perturbation = clip(x + perturbation + step) - x
        x_k = clip(x + (1 + overshoot) * perturbation)
    ```

    The search knows no radius: what it finds is kept where it lies in the
    ball, and is else drawn back to the ball's edge. Its perturbations are
    small, not the smallest; `FAB` comes nearer. The paper knows no box, in
    which its own steps stall before the boundary where pixels are at their
    bounds; away from the bounds, the steps are the paper's.

    Args:
        threat_model: `L2` (the original method) or `Linf` (its form for that
            norm, in the same paper).
        num_steps: Positive integer, at most so many. Defaults to 50.
        overshoot: Float, at least 0, how far beyond the boundary to go, as a
            share of the way. Defaults to 0.02.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.L2(epsilon=0.5)
    >>> x_adv = atent_keras.attacks.DeepFool(threat_model)(model, x, y)

    References:
    - Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to fool
      deep neural networks", CVPR 2016, https://arxiv.org/abs/1511.04599.
    """

    num_steps: int = 50
    overshoot: float = 0.02

    def __post_init__(self):
        super().__post_init__()
        self._require_count(num_steps=self.num_steps)
        require_number(overshoot=self.overshoot)
        object.__setattr__(self, "overshoot", float(self.overshoot))

    def round(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        loss: Loss,
        x: tf.Tensor,
        y: tf.Tensor,
        x_adv: tf.Tensor,
        margin: tf.Tensor,
        number: tf.Tensor,
        noise_of: Callable[[Any], Noise],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        model = self.threat_model
        labels = margins.class_labels(y, predict(x).shape[-1])

        def body(k, perturbation, point, fooled):
            gap, normal = boundary.nearest(
                predict, model, point, labels, CLASSES
            )
            step = model.reach(point, normal, -gap)
            step = tf.where(per_example(fooled, x), tf.zeros_like(x), step)
            # On the boundary itself, where float16 may well land, the step is
            # nothing, and the class does not change.
            stuck = per_example((gap == 0) & ~fooled, x)
            onward = tf.where(stuck, self.overshoot * perturbation, step)
            # What the box takes away is not owed.
            perturbation = model.clip(x + perturbation + onward) - x
            point = model.clip(x + (1 + self.overshoot) * perturbation)
            return k + 1, perturbation, point, self.lead(predict, point, y) < 0

        _, _, point, _ = while_loop(
            lambda k, _, point, fooled: (
                (k < self.num_steps) & ~tf.reduce_all(fooled)
            ),
            body,
            (
                tf.constant(0),
                tf.zeros_like(x),
                x,
                self.lead(predict, x, y) < 0,
            ),
        )
        point = model.clip(model.project(x, point))
        return point, self.lead(predict, point, y)
