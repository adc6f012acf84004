"""What TRADES and MART share: a divergence from the clean answer."""

import operator

import keras

from atent_keras.attacks import FGSM
from atent_keras.attacks import PGD
from atent_keras.attacks import SGLD
from atent_keras.attacks import noise as noise_lib
from atent_keras.attacks.attack import Attack
from atent_keras.losses import inner_attack
from atent_keras.losses.chain import climb
from atent_keras.losses.robust_loss import RobustLoss
from atent_keras.threat_models import require_number
from atent_keras.types import Loss
from atent_keras.types import Schedule

# The standard deviation of the start, in units of the images' range: at the
# clean image itself, a divergence from it has no gradient.
_START = 1e-3


class DivergenceLoss(RobustLoss):
    """Base class: a loss that ties answers at found points to the clean ones.

    The points climb from `x + 0.001 * N(0, 1)`, unclipped, in inference mode,
    unless a subclass of the attack has a `start` of its own.

    Args:
        attack: An attack that steps along a gradient: `PGD`, `FGSM`, `SGLD`.
        beta: Float, at least 0, the weight of the divergence.
        loss, radius_schedule, reduction, name, dtype: As `RobustLoss` takes
            them; `loss` is a cross-entropy of classes, from logits.
    """

    arguments: tuple[str, ...] = ("attack", "beta", "loss", "radius_schedule")

    settles_its_loss = True  # no advice to take another one

    def __init__(
        self,
        attack: Attack,
        beta: float,
        loss: Loss | None = None,
        radius_schedule: Schedule | None = None,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        super().__init__(loss, attack, radius_schedule, reduction, name, dtype)
        if not inner_attack.steps_by_gradient(attack):
            raise ValueError(
                "`attack` must step along a gradient from a start, as PGD "
                f"does. Received: attack={attack!r}"
            )
        require_number(beta=beta)
        kinds = (
            keras.losses.SparseCategoricalCrossentropy,
            keras.losses.CategoricalCrossentropy,
        )
        if not isinstance(self.loss, kinds) or not self.loss.from_logits:
            raise ValueError(
                f"The `loss` of {type(self).__name__} must be a cross-entropy "
                "of classes from logits, `keras.losses."
                "SparseCategoricalCrossentropy(from_logits=True)` or its "
                f"one-hot form. Received: loss={loss!r}"
            )
        self._beta = float(beta)

    beta = property(operator.attrgetter("_beta"))

    def _climb(self, network, state, batch, attack, seed, losses):
        """Climbs `losses`, a function of the outputs, in inference mode."""
        x, noise = batch.x, noise_lib.normal_noise(seed, batch.x)
        if type(attack).start in (PGD.start, FGSM.start, SGLD.start):
            start = x + _START * attack.threat_model.width * noise(0)
        else:
            start = attack.start(x, noise)
        x_adv, state = climb(
            attack, network, state, x, start, losses, noise, training=False
        )
        return [x_adv], state
