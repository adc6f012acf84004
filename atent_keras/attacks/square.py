"""The Square attack: random search without any gradient."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from atent_keras.attacks import square_proposals as proposals
from atent_keras.attacks.loop import while_loop
from atent_keras.attacks.rounds import RoundAttack
from atent_keras.threat_models import Linf
from atent_keras.threat_models import is_finite
from atent_keras.types import Loss
from atent_keras.types import Noise
from atent_keras.types import Shape

# Queries after which those that are done with make room for others.
BLOCK = 100

# Of 10,000 queries; after each, the squares' share of the image is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class Square(RoundAttack):
    """Repaints random squares, and keeps what lessens the true class's lead.

    ```python
    x_adv = clip(x + epsilon * sign(N(0, 1)))        # vertical stripes
    for query in range(1, num_queries):
        square = random_square(share(query) * area_of_the_image)
        z = x_adv
        z[square] = clip(x + epsilon * random_sign_of_each_channel)[square]
        x_adv = min(x_adv, z, key=margin)
    ```

    That is the l_inf form. In l_2 the start is a grid of windows `eta`, and a
    query moves the length of the perturbation in one window to another, where
    it adds an `eta` of random sign and orientation to what is there.

    Only the network's outputs are asked for, never a gradient: what hides its
    gradient doesn't hide from Square. Images are `(batch, height, width,
    channels)` and are asked about at most `num_queries` times each.

    In a sequence `(batch, time, channels)` the squares are spans of time, and
    in a volume `(batch, depth, height, width, channels)` cubes, of the same
    share. Stripes differ along the last axis of space, or time; an `eta`
    changes its sign along any of them. A table `(batch, features)` has no
    neighbours to repaint together: Square does not apply.

    Args:
        threat_model: `Linf` or `L2`.
        num_queries: Positive integer. Defaults to 5,000.
        p_init: Float, the share of the image that the first squares cover,
            above 0 and at most 1. Defaults to 0.8.
        rescale_schedule: Boolean, whether the shrinking of the squares, made
            for 10,000 queries, is rescaled to `num_queries`. Defaults to
            `False`, as in AutoAttack.

    Raises:
        ValueError, TypeError: If a setting is out of its range; in a call,
            if `x` is no batch of images, sequences or volumes of known size.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> x_adv = atent_keras.attacks.Square(threat_model)(model, x, y, seed=0)

    References:
    - Andriushchenko et al., "Square attack: a query-efficient black-box
      adversarial attack via random search", ECCV 2020,
      https://arxiv.org/abs/1912.00049.
    """

    num_queries: int = 5000
    p_init: float = 0.8
    rescale_schedule: bool = False
    uses_gradient = False

    def __post_init__(self):
        super().__post_init__()
        self._require_count(num_queries=self.num_queries)
        if not is_finite(self.p_init) or not 0 < self.p_init <= 1:
            raise ValueError(
                "`p_init` must be above 0 and at most 1. Received: "
                f"p_init={self.p_init!r}"
            )
        object.__setattr__(self, "p_init", float(self.p_init))

    def rounds(self, classes: int) -> int:
        return -(-self.num_queries // BLOCK)

    def share(self, query: int) -> float:
        """Returns the share of the image that a query's square covers."""
        if self.rescale_schedule:
            query = int(query / self.num_queries * 10000)
        return self.p_init / 2 ** sum(query > limit for limit in HALVINGS)

    def sides(self, *space: int) -> np.ndarray:
        """Returns the squares' sides in pixels, one for each query.

        Args:
            *space: Integers, such as an image's height and width.
        """
        # The first query is that of the start; the schedule counts from 0.
        shares = (self.share(query - 1) for query in range(self.num_queries))
        sizes = np.array([math.prod(space, start=share) for share in shares])
        sides = np.round(sizes ** (1 / len(space))).astype("int32")
        if isinstance(self.threat_model, Linf):
            return np.clip(sides, 1, min(space))
        # Windows of the l_2 form have a middle.
        odd = np.maximum(sides, 3) // 2 * 2 + 1
        return np.minimum(odd, (min(space) - 1) // 2 * 2 + 1)

    def _moves(self, x, noise):
        """Returns the functions that start, and that propose query `k`."""
        model = self.threat_model
        _, *space, channels = x.shape
        axes, sides = len(space), self.sides(*space)
        if isinstance(model, Linf):
            return (
                lambda: proposals.stripes(
                    model,
                    x,
                    noise(0, [*[1] * (axes - 1), space[-1], channels]),
                ),
                lambda x_adv, k: proposals.repainted(
                    model,
                    x,
                    x_adv,
                    tf.constant(sides)[k],
                    noise(k, [axes + channels]),
                ),
            )
        distinct, kind = np.unique(sides, return_inverse=True)
        etas = np.zeros((len(distinct), axes, *[distinct[-1]] * axes))
        for eta, side in zip(etas, distinct):
            eta[(slice(None), *[slice(side)] * axes)] = proposals.eta(
                side, axes
            )
        count = proposals.grid(x)[1]
        return (
            lambda: proposals.tiles(
                model, x, noise(0, [*[count] * axes, 1 + channels])
            ),
            lambda x_adv, k: proposals.moved(
                model,
                x,
                x_adv,
                tf.constant(sides)[k],
                tf.constant(etas, x.dtype)[tf.constant(kind)[k]],
                noise(k, [2 * axes + 1 + channels]),
            ),
        )

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
        noise = noise_of(0)
        start, propose = self._moves(x, noise)

        def ask(k, x_adv, margin):
            point = propose(x_adv, k)
            x_adv, margin = self.better(
                x_adv, margin, point, self.lead(predict, point, y)
            )
            x_adv.set_shape(x.shape)
            return k + 1, x_adv, margin

        def begin():
            point = start()
            return self.better(
                x_adv, margin, point, self.lead(predict, point, y)
            )

        x_adv, margin = tf.cond(number == 0, begin, lambda: (x_adv, margin))
        x_adv.set_shape(x.shape)
        first = tf.maximum(BLOCK * number, 1)
        last = tf.minimum(BLOCK * (number + 1), self.num_queries)
        _, x_adv, margin = while_loop(
            lambda k, _, margin: (k < last) & ~tf.reduce_all(margin < 0),
            ask,
            (first, x_adv, margin),
        )
        return x_adv, margin

    def inapplicable(self, shape: Shape) -> str | None:
        if len(shape) < 3:
            return "a table (batch, features) has no neighbours to repaint"
        if len(shape) > 5:
            return "its squares have three dimensions at most"
        return None

    def _admit(self, model, x, y):
        if self.inapplicable(x.shape) or None in x.shape[1:]:
            raise ValueError(
                "`x` must be images (batch, height, width, channels), "
                "sequences (batch, time, channels) or volumes (batch, depth, "
                "height, width, channels) of a known size for Square. "
                f"Received: shape {x.shape}. APGD and FAB take any shape, and "
                "AutoAttack leaves Square out where there is nothing for it"
            )
        return super()._admit(model, x, y)
