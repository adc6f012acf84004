"""Uniform noise: what any attack has to beat."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from atent_keras.attacks.rounds import RoundAttack
from atent_keras.types import Loss
from atent_keras.types import Noise


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class UniformNoise(RoundAttack):
    """Draws points of the ball at random: a floor under every attack.

    ```python
    x_adv = clip(x + uniform_in_ball())
    ```

    Args:
        threat_model: `Linf` or `L2`.
        tries: Positive integer, the number of draws, each on what still
            stands. Defaults to 1.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> floor = atent_keras.attacks.UniformNoise(threat_model, tries=10)
    >>> x_adv = floor(model, x, y, seed=0)
    """

    tries: int = 1
    uses_gradient = False

    def __post_init__(self):
        super().__post_init__()
        self._require_count(tries=self.tries)

    def rounds(self, classes: int) -> int:
        return self.tries

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
        noise = noise_of(number)(0)
        point = self.threat_model.clip(self.threat_model.random_start(x, noise))
        return point, self.lead(predict, point, y)
