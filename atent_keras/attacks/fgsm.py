"""The fast gradient sign method: one step to the edge of the ball."""

import dataclasses

import keras
import tensorflow as tf

from atent_keras.attacks.attack import Attack
from atent_keras.types import Loss
from atent_keras.types import Noise


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class FGSM(Attack):
    """Takes a single step of length `epsilon` in the steepest direction.

    ```python
    x_adv = clip(x + epsilon * ascent_direction(gradient(x)))
    ```

    It is cheap and weak: a check, not a claim of robustness.

    Args:
        threat_model: `Linf` (the original method) or `L2`.
        loss: What is climbed: a Keras loss (name, config or instance).
            Defaults to `None`: the model's compiled base loss, else
            cross-entropy from logits; the lead of the best wrong class if
            that is a hinge or a distance such as `"mse"`.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> x_adv = atent_keras.attacks.FGSM(threat_model)(model, x, y)

    References:
    - Goodfellow et al., "Explaining and harnessing adversarial examples",
      ICLR 2015, https://arxiv.org/abs/1412.6572.
    """

    loss: Loss | None = None
    num_steps = 1

    def start(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        return x

    def step(
        self,
        x: tf.Tensor,
        x_adv: tf.Tensor,
        gradient: tf.Tensor,
        k: int | tf.Tensor,
        noise: Noise,
    ) -> tf.Tensor:
        direction = self.threat_model.ascent_direction(gradient)
        x_adv += self.threat_model.epsilon * direction
        # Some losses have it start elsewhere than at the image.
        return self.threat_model.clip(self.threat_model.project(x, x_adv))
