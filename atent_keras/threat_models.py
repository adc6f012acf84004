"""Where an adversarial image may live: a ball around the clean one, in a box.

Everything here is pure arithmetic on batches: the first axis counts examples,
and every norm is taken over all the others.
"""

import copy
import dataclasses
import math
import numbers
from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Self

from atent_keras.types import Bounds

# Newton's method passes a bound that a pixel meets at every step, and mostly
# many: a handful of steps is the rule.
_NEWTON_STEPS = 100
_ROUNDING = 1e-6
# Of a larger number, float32 holds no square, or no sum of such squares.
LARGEST = 1e18


def is_finite(value: Any) -> bool:
    """Whether `value` is a real number to compute with (and no boolean).

    Its size must be at most `LARGEST`, in every precision.
    """
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and -LARGEST <= value <= LARGEST  # type: ignore[operator]
    )


def require_number(positive: bool = False, /, **settings: Any) -> None:
    """Checks that settings are numbers from 0 to `LARGEST`.

    Args:
        positive: Boolean, whether 0 itself is refused.
        **settings: The values.

    Raises:
        ValueError: If one is not.
    """
    rule = "positive number" if positive else "number, at least 0"
    for name, value in settings.items():
        if not is_finite(value) or value < 0 or (positive and value == 0):
            raise ValueError(
                f"`{name}` must be a finite {rule} and at most {LARGEST:g}. "
                f"Received: {name}={value!r}"
            )


def per_example(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Reshapes `(batch,)` values so that they broadcast against `like`."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """Base class: a ball of radius `epsilon` around each image, and a box.

    A subclass says what its norm means, in four methods: `norm`, `project`,
    `ascent_direction` and `random_start`. Each takes and returns tensors of
    shape `(batch, ...)` and knows neither model nor randomness: noise is an
    argument. None of them returns NaN for finite input; a zero gradient has a
    zero direction, and `epsilon=0` leaves only the clean image.

    Args:
        epsilon: Float, the ball's radius, in the images' units, at least 0.
        bounds: Pair of floats, the smallest and the largest value of a pixel.
            `None` for data without any, such as standardized tables: then the
            ball is all there is. Defaults to `(0.0, 1.0)`.

    Raises:
        ValueError: If `epsilon` is negative, not finite or above 1e18, or
            `bounds` do not increase or are as large.
    """

    epsilon: float
    bounds: Bounds = (0.0, 1.0)

    def __post_init__(self):
        require_number(epsilon=self.epsilon)
        object.__setattr__(self, "epsilon", float(self.epsilon))
        bounds = self.bounds
        if bounds is None:
            return
        if not (
            isinstance(bounds, (tuple, list))
            and len(bounds) == 2
            and all(is_finite(bound) for bound in bounds)
            and bounds[0] < bounds[1]
        ):
            raise ValueError(
                "`bounds` must be two finite, increasing numbers (lower, "
                f"upper) of size at most {LARGEST:g}, or None for data without "
                "bounds. Received: "
                f"bounds={bounds!r}"
            )
        object.__setattr__(self, "bounds", tuple(float(b) for b in bounds))

    @property
    def width(self) -> float:
        """The width of the box: what 1 is to images in 0..1.

        Without a box it is 1, the unit of standardized data.
        """
        if self.bounds is None:
            return 1.0
        lower, upper = self.bounds
        return upper - lower

    def clip(self, x_adv: tf.Tensor) -> tf.Tensor:
        """Clips images to the box, if there is one."""
        if self.bounds is None:
            return x_adv
        return tf.clip_by_value(x_adv, *self.bounds)

    def scaled(self, share: tf.Tensor) -> Self:
        """Returns the threat model with a share of its radius.

        Args:
            share: Scalar tensor in [0, 1]; the result is for use within the
                tensor's graph.
        """
        scaled = copy.copy(self)
        object.__setattr__(scaled, "epsilon", share * self.epsilon)
        return scaled

    def norm(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns each perturbation's norm, of shape `(batch,)`."""
        raise NotImplementedError

    def project(self, x: tf.Tensor, x_adv: tf.Tensor) -> tf.Tensor:
        """Returns the nearest point to `x_adv` in the ball around `x`."""
        raise NotImplementedError

    def ascent_direction(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the unit step along which the loss rises most."""
        raise NotImplementedError

    def random_start(self, x: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """Turns N(0, 1) `noise` into a uniform draw from the ball."""
        raise NotImplementedError

    def reach(
        self, x: tf.Tensor, normal: tf.Tensor, rise: tf.Tensor
    ) -> tf.Tensor:
        """Returns the smallest perturbation that meets a hyperplane in the box.

        ```python
        minimize norm(p) subject to sum(normal * p) == rise, x + p in bounds
        ```

        The answer moves every pixel along the direction of steepest ascent
        until it meets a bound, all for the same time `t`. What is gained by
        `t` is concave and linear in pieces, so Newton's method climbs to the
        time from below, in finitely many steps. Where even the box's best
        corner is too low, the answer is that corner.

        Args:
            x: Where to start, `(batch, ...)`, within the bounds.
            normal: The hyperplane's normal, of the same shape.
            rise: What `sum(normal * p)` has to come to, `(batch,)`.
        """
        count = tf.shape(x)[0]
        sign = per_example(tf.where(rise < 0, -1.0, 1.0), x)
        pace = self.ascent_direction(tf.cast(sign, x.dtype) * normal)
        lower, upper = self.bounds or (-math.inf, math.inf)
        room = tf.math.divide_no_nan(
            tf.where(pace < 0, x - lower, upper - x), tf.abs(pace)
        )
        room = tf.maximum(room, 0)
        gain, until = (
            tf.reshape(part, [count, -1])
            for part in (tf.abs(normal * pace), room)
        )
        rise = tf.abs(rise)[:, None]

        def newton(time, _):
            gained = tf.reduce_sum(gain * tf.minimum(time, until), 1, True)
            slope = tf.reduce_sum(tf.where(time < until, gain, 0), 1, True)
            more = tf.math.divide_no_nan(rise - gained, slope)
            # Who is there stays, however long the others of a batch take.
            going = more > _ROUNDING * time
            return tf.where(going, time + more, time), tf.reduce_any(going)

        time, _ = tf.while_loop(
            lambda _, more: more,
            newton,
            (tf.zeros_like(rise), tf.constant(True)),
            maximum_iterations=_NEWTON_STEPS,
        )
        return pace * tf.minimum(per_example(time, x), room)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class Linf(ThreatModel):
    """Every pixel may change by at most `epsilon`.

    ```python
    project(x, x_adv) == clip(x_adv, x - epsilon, x + epsilon)
    ascent_direction(g) == sign(g)
    ```

    Args:
        epsilon: Float, the largest change of a pixel, in the images' units.
        bounds: Pair of floats, the images' range, or `None` for data without
            bounds. Defaults to `(0.0, 1.0)`.

    Raises:
        ValueError: If `epsilon` is negative, not finite or above 1e18, or
            `bounds` do not increase or are as large.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    """

    def norm(self, perturbation: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(
            tf.abs(perturbation), axis=range(1, perturbation.shape.rank)
        )

    def project(self, x: tf.Tensor, x_adv: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(x_adv, x - self.epsilon, x + self.epsilon)

    def ascent_direction(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.sign(gradient)

    def random_start(self, x: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        # The normal distribution's CDF makes a normal draw uniform.
        return x + self.epsilon * tf.math.erf(noise / math.sqrt(2.0))


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class L2(ThreatModel):
    """The whole image may change by at most `epsilon` in Euclidean length.

    ```python
    project(x, x_adv) == x + (x_adv - x) * min(1, epsilon / norm(x_adv - x))
    ascent_direction(g) == g / norm(g)
    ```

    Args:
        epsilon: Float, the largest Euclidean length of the change of an
            image, in the images' units.
        bounds: Pair of floats, the images' range, or `None` for data without
            bounds. Defaults to `(0.0, 1.0)`.

    Raises:
        ValueError: If `epsilon` is negative, not finite or above 1e18, or
            `bounds` do not increase or are as large.

    Example:

    >>> threat_model = atent_keras.threat_models.L2(epsilon=0.5)
    """

    def norm(self, perturbation: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(perturbation, [tf.shape(perturbation)[0], -1])
        # Scaled by the largest entry, the squares neither under- nor overflow.
        largest = tf.reduce_max(tf.abs(flat), axis=1, keepdims=True)
        unit = tf.math.divide_no_nan(flat, largest)
        return tf.sqrt(tf.reduce_sum(unit * unit, axis=1)) * largest[:, 0]

    def project(self, x: tf.Tensor, x_adv: tf.Tensor) -> tf.Tensor:
        perturbation = x_adv - x
        length = tf.maximum(self.norm(perturbation), self.epsilon)
        # A cast would take the number through float32.
        epsilon = tf.convert_to_tensor(self.epsilon, length.dtype)
        shrink = tf.math.divide_no_nan(epsilon, length)
        return x + perturbation * per_example(shrink, perturbation)

    def ascent_direction(self, gradient: tf.Tensor) -> tf.Tensor:
        length = per_example(self.norm(gradient), gradient)
        return tf.math.divide_no_nan(gradient, length)

    def random_start(self, x: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        # A normal draw's direction is uniform, and its squared length, which
        # is chi-squared distributed and independent of the direction, becomes
        # through its own CDF the uniform number that the radius needs.
        dimensions = tf.cast(tf.size(noise[0]), noise.dtype)
        squared = tf.square(self.norm(noise))
        uniform = tf.math.igamma(dimensions / 2, squared / 2)
        radius = self.epsilon * uniform ** (1 / dimensions)
        return x + self.ascent_direction(noise) * per_example(radius, noise)
