"""Robust accuracy during `fit`, for other callbacks to watch."""

from collections.abc import Iterator
from typing import Any

import keras

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import evaluation
from atent_keras.attacks import PGD
from atent_keras.attacks.attack import Attack
from atent_keras.evaluation.robustness import require_attackable
from atent_keras.types import Data


class RobustAccuracy(keras.callbacks.Callback):
    """Adds `val_robust_accuracy` to the logs at the end of each epoch.

    It goes in front of the callbacks that watch the figure. An example that
    is misclassified clean counts as misclassified under attack, and the
    attack's randomness is the same in every epoch.

    Args:
        data: Validation data, all of which are attacked: batches `(x, y)`
            that can be iterated again and again, or a tuple of two arrays.
        attack: An `atent_keras.attacks` attack. Defaults to `None`: PGD with
            20 steps under the compiled loss's threat model.
        seed: Integer, the seed of the attack. Defaults to 0.
        batch_size: Positive integer, how many images of a batch are attacked
            together. Defaults to `None`: see
            `atent_keras.config.set_batch_size`.
        allow_tf32: Boolean, whether a GPU may round float32 to TF32 under
            attack; see `evaluate_robustness`. Training around it computes as
            it did. Defaults to `False`.

    Raises:
        ValueError, TypeError: If a setting is out of its range, `attack` no
            attack, or `data` an iterator, which would be empty after the
            first epoch; before the first epoch, if images, labels and the
            network do not fit each other.

    Example:

    >>> callbacks = [
    ...     atent_keras.callbacks.RobustAccuracy((x_val, y_val)),
    ...     keras.callbacks.ModelCheckpoint(
    ...         "best.keras",
    ...         monitor="val_robust_accuracy",
    ...         mode="max",
    ...         save_best_only=True,
    ...     ),
    ... ]
    """

    def __init__(
        self,
        data: Data,
        attack: Attack | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        allow_tf32: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(data, Iterator):
            raise TypeError(
                "`data` must be iterable once per epoch, such as two arrays or "
                f"a tf.data.Dataset. Received: a {type(data).__name__}"
            )
        if attack is not None and not isinstance(attack, Attack):
            raise TypeError(
                "`attack` must be an `atent_keras.attacks` attack. Received: "
                f"attack={attack!r}"
            )
        checks.require_seed(seed)
        checks.require_flag(allow_tf32=allow_tf32)
        if batch_size is not None:
            checks.require_count(batch_size=batch_size)
        self.data = data
        self.attack = attack
        self.seed = seed
        self.batch_size = batch_size
        self.allow_tf32 = allow_tf32

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        loss = base_losses.compiled(self.model)
        if self.attack is None and not hasattr(loss, "threat_model"):
            raise ValueError(
                "`attack` must be given unless the model is compiled with a "
                "robust loss, whose threat model is the default. "
                f"Received: attack=None and loss={loss!r}"
            )
        # What does not fit would else show after the first epoch.
        require_attackable(self.model, self.data, self._attack())

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        report = evaluation.evaluate_robustness(
            self.model,
            self.data,
            {"attack": self._attack()},
            self.seed,
            checks=None,
            batch_size=self.batch_size,
            allow_tf32=self.allow_tf32,
            verbose=0,
        )
        if logs is not None:
            logs["val_robust_accuracy"] = report.robust_accuracy["attack"]

    def _attack(self) -> Attack:
        if self.attack is not None:
            return self.attack
        loss = base_losses.compiled(self.model)
        return PGD(loss.threat_model, num_steps=20)
