"""Auto-PGD towards chosen classes, by the difference of logits ratio."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from atent_keras import margins
from atent_keras.attacks.auto_pgd import AutoPGD
from atent_keras.attacks.targets import Targets
from atent_keras.types import Loss


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class APGDT(Targets, AutoPGD):
    """Auto-PGD towards each of the likeliest wrong classes in turn.

    ```python
    z = sorted(logits, reverse=True)
    loss = (logits[target] - logits[y]) / (z[0] - (z[2] + z[3]) / 2)
    ```

    Each target is tried on what still stands, by `APGD`'s rule. With fewer
    than four classes, the loss is the plain difference.

    Args:
        threat_model: `Linf` or `L2`.
        num_steps: Positive integer. Defaults to 100.
        targets: Positive integer, how many wrong classes are tried, all of
            them at most. Defaults to 9.
        restarts: Positive integer, searches for each target. Defaults to 1.
        num_samples: Positive integer, as `APGD`'s. Defaults to 1.

    Raises:
        ValueError, TypeError: If a setting is out of its range.
        UserWarning: In a call, if there are fewer wrong classes than targets.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> x_adv = atent_keras.attacks.APGDT(threat_model)(model, x, y, seed=0)

    References:
    - Croce & Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks", ICML 2020,
      https://arxiv.org/abs/2003.01690.
    """

    num_steps: int = 100
    targets: int = 9
    restarts: int = 1
    num_samples: int = 1
    name = "APGD-T"

    def __post_init__(self):
        super().__post_init__()
        # `Targets` would take `None`, too.
        self._require_count(targets=self.targets)

    def objective(
        self,
        loss: Loss,
        y: tf.Tensor,
        labels: tf.Tensor,
        logits: tf.Tensor,
        number: tf.Tensor,
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        target = self.target(logits, labels, number)
        return lambda logits: margins.targeted_dlr(logits, labels, target)
