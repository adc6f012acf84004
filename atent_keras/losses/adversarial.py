"""Adversarial training: the base loss where an attack has been."""

import operator

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import presets
from atent_keras.attacks import noise as noise_lib
from atent_keras.attacks.attack import Attack
from atent_keras.losses import inner_attack
from atent_keras.losses.chain import climb
from atent_keras.losses.network import Network
from atent_keras.losses.robust_loss import RobustLoss
from atent_keras.losses.step import Batch
from atent_keras.types import Array
from atent_keras.types import Loss
from atent_keras.types import Schedule
from atent_keras.types import State


@keras.saving.register_keras_serializable("atent_keras")
class AdversarialLoss(RobustLoss):
    """The base loss at the points that an attack finds.

    ```python
    x_adv = attack(f, x, y)
    loss(f(x_adv), y)
    ```

    With `PGD` that is the adversarial training of Madry et al.; with a `PGD`
    of a single step of 1.25 epsilon and `attack_training=True` the fast one of
    Wong et al. The attack is part of the compiled step.

    Args:
        loss: The base loss: a Keras loss (name, config or instance), which
            gives one value per example.
        attack: One of `atent_keras.attacks` that follows a gradient, with a
            single restart. Where it has no `loss` of its own, it climbs the
            base loss.
        attack_training: Boolean, whether the network is in training mode
            during the attack, too, so that BatchNorm normalizes by the batch,
            and moves, at each of its passes. For attacks that step along a
            gradient (`PGD`, `FGSM`, `SGLD`). Defaults to `False`.
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
    >>> loss = atent_keras.AdversarialLoss(
    ...     keras.losses.SparseCategoricalCrossentropy(from_logits=True), attack
    ... )
    >>> model.compile("adam", loss=loss, metrics=["accuracy"])

    References:
    - Madry et al., "Towards deep learning models resistant to adversarial
      attacks", ICLR 2018, https://arxiv.org/abs/1706.06083.
    - Wong et al., "Fast is better than free: revisiting adversarial training",
      ICLR 2020, https://arxiv.org/abs/2001.03994.
    """

    arguments = ("loss", "attack", "attack_training", "radius_schedule")
    presets = presets.ADVERSARIAL

    def __init__(
        self,
        loss: Loss,
        attack: Attack,
        attack_training: bool = False,
        radius_schedule: Schedule | None = None,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(loss, attack, radius_schedule, reduction, name, dtype)
        checks.require_flag(attack_training=attack_training)
        if attack_training and not inner_attack.steps_by_gradient(attack):
            raise ValueError(
                "`attack_training` is for attacks that step along a gradient, "
                f"such as PGD. Received: attack_training={attack_training!r} "
                f"and attack={attack!r}"
            )
        self._attack_training = bool(attack_training)

    attack_training = property(operator.attrgetter("_attack_training"))

    def points(
        self,
        network: Network,
        state: State,
        batch: Batch,
        attack: Attack,
        seed: tf.Tensor,
    ) -> tuple[list[tf.Tensor], State]:
        x, y = batch.x, batch.y
        loss = self.loss if attack.loss is None else attack.loss
        if not inner_attack.steps_by_gradient(attack):
            x_adv = attack.run(
                lambda x: network(x, state, training=False).y_pred,
                loss,
                x,
                y,
                lambda number: noise_lib.normal_noise(
                    tf.random.experimental.stateless_fold_in(seed, number), x
                ),
            )
            return [x_adv], state
        noise = noise_lib.normal_noise(seed, x)
        x_adv, state = climb(
            attack,
            network,
            state,
            x,
            attack.start(x, noise),
            lambda y_pred: base_losses.per_example(loss, y, y_pred),
            noise,
            self.attack_training,
        )
        return [x_adv], state

    def check(
        self, model: keras.Model, x: Array, y: Array
    ) -> tuple[tf.Tensor, tf.Tensor]:
        x, y = super().check(model, x, y)
        if not inner_attack.steps_by_gradient(self.attack):
            y, *_ = self.attack._admit(model, x, y)
        elif self.attack.loss is not None:
            checks.batch(model, self.attack.loss, self.threat_model, x, y)
        return x, y
