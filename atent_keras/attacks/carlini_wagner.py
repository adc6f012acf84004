"""Carlini & Wagner's l_2 attack: the smallest change, by gradient descent."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import margins
from atent_keras.attacks import boundary
from atent_keras.attacks import gradients
from atent_keras.attacks.loop import while_loop
from atent_keras.attacks.rounds import RoundAttack
from atent_keras.threat_models import L2
from atent_keras.threat_models import per_example
from atent_keras.threat_models import require_number
from atent_keras.types import Loss
from atent_keras.types import Noise

# Adam's, as in its paper.
BETAS = (0.9, 0.999)
STABILITY = 1e-8

LARGEST = 1e10  # weight of the loss, where the search gives up doubling


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class CarliniWagner(RoundAttack):
    """Weighs the change of the image against the lead of the true class.

    ```python
    x_adv = lower + (upper - lower) * (tanh(w) + 1) / 2
    change = (x_adv - x) / (upper - lower)
    minimize norm(change)**2 + c * max(margin(x_adv) + confidence, 0) by w
    ```

    Adam does that for each of several weights `c`: ten times the last one
    until an image is fooled, then the middle between the largest that failed
    and the smallest that did not. The search knows no radius: what it finds
    is kept where it lies in the ball, and is else drawn back to its edge.
    Without bounds `w` is the image itself, and the change is in its units.

    Args:
        threat_model: `L2`.
        num_steps: Positive integer, steps of Adam for each weight. Defaults
            to 1,000; the authors take up to 10,000.
        search_steps: Positive integer, the number of weights. Defaults to 9.
        learning_rate: Positive float, Adam's. Defaults to 0.01.
        initial_weight: Positive float, the first `c`. Defaults to 1e-3.
        confidence: Float, at least 0, the lead that a wrong class shall have.
            Defaults to 0.

    Raises:
        ValueError, TypeError: If a setting is out of its range, or the threat
            model is not `L2`.

    Example:

    >>> threat_model = atent_keras.threat_models.L2(epsilon=0.5)
    >>> x_adv = atent_keras.attacks.CarliniWagner(threat_model)(model, x, y)

    References:
    - Carlini & Wagner, "Towards evaluating the robustness of neural networks",
      S&P 2017, https://arxiv.org/abs/1608.04644.
    """

    num_steps: int = 1000
    search_steps: int = 9
    learning_rate: float = 0.01
    initial_weight: float = 1e-3
    confidence: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.threat_model, L2):
            raise ValueError(
                "`threat_model` must be L2, whose norm this attack makes "
                f"small. Received: {self.threat_model!r}"
            )
        self._require_count(
            num_steps=self.num_steps, search_steps=self.search_steps
        )
        self._require_positive(
            learning_rate=self.learning_rate,
            initial_weight=self.initial_weight,
        )
        require_number(confidence=self.confidence)
        object.__setattr__(self, "confidence", float(self.confidence))

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
        count = tf.shape(x)[0]

        def search(step, weight, low, high, nearest, distance):
            """Tries one weight for each image; returns the next ones."""
            found, nearest, distance = self._descend(
                predict, x, y, weight, nearest, distance
            )
            low = tf.where(found, low, tf.maximum(low, weight))
            high = tf.where(found, tf.minimum(high, weight), high)
            bracketed = high < LARGEST
            weight = tf.where(
                bracketed, (low + high) / 2, tf.minimum(10 * weight, LARGEST)
            )
            return step + 1, weight, low, high, nearest, distance

        right = self.lead(predict, x, y) >= 0
        *_, nearest, _ = while_loop(
            lambda step, *_: step < self.search_steps,
            search,
            (
                tf.constant(0),
                tf.fill([count], tf.constant(self.initial_weight, x.dtype)),
                tf.zeros([count], x.dtype),
                tf.fill([count], tf.constant(LARGEST, x.dtype)),
                x,
                tf.where(right, x.dtype.max, tf.zeros([], x.dtype)),
            ),
        )
        model = self.threat_model
        nearest = model.clip(model.project(x, nearest))
        return nearest, self.lead(predict, nearest, y)

    def _descend(self, predict, x, y, weight, nearest, distance):
        """Minimizes for one weight; returns what it found, and the nearest."""
        image, start = self._free(x)
        width = self.threat_model.width

        def lead(logits):
            labels = margins.class_labels(y, logits.shape[-1])
            return margins.margin(logits, labels) + self.confidence

        def body(k, w, mean, square, found, nearest, distance):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(w)
                point = image(w)
                change = (point - x) / width
                squared = boundary.inner(change, change)
            gradient = base_losses.input_gradient(tape, squared, w)
            ascent, _, logits = gradients.at(
                lambda w: predict(image(w)),
                w,
                lambda logits: weight * tf.maximum(lead(logits), 0),
            )
            gradient += ascent
            fooled = lead(logits) < 0
            length = self.threat_model.norm(point - x)
            nearer = fooled & (length < distance)
            time = tf.cast(k, x.dtype)
            mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
            square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
            step = (mean / (1 - BETAS[0] ** time)) / (
                tf.sqrt(square / (1 - BETAS[1] ** time)) + STABILITY
            )
            return (
                k + 1,
                w - self.learning_rate * step,
                mean,
                square,
                found | fooled,
                tf.where(per_example(nearer, x), point, nearest),
                tf.where(nearer, length, distance),
            )

        zeros = tf.zeros_like(x)
        found = tf.zeros_like(weight, tf.bool)
        *_, found, nearest, distance = while_loop(
            lambda k, *_: k <= self.num_steps,
            body,
            (tf.constant(1), start, zeros, zeros, found, nearest, distance),
        )
        return found, nearest, distance

    def _free(self, x):
        """Returns the function from any `w` to an image, and the `w` of `x`."""
        if self.threat_model.bounds is None:
            return tf.identity, x
        lower, upper = self.threat_model.bounds

        def image(w):
            return lower + (upper - lower) * (tf.tanh(w) + 1) / 2

        # Within the box, of whose edges tanh has no preimage.
        scaled = 2 * (x - lower) / (upper - lower) - 1
        return image, tf.atanh(0.999999 * tf.clip_by_value(scaled, -1, 1))
