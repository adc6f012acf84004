"""Auto-PGD's search: projected gradient ascent that sets its own step."""

import dataclasses
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from atent_keras import margins
from atent_keras.attacks import gradients
from atent_keras.attacks.loop import while_loop
from atent_keras.attacks.rounds import RoundAttack
from atent_keras.threat_models import per_example
from atent_keras.types import Loss
from atent_keras.types import Noise

MOMENTUM = 0.75  # the paper's alpha
RHO = 0.75  # of the steps since a checkpoint, so many have to rise


def checkpoints(num_steps):
    """Returns the steps after which the step size is reconsidered.

    ```python
    p = [0, 0.22]
    p[j + 1] = p[j] + max(p[j] - p[j - 1] - 0.03, 0.06)
    ceil(p * num_steps)
    ```
    """
    # In hundredths, which are exact.
    share, gap, found = 22, 22, []
    while share <= 100:
        found.append(-(-share * num_steps // 100))
        gap = max(gap - 3, 6)
        share += gap
    return sorted(set(found))


class Point(NamedTuple):
    """A place, and what the network says about it."""

    x: tf.Tensor
    gradient: tf.Tensor
    loss: tf.Tensor


class Search(NamedTuple):
    """Where a search stands; each example has its own of everything."""

    here: Point
    before: tf.Tensor  # where it stood one step ago
    best: Point
    step_size: tf.Tensor
    rises: tf.Tensor  # how often the loss rose since the last checkpoint
    best_then: tf.Tensor  # the best loss at the last checkpoint
    halved_then: tf.Tensor  # whether the step was halved there


@dataclasses.dataclass(frozen=True)
class AutoPGD(RoundAttack):
    """Base class: the search of `APGD` and `APGDT`, whatever is climbed.

    A subclass has `num_steps`, `restarts` and `num_samples`, and says in
    `objective` what is climbed.
    """

    def __post_init__(self):
        super().__post_init__()
        self._require_count(
            num_steps=self.num_steps,
            restarts=self.restarts,
            num_samples=self.num_samples,
        )

    def objective(
        self,
        loss: Loss,
        y: tf.Tensor,
        labels: tf.Tensor,
        logits: tf.Tensor,
        number: tf.Tensor,
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns a function from logits to what is climbed, per example.

        Args:
            loss: The loss of the attack or of the model.
            y: Labels, as the loss wants them.
            labels: Integer labels, `(batch,)`.
            logits: The network's outputs at the clean images.
            number: Scalar integer tensor, the number of the round.
        """
        raise NotImplementedError

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
        logits = predict(x)
        labels = margins.class_labels(y, logits.shape[-1])
        objective = self.objective(loss, y, labels, logits, number)

        def look(point):
            gradient, losses, logits = gradients.at(predict, point, objective)
            lead = margins.margin(logits, labels)
            return Point(point, gradient, losses), lead

        look = self._averaged(look)
        random = self.threat_model.random_start(x, noise_of(number)(0))
        start, lead = look(self.threat_model.clip(random))
        at_start = Search(
            here=start,
            before=start.x,
            best=start,
            step_size=tf.fill(
                tf.shape(lead),
                tf.convert_to_tensor(2 * self.threat_model.epsilon, x.dtype),
            ),
            rises=tf.zeros_like(lead),
            best_then=start.loss,
            halved_then=tf.zeros_like(lead, tf.bool),
        )
        since = _since_last(self.num_steps)

        def body(k, search, x_adv, margin):
            here, lead = look(self.step(x, search, k))
            x_adv, margin = self.better(x_adv, margin, here.x, lead)
            search = update(search, here)
            search = tf.cond(
                since[k] > 0,
                lambda: reconsider(search, tf.cast(since[k], x.dtype)),
                lambda: search,
            )
            return k + 1, search, x_adv, margin

        _, _, x_adv, margin = while_loop(
            lambda k, search, x_adv, margin: (
                (k <= self.num_steps) & ~tf.reduce_all(margin < 0)
            ),
            body,
            (
                tf.constant(1),
                at_start,
                *self.better(x_adv, margin, start.x, lead),
            ),
        )
        return x_adv, margin

    def step(
        self, x: tf.Tensor, search: Search, k: int | tf.Tensor
    ) -> tf.Tensor:
        """Returns the next point: a projected step, and momentum."""
        model, here = self.threat_model, search.here
        direction = model.ascent_direction(here.gradient)
        step_size = per_example(search.step_size, x)
        aim = model.clip(model.project(x, here.x + step_size * direction))
        share = tf.where(k > 1, tf.cast(MOMENTUM, x.dtype), 1)
        onward = share * (aim - here.x) + (1 - share) * (here.x - search.before)
        return model.clip(model.project(x, here.x + onward))

    def _averaged(self, look):
        """Returns `look` as the mean of `num_samples` looks."""
        if self.num_samples == 1:
            return look

        def mean(point):
            _, (total, lead) = while_loop(
                lambda count, _: count < self.num_samples,
                lambda count, total: (
                    count + 1,
                    tf.nest.map_structure(tf.add, total, look(point)),
                ),
                (tf.constant(1), look(point)),
            )
            _, gradient, loss = (part / self.num_samples for part in total)
            return Point(point, gradient, loss), lead / self.num_samples

        return mean


def update(search, here):
    """Returns the search one step on, now standing `here`."""
    rose = here.loss > search.here.loss
    return search._replace(
        here=here,
        before=search.here.x,
        best=choose(here.loss > search.best.loss, here, search.best),
        rises=search.rises + tf.cast(rose, search.rises.dtype),
    )


def reconsider(search, steps):
    """Returns the search after a checkpoint, `steps` after the last one.

    Where too few steps rose, or nothing was gained though the step was not
    just halved, the step is halved and the search goes on from its best point.
    """
    halve = (search.rises < RHO * steps) | (
        ~search.halved_then & (search.best_then == search.best.loss)
    )
    return search._replace(
        here=choose(halve, search.best, search.here),
        step_size=tf.where(halve, search.step_size / 2, search.step_size),
        rises=tf.zeros_like(search.rises),
        best_then=search.best.loss,
        halved_then=halve,
    )


def choose(condition, one, other):
    """Returns, for each example, one of two points."""
    return Point(
        *(tf.where(per_example(condition, a), a, b) for a, b in zip(one, other))
    )


def _since_last(num_steps):
    """Returns for each step the steps since a checkpoint, 0 between them."""
    since, last = [0] * (num_steps + 1), 0
    for step in checkpoints(num_steps):
        since[step], last = step - last, step
    return tf.constant(since)
