"""ATENT: the loss, averaged along a Langevin chain around each image."""

import numbers
import operator

import keras
import tensorflow as tf

from atent_keras import checks
from atent_keras import presets
from atent_keras.attacks import SGLD
from atent_keras.attacks import noise as noise_lib
from atent_keras.attacks.attack import Attack
from atent_keras.losses.chain import climb
from atent_keras.losses.chain import climb_and_average
from atent_keras.losses.network import Network
from atent_keras.losses.robust_loss import RobustLoss
from atent_keras.losses.step import Batch
from atent_keras.losses.step import Step
from atent_keras.threat_models import is_finite
from atent_keras.types import Loss
from atent_keras.types import Schedule
from atent_keras.types import State


@keras.saving.register_keras_serializable("atent_keras")
class ATENTRegularizedLoss(RobustLoss):
    """The base loss, averaged over the points of a Langevin chain.

    ```python
    x_adv = sampler.start(x)
    average = 0
    for k in range(1, num_steps + 1):
        x_adv = sampler.step(x, x_adv, gradient(x_adv))
        average = (1 - alpha) * average + alpha * loss(f(x_adv), y)
    ```

    The weights' gradient is that of `average`, the points being constants, so
    iterate `k` counts `alpha * (1 - alpha)**(num_steps - k)`. The loss at an
    iterate is both a term of the average and what the next step climbs: one
    tape over the point and the weights gives both gradients, and the memory
    does not grow with the number of steps.

    As a plain Keras loss, `loss(y_true, y_pred)` is the base loss, so that
    `evaluate` judges the network on the data as they are.

    Args:
        loss: The base loss: a Keras loss (name, config or instance), which
            gives one value per example.
        sampler: An `atent_keras.attacks.SGLD`.
        alpha: Float in (0, 1], the weight of the newest iterate. Defaults to
            0.9.
        loss_iterates: Integer from 1 to the sampler's `num_steps`: only the
            gradients of the last `loss_iterates` points are kept, which drops
            a share `(1 - alpha)**loss_iterates` of the weight, and the loss
            and its gradients are sums over the kept points, not renormalized.
            Defaults to `None`: all, as the authors do.
        chain_training: Boolean, whether the network is in training mode at
            the points whose weight gradient is not kept, as it is in the
            authors' code. The kept ones always are. BatchNorm updates its
            statistics, and Dropout draws anew, at every pass in training
            mode. Defaults to `True`.
        radius_schedule: A schedule of `keras.optimizers.schedules`: its value
            at the optimizer's iteration, clipped to [0, 1], multiplies
            `epsilon` and the step size. Defaults to `None`: the whole radius.
        reduction: Keras's reduction over the batch, `"sum_over_batch_size"`
            (the default), `"sum"`, `"mean"` or `"mean_with_sample_weight"`.
        name: Optional name of the loss.
        dtype: The dtype of the loss's own computations, float32 or float64.
            Defaults to `None`, `keras.config.floatx()`, in which a Keras
            loss within it always is.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=0.3)
    >>> sampler = atent_keras.attacks.SGLD(threat_model, step_size=0.05)
    >>> loss = atent_keras.ATENTRegularizedLoss(
    ...     keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     sampler,
    ... )
    >>> model.compile("adam", loss=loss, metrics=["accuracy"])

    References:
    - Jagatap et al., "Adversarially robust learning via entropic
      regularization", Frontiers in AI 2022, https://arxiv.org/abs/2008.12338.
    """

    arguments = (
        "loss",
        "sampler",
        "alpha",
        "loss_iterates",
        "chain_training",
        "radius_schedule",
    )
    presets = presets.PRESETS
    preset_attack = SGLD

    def __init__(
        self,
        loss: Loss,
        sampler: SGLD,
        alpha: float = 0.9,
        loss_iterates: int | None = None,
        chain_training: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
        radius_schedule: Schedule | None = None,  # last, since it came last
    ) -> None:
        if not isinstance(sampler, SGLD):
            raise TypeError(
                "`sampler` must be an `atent_keras.attacks.SGLD`. Received: "
                f"sampler={sampler!r}"
            )
        if sampler.loss is not None:
            raise ValueError(
                "`sampler` must have no loss of its own, since one pass gives "
                "the gradients that the chain climbs and that are trained on. "
                f"Received: sampler={sampler!r}"
            )
        super().__init__(loss, sampler, radius_schedule, reduction, name, dtype)
        if not is_finite(alpha) or not 0 < alpha <= 1:
            raise ValueError(
                f"`alpha` must lie in (0, 1]. Received: alpha={alpha!r}"
            )
        if loss_iterates is not None and not (
            isinstance(loss_iterates, numbers.Integral)
            and not isinstance(loss_iterates, bool)
            and 1 <= loss_iterates <= sampler.num_steps
        ):
            raise ValueError(
                "`loss_iterates` must be None or an integer from 1 to the "
                f"sampler's num_steps={sampler.num_steps}. Received: "
                f"loss_iterates={loss_iterates!r}"
            )
        self._alpha = float(alpha)
        self._loss_iterates = loss_iterates
        checks.require_flag(chain_training=chain_training)
        self._chain_training = bool(chain_training)

    sampler = property(operator.attrgetter("_attack"))
    alpha = property(operator.attrgetter("_alpha"))
    loss_iterates = property(operator.attrgetter("_loss_iterates"))
    chain_training = property(operator.attrgetter("_chain_training"))

    def shares(self, count: int) -> list[float]:
        weights = [self.alpha * (1 - self.alpha) ** k for k in range(count)]
        return weights[::-1]

    def find_and_learn(
        self,
        network: Network,
        state: State,
        batch: Batch,
        attack: Attack,
        seed: tf.Tensor,
    ) -> tuple[Step, State]:
        noise = noise_lib.normal_noise(seed, batch.x)
        x_adv, state = self._burn_in(network, state, batch, attack, noise)
        return climb_and_average(
            attack,
            network,
            state,
            batch,
            x_adv,
            self,
            self.alpha,
            noise,
            range(self._kept.start, self._kept.stop + 1),
            checks.network(
                network.model, self, batch.x.shape, self.threat_model.bounds
            ),
        )

    def points(
        self,
        network: Network,
        state: State,
        batch: Batch,
        attack: Attack,
        seed: tf.Tensor,
    ) -> tuple[list[tf.Tensor], State]:
        noise = noise_lib.normal_noise(seed, batch.x)
        x_adv, state = self._burn_in(network, state, batch, attack, noise)
        points = [x_adv]
        for k in self._kept:
            x_adv, state = climb(
                attack,
                network,
                state,
                batch.x,
                x_adv,
                lambda y_pred: self.call(batch.y, y_pred),
                noise,
                training=True,
                steps=range(k, k + 1),
            )
            points.append(x_adv)
        return points, state

    @property
    def _kept(self):
        """The steps that start from a point whose gradient is kept."""
        num_steps = self.sampler.num_steps
        first = num_steps + 1 - (self.loss_iterates or num_steps)
        return range(first + 1, num_steps + 1)

    def _burn_in(self, network, state, batch, attack, noise):
        """Walks to the first point whose gradient is kept."""
        return climb(
            attack,
            network,
            state,
            batch.x,
            attack.start(batch.x, noise),
            lambda y_pred: self.call(batch.y, y_pred),
            noise,
            self.chain_training,
            range(1, self._kept.start),
        )
