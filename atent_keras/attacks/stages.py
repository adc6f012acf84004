"""What AutoAttack says of its stages, during and after."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is left after one of AutoAttack's attacks.

    Attributes:
        name: String, the attack's name; `"clean"` for the first stage.
        accuracy: Float, the share of all images that still stand.
        seconds: Float, what this stage took.
    """

    name: str
    accuracy: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class AutoAttackResult:
    """Adversarial images, and the accuracy after each stage.

    `print` shows the stages, and what was not run.

    Attributes:
        x_adv: Tensor like the images: those that fool the network, and the
            clean image where every attack failed.
        stages: Tuple of `Stage`, the first of them the clean images.
        not_run: Dictionary from the names of the attacks that can't be run on
            such images to the reasons.
    """

    x_adv: tf.Tensor
    stages: tuple[Stage, ...]
    not_run: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self):
        names = [*(stage.name for stage in self.stages), *self.not_run]
        width = max(map(len, names))
        return "\n".join(
            [
                f"{stage.name:<{width}}  {100 * stage.accuracy:6.2f} %  "
                f"{stage.seconds:8.1f} s"
                for stage in self.stages
            ]
            + [
                f"{name:<{width}}  not run: {reason}"
                for name, reason in self.not_run.items()
            ]
        )


class Bar:
    """A stage's progress bar, with the robust accuracy so far."""

    def __init__(self, name, standing, visible):
        self.attacked, self.total = standing.sum(), standing.size
        self.bar = None
        if visible:
            print(name, flush=True)
            self.bar = keras.utils.Progbar(
                self.attacked,
                stateful_metrics=["robust_accuracy"],
                unit_name="image",
            )

    def progress(self, done, margin):
        fooled = 0 if margin is None else np.sum(margin < 0)
        self._show(int(done * self.attacked), self.attacked - fooled, False)

    def finish(self, standing):
        self._show(self.attacked, standing.sum(), True)

    def _show(self, done, left, finalize):
        if self.bar is not None:
            accuracy = [("robust_accuracy", left / self.total)]
            self.bar.update(done, accuracy, finalize)
