"""MART: adversarial training that minds what is misclassified already."""

import keras
import tensorflow as tf

from atent_keras import margins
from atent_keras import presets
from atent_keras.attacks.attack import Attack
from atent_keras.losses.divergence_loss import DivergenceLoss
from atent_keras.losses.network import Network
from atent_keras.losses.step import Batch
from atent_keras.losses.step import Losses
from atent_keras.types import Loss
from atent_keras.types import Schedule
from atent_keras.types import State


@keras.saving.register_keras_serializable("atent_keras")
class MARTLoss(DivergenceLoss):
    """Boosted cross-entropy at the points, and a divergence by confidence.

    ```python
    x_adv = climb(lambda x_adv: cross_entropy(f(x_adv), y))  # inference mode
    q, p = softmax(f(x)), softmax(f(x_adv))
    boosted = cross_entropy(f(x_adv), y) - log(1 - max(p[k] for k != y))
    boosted + beta * (1 - q[y]) * KL(q || p)
    ```

    The less sure the network is of the clean image, the more the divergence
    counts. The gradient flows through all of it. The attack's own loss, and
    its start, are replaced: it climbs the cross-entropy from `x + 0.001 * N(0,
    1)`, unclipped (a start that a subclass of the attack defines is kept).

    Args:
        attack: How the cross-entropy is climbed: a `PGD`, `FGSM` or `SGLD` of
            `atent_keras.attacks`.
        beta: Float, at least 0, the weight of the divergence. Defaults to 5.
        loss: The cross-entropy, from logits: of integer labels (`None`, the
            default) or of one-hot ones.
        radius_schedule: A schedule of `keras.optimizers.schedules`: its value
            at the optimizer's iteration, clipped to [0, 1], multiplies
            `epsilon` and the step size. Defaults to `None`: the whole radius.
        reduction: Keras's reduction over the batch. Defaults to
            `"sum_over_batch_size"`.
        name: Optional name of the loss.
        dtype: The dtype of the loss's own computations, float32 or float64.
            Defaults to `None`, `keras.config.floatx()`, in which a Keras
            loss within it always is.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> attack = atent_keras.attacks.PGD(threat_model, 2 / 255, num_steps=10)
    >>> model.compile("adam", loss=atent_keras.MARTLoss(attack, beta=5.0))

    References:
    - Wang et al., "Improving adversarial robustness requires revisiting
      misclassified examples", ICLR 2020,
      https://openreview.net/forum?id=rklOg6EFwS.
    """

    presets = presets.MART

    def __init__(
        self,
        attack: Attack,
        beta: float = 5.0,
        loss: Loss | None = None,
        radius_schedule: Schedule | None = None,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            attack, beta, loss, radius_schedule, reduction, name, dtype
        )

    def points(
        self,
        network: Network,
        state: State,
        batch: Batch,
        attack: Attack,
        seed: tf.Tensor,
    ) -> tuple[list[tf.Tensor], State]:
        return self._climb(
            network,
            state,
            batch,
            attack,
            seed,
            lambda y_pred: self.call(batch.y, y_pred),
        )

    def losses(
        self, network: Network, state: State, x_adv: tf.Tensor, batch: Batch
    ) -> Losses:
        clean = network(batch.x, state, training=True)
        adversarial = network(x_adv, clean.state, training=True)
        y_pred = adversarial.y_pred
        labels = margins.class_labels(batch.y, y_pred.shape[-1])
        q, p = tf.nn.softmax(clean.y_pred), tf.nn.softmax(y_pred)
        _, best_other = margins.own_and_best_other(p, labels)
        own, _ = margins.own_and_best_other(q, labels)
        # The authors' constants, which keep the logarithms finite.
        boosted = self.call(batch.y, y_pred)
        boosted -= tf.math.log(1.0001 - best_other + 1e-12)
        divergence = tf.reduce_sum(
            q * (tf.nn.log_softmax(clean.y_pred) - tf.math.log(p + 1e-12)),
            axis=-1,
        )
        values = boosted + self.beta * (1.0000001 - own) * divergence
        state = adversarial.state
        return Losses(values, y_pred, state, clean.penalties)
