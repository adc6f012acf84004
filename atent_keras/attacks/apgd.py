"""Auto-PGD: projected gradient ascent without anything to tune."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras.attacks.auto_pgd import AutoPGD
from atent_keras.types import Loss


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class APGD(AutoPGD):
    """Climbs with momentum and a step that is halved where it brings nothing.

    ```python
    z = clip(project(x, x_k + step_size * ascent_direction(gradient(x_k))))
    x_next = clip(project(x, x_k + 0.75 * (z - x_k) + 0.25 * (x_k - x_before)))
    if k in checkpoints and (
        rises < 0.75 * steps_since_the_last_checkpoint
        or not halved_then and best_loss == best_loss_then
    ):
        step_size /= 2
        x_next = x_best
    ```

    The step starts at `2 * epsilon`; nothing has to be tuned. An image is
    left alone from the first point on that fools the network.

    Args:
        threat_model: `Linf` or `L2`.
        num_steps: Positive integer. Defaults to 100.
        restarts: Positive integer, the number of searches, each on what still
            stands, from another random point. Defaults to 1.
        num_samples: Positive integer, over how many passes loss and gradient
            are averaged, for networks that draw random numbers. Defaults to 1.
        loss: What is climbed: a Keras loss (name, config or instance), such
            as `atent_keras.attacks.DLR()`. Defaults to `None`: the model's
            compiled base loss, else cross-entropy from logits; the lead of
            the best wrong class if that is a hinge or a distance
            such as `"mse"`.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> x_adv = atent_keras.attacks.APGD(threat_model)(model, x, y, seed=0)

    References:
    - Croce & Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks", ICML 2020,
      https://arxiv.org/abs/2003.01690.
    """

    num_steps: int = 100
    restarts: int = 1
    num_samples: int = 1
    loss: Loss | None = None

    @property
    def name(self) -> str:
        loss = getattr(self.loss, "__name__", type(self.loss).__name__)
        if self.loss is None or loss.endswith("CategoricalCrossentropy"):
            return "APGD-CE"
        return f"APGD-{loss}"

    def rounds(self, classes: int) -> int:
        return self.restarts

    def objective(
        self,
        loss: Loss,
        y: tf.Tensor,
        labels: tf.Tensor,
        logits: tf.Tensor,
        number: tf.Tensor,
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda logits: base_losses.per_example(loss, y, logits)

    def _admit(self, model, x, y):
        y, _, classes = super()._admit(model, x, y)
        loss = self.loss or self._default_loss(model, y, classes)
        network = model, loss, x.shape, self.threat_model.bounds
        y = checks.labels_fit(y, loss, checks.network(*network))
        return y, loss, classes
