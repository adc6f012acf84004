"""Attacks in rounds: restarts, targets, or blocks of queries."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import margins
from atent_keras.attacks.attack import Attack
from atent_keras.attacks.loop import while_loop
from atent_keras.compiler import any_batch
from atent_keras.threat_models import per_example
from atent_keras.types import Loss
from atent_keras.types import Noise

_NUMBER = tf.TensorSpec((), tf.int32)


@dataclasses.dataclass(frozen=True)
class RoundAttack(Attack):
    """Base class: each round attacks only what still stands.

    ```python
    x_adv, margin = x, infinity
    for number in range(rounds):
        standing = not margin < 0
        x_adv[standing], margin[standing] = round(number)
    ```

    Each image keeps, over all rounds, the first point that fools the network,
    else the one at which the true class had the smallest lead. A subclass
    says how many rounds there are and what one of them does. The network has
    to give logits; a single one is that of the second of two classes.
    """

    def rounds(self, classes: int) -> int:
        """Returns the number of rounds, for a network of so many classes."""
        return 1

    def round(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        loss: Loss,
        x: tf.Tensor,
        y: tf.Tensor,
        x_adv: tf.Tensor,
        margin: tf.Tensor,
        number: tf.Tensor,
        noise_of: Callable[[Any], Noise],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attacks one chunk of images, once.

        Args:
            predict: Function from images to logits.
            loss: What the model is trained with, or the attack was given.
            x: Clean images, `(batch, ...)`.
            y: Labels, of any kind.
            x_adv: The best points of the rounds before; at first `x`.
            margin: What the true class leads by there; at first infinite.
            number: Scalar integer tensor, from 0.
            noise_of: Function from an integer to a function `noise`.

        Returns:
            New `x_adv` and `margin`.
        """
        raise NotImplementedError

    def run(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        loss: Loss,
        x: tf.Tensor,
        y: tf.Tensor,
        noise_of: Callable[[Any], Noise],
    ) -> tf.Tensor:
        """Runs all rounds on one chunk, inside a graph of the caller's."""
        classes = margins.of_classes(predict(x[:1])).shape[-1]
        rounds = self.rounds(classes)

        def body(number, x_adv, margin):
            x_adv, margin = self.better(
                x_adv,
                margin,
                *self.round(
                    predict, loss, x, y, x_adv, margin, number, noise_of
                ),
            )
            x_adv.set_shape(x.shape)
            return number + 1, x_adv, margin

        _, x_adv, _ = while_loop(
            lambda number, *_: number < rounds,
            body,
            (tf.constant(0), x, tf.fill(tf.shape(x)[:1], x.dtype.max)),
        )
        return x_adv

    @staticmethod
    def lead(
        predict: Callable[[tf.Tensor], tf.Tensor],
        point: tf.Tensor,
        y: tf.Tensor,
    ) -> tf.Tensor:
        """Returns the true class's margin at a point, `(batch,)`."""
        logits = tf.cast(predict(point), point.dtype)
        labels = margins.class_labels(y, logits.shape[-1])
        return margins.margin(logits, labels)

    @staticmethod
    def better(
        x_adv: tf.Tensor,
        margin: tf.Tensor,
        candidate: tf.Tensor,
        candidate_margin: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the better of two points, and its margin, per example."""
        closer = (candidate_margin < margin) & ~(margin < 0)
        return (
            tf.where(per_example(closer, x_adv), candidate, x_adv),
            tf.where(closer, candidate_margin, margin),
        )

    def _admit(self, model, x, y):
        lead, compiled = margins.Margin(), base_losses.of_model(model, y)
        images = x.shape, self.threat_model.bounds
        if base_losses.is_distance(compiled):
            # Of a regression, what is said of logits would be no help.
            y = checks.one_class(
                y, compiled, checks.network(model, None, *images)
            )
        outputs = checks.require_logits(self.name, model, compiled, *images)
        # Whom a network may be wrong about, its own loss knows.
        y = checks.one_class(y, compiled, outputs)
        return checks.labels_fit(y, lead, outputs), lead, max(outputs, 2)

    def _attack(self, model, loss, x, y, seed, first, *state):
        if not state:
            return super()._attack(model, loss, x, y, seed, first)
        predict, noise_of = self._means(model, seed, x, first)
        best, number = state[:2], state[2]
        return self.better(
            *best, *self.round(predict, loss, x, y, *best, number, noise_of)
        )

    def _perform(self, model, loss, x, y, seed, places, classes, progress=None):
        margin = np.full(x.shape[0], x.dtype.max, x.dtype.as_numpy_dtype)
        attack = self._compiled(
            model, loss, x, y, any_batch(x), any_batch(margin), _NUMBER
        )
        x_adv, standing = x.numpy().copy(), np.arange(x.shape[0])
        rounds = self.rounds(classes)
        for number in range(rounds):

            def standing_there(chunk):
                rows = standing[chunk]
                return (
                    tf.gather(x, rows),
                    tf.gather(y, rows),
                    seed,
                    tf.gather(places, rows),
                    x_adv[rows],
                    margin[rows],
                    number,
                )

            for chunk, found in attack.over(len(standing), standing_there):
                rows = standing[chunk]
                x_adv[rows], margin[rows] = found
                if progress is not None:
                    done = (number + chunk.stop / len(standing)) / rounds
                    progress(done, margin)
            standing = standing[~(margin[standing] < 0)]
        return tf.constant(x_adv)
