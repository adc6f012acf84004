"""Attacks that try the likeliest wrong classes, one after the other."""

import warnings

import tensorflow as tf

from atent_keras import margins


class Targets:
    """Makes a round of each pair of a wrong class and a restart.

    For a `RoundAttack` with `targets` and `restarts`. With `targets=None`
    there are restarts alone.
    """

    def __post_init__(self):
        super().__post_init__()
        if self.targets is not None:
            self._require_count(targets=self.targets)

    def rounds(self, classes: int) -> int:
        targets = 1 if self.targets is None else self.targets
        return min(targets, classes - 1) * self.restarts

    def target(
        self, logits: tf.Tensor, labels: tf.Tensor, number: tf.Tensor
    ) -> tf.Tensor:
        """Returns each example's target in round `number`, `(batch,)`."""
        others = margins.likeliest_others(logits, labels)
        return others[:, number // self.restarts]

    def _admit(self, model, x, y):
        y, loss, classes = super()._admit(model, x, y)
        if self.targets is not None and self.targets > classes - 1:
            warnings.warn(
                f"`targets` should be at most the number of wrong classes: "
                f"{self.name} tries all {classes - 1} of them. Received: "
                f"targets={self.targets} and a network of {classes} classes",
                stacklevel=4,
            )
        return y, loss, classes
