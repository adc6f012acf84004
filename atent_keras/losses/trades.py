"""TRADES: accuracy on clean images, traded for answers that do not move."""

import numbers
import operator

import keras
import tensorflow as tf

from atent_keras import presets
from atent_keras.attacks.attack import Attack
from atent_keras.attacks.attack import replaced
from atent_keras.losses.divergence_loss import DivergenceLoss
from atent_keras.losses.network import Network
from atent_keras.losses.step import Batch
from atent_keras.losses.step import Losses
from atent_keras.threat_models import L2
from atent_keras.types import Loss
from atent_keras.types import Schedule
from atent_keras.types import State


@keras.saving.register_keras_serializable("atent_keras")
class TRADESLoss(DivergenceLoss):
    """The clean cross-entropy, and how far answers move in the ball.

    ```python
    x_adv = climb(lambda x_adv: KL(f(x) || f(x_adv)))    # inference mode
    cross_entropy(f(x), y) + beta * KL(f(x) || f(x_adv))
    ```

    The gradient flows through both probabilities. The attack's own loss, and
    its start, are replaced: it climbs the divergence from `x + 0.001 * N(0,
    1)`, unclipped (a start that a subclass of the attack defines is kept). In
    l_2 the points are clipped to the box first, then projected to the ball.

    Args:
        attack: How the divergence is climbed: a `PGD`, `FGSM` or `SGLD` of
            `atent_keras.attacks`.
        beta: Float, at least 0, the weight of the divergence. Defaults to 6.
        loss: The cross-entropy, from logits: of integer labels (`None`, the
            default) or of one-hot ones.
        clean_passes: 1 or 2, how often the clean images are passed in
            training mode: the authors' code does so twice, once for each
            term. The gradients are the same, but BatchNorm's statistics move
            once more, and Dropout draws two masks. Defaults to 1.
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
    >>> model.compile("adam", loss=atent_keras.TRADESLoss(attack, beta=6.0))

    References:
    - Zhang et al., "Theoretically principled trade-off between robustness and
      accuracy", ICML 2019, https://arxiv.org/abs/1901.08573.
    """

    arguments = ("attack", "beta", "loss", "clean_passes", "radius_schedule")
    presets = presets.TRADES

    def __init__(
        self,
        attack: Attack,
        beta: float = 6.0,
        loss: Loss | None = None,
        clean_passes: int = 1,
        radius_schedule: Schedule | None = None,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            attack, beta, loss, radius_schedule, reduction, name, dtype
        )
        whole = isinstance(clean_passes, numbers.Integral)
        if not whole or clean_passes not in (1, 2) or clean_passes is True:
            raise ValueError(
                "`clean_passes` must be 1 or 2. Received: "
                f"clean_passes={clean_passes!r}"
            )
        self._clean_passes = clean_passes

    clean_passes = property(operator.attrgetter("_clean_passes"))

    def points(
        self,
        network: Network,
        state: State,
        batch: Batch,
        attack: Attack,
        seed: tf.Tensor,
    ) -> tuple[list[tf.Tensor], State]:
        threat_model = attack.threat_model
        if isinstance(threat_model, L2):
            attack = replaced(attack, threat_model=_BoxFirst.of(threat_model))
        clean = network(batch.x, state, training=False).y_pred
        return self._climb(
            network,
            state,
            batch,
            attack,
            seed,
            lambda y_pred: divergence(clean, tf.cast(y_pred, clean.dtype)),
        )

    def losses(
        self, network: Network, state: State, x_adv: tf.Tensor, batch: Batch
    ) -> Losses:
        clean = network(batch.x, state, training=True)
        adversarial = network(x_adv, clean.state, training=True)
        again, state = clean, adversarial.state
        if self.clean_passes == 2:
            again = network(batch.x, state, training=True)
            state = again.state
        values = self.call(batch.y, clean.y_pred)
        values += self.beta * divergence(again.y_pred, adversarial.y_pred)
        return Losses(values, adversarial.y_pred, state, clean.penalties)


def divergence(logits, other):
    """Returns `KL(softmax(logits) || softmax(other))`, of shape `(batch,)`."""
    return tf.reduce_sum(
        tf.nn.softmax(logits)
        * (tf.nn.log_softmax(logits) - tf.nn.log_softmax(other)),
        axis=-1,
    )


class _BoxFirst:
    """What makes a ball clip to the box before it projects."""

    @classmethod
    def of(cls, threat_model):
        kind = type(cls.__name__, (cls, type(threat_model)), {})
        return replaced(threat_model, __class__=kind)

    def project(self, x, x_adv):
        return super().project(x, self.clip(x_adv))
