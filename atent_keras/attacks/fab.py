"""The fast adaptive boundary attack: along the boundary, towards the image."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from atent_keras import margins
from atent_keras.attacks import boundary
from atent_keras.attacks.loop import while_loop
from atent_keras.attacks.rounds import RoundAttack
from atent_keras.attacks.targets import Targets
from atent_keras.threat_models import per_example
from atent_keras.types import Loss
from atent_keras.types import Noise

ETA = 1.05  # how far beyond the boundary a step aims
ALPHA_MAX = 0.1  # the largest pull towards the clean image
BETA = 0.9  # the way back towards it that is left after each success
CLASSES = 10  # that the untargeted form looks at, at most


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class FAB(Targets, RoundAttack):
    """Looks for the nearest point across the network's boundary.

    ```python
    plane = linearized_boundary(x_k)
    p, q = projection(x_k, plane) - x_k, projection(x, plane) - x
    alpha = min(norm(p) / (norm(p) + norm(q)), 0.1)
    x_k = clip((1 - alpha) * (x_k + 1.05 * p) + alpha * (x + 1.05 * q))
    if fools(x_k):
        nearest = min(nearest, x_k, key=distance_to_x)
        x_k = x + 0.9 * (x_k - x)
    ```

    The projections are onto the plane within the box, exactly. The radius
    plays no part in the search: the nearest point found is kept where it lies
    in the ball, and is else drawn back to the ball's edge. There is no final
    search on the segment to `x`, as there is none in AutoAttack.

    Args:
        threat_model: `Linf` or `L2`.
        num_steps: Positive integer. Defaults to 100.
        targets: Positive integer, how many wrong classes are tried, likeliest
            first, each on what still stands; all of them at most. `None`
            heads for the nearest of the 10 likeliest at every step, for as
            many passes back. Defaults to 9.
        restarts: Positive integer, searches (for each target); the first
            starts at `x`, others at random within half the radius. Defaults
            to 1.

    Raises:
        ValueError, TypeError: If a setting is out of its range.
        UserWarning: In a call, if there are fewer wrong classes than targets.

    Example:

    >>> threat_model = atent_keras.threat_models.L2(epsilon=0.5)
    >>> x_adv = atent_keras.attacks.FAB(threat_model)(model, x, y, seed=0)

    References:
    - Croce & Hein, "Minimally distorted adversarial examples with a fast
      adaptive boundary attack", ICML 2020, https://arxiv.org/abs/1907.02044.
    """

    num_steps: int = 100
    targets: int | None = 9
    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        self._require_count(num_steps=self.num_steps, restarts=self.restarts)

    @property
    def name(self) -> str:
        return "FAB" if self.targets is None else "FAB-T"

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
        logits = predict(x)
        labels = margins.class_labels(y, logits.shape[-1])
        plane = self._planes(predict, logits, labels, number)

        def body(k, point, nearest, distance):
            point = self.step(x, point, *plane(point))
            fooled = self.lead(predict, point, y) < 0
            length = model.norm(point - x)
            nearer = fooled & (length < distance)
            nearest = tf.where(per_example(nearer, x), point, nearest)
            back = x + BETA * (point - x)
            point = tf.where(per_example(fooled, x), back, point)
            return k + 1, point, nearest, tf.where(nearer, length, distance)

        random = model.random_start(x, noise_of(number)(0))
        again = tf.cast(number % self.restarts > 0, x.dtype)
        start = model.clip(x + again * (random - x) / 2)
        # An image that is misclassified as it is needs no change.
        distance = tf.where(
            self.lead(predict, x, y) < 0, tf.zeros((), x.dtype), x.dtype.max
        )
        _, _, nearest, _ = while_loop(
            lambda k, *_: k < self.num_steps,
            body,
            (tf.constant(0), start, x, distance),
        )
        nearest = model.clip(model.project(x, nearest))
        return nearest, self.lead(predict, nearest, y)

    def step(
        self, x: tf.Tensor, point: tf.Tensor, gap: tf.Tensor, normal: tf.Tensor
    ) -> tf.Tensor:
        """Returns the next point, given a boundary linearized at `point`."""
        model = self.threat_model
        here = model.reach(point, normal, -gap)
        there = model.reach(x, normal, boundary.inner(normal, point - x) - gap)
        least = 1e-8 * model.width
        lengths = [tf.maximum(model.norm(p), least) for p in (here, there)]
        alpha = tf.minimum(lengths[0] / (lengths[0] + lengths[1]), ALPHA_MAX)
        alpha = per_example(alpha, x)
        ahead, beside = point + ETA * here, x + ETA * there
        return model.clip((1 - alpha) * ahead + alpha * beside)

    def _planes(self, predict, logits, labels, number):
        """Returns the function that linearizes the boundary at a point."""
        if self.targets is None:
            return lambda point: boundary.nearest(
                predict, self.threat_model, point, labels, CLASSES
            )
        target = self.target(logits, labels, number)
        return lambda point: boundary.towards(predict, point, labels, target)
