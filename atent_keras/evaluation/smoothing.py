"""Randomized smoothing: a classifier whose robustness can be certified."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import stats

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import config
from atent_keras.attacks import accuracy
from atent_keras.attacks import noise as noise_lib
from atent_keras.attacks.loop import while_loop
from atent_keras.compiler import compiled
from atent_keras.evaluation.intervals import lower_bound
from atent_keras.threat_models import L2
from atent_keras.threat_models import is_finite
from atent_keras.threat_models import require_number
from atent_keras.types import Array
from atent_keras.types import Bounds
from atent_keras.types import Classifier
from atent_keras.types import Shape

# The answer where the samples do not decide.
ABSTAIN = -1

# The place of an image, the seed, and the number of samples.
_SCALARS = (
    tf.TensorSpec((), tf.int64),
    tf.TensorSpec((2,), tf.int64),
    tf.TensorSpec((), tf.int64),
)


class Certificates(NamedTuple):
    """Classes that can't be changed from within a radius, one for each image.

    Attributes:
        classes: Integers `(n,)`, `ABSTAIN` (-1) where there is no certificate.
        radii: Floats `(n,)`, in l_2 and in the images' units, 0 where there is
            no certificate.
    """

    classes: np.ndarray
    radii: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class SmoothedClassifier:
    """The class that a network gives most often to an image under noise.

    ```python
    g(x) = argmax(P(f(x + sigma * N(0, I)) == c) for c in classes)

    c = argmax(count(x, selection_samples))          # certify
    p = lower_bound(count(x, num_samples)[c])        # other samples
    radius = sigma * inverse_normal_cdf(p)           # if p > 1 / 2
    ```

    No perturbation of `x` that is shorter than the radius, in l_2 and in the
    images' units, changes `g(x)`. That holds with probability at least
    `1 - alpha` for each image, over the samples that are drawn. It is of `g`
    on all of R^d: neither the perturbed images nor the noisy ones, which are
    not clipped, need to keep the bounds. Train the network on images with
    noise of the same `sigma`, or it will not know them.

    An image's noise depends on the seed and on the image's place in its data
    set, not on how the images are batched nor on how many of them the network
    sees at once.

    Args:
        model: A Keras model, run in inference mode, or any callable that maps
            images to outputs `(batch, classes)` in TensorFlow. The largest
            output is the answer. A single output is that of the second of two
            classes: a logit, or a probability if the model's compiled loss
            says so or, where it is silent, the network ends in a sigmoid.
        sigma: Positive float, the standard deviation of the noise, in the
            images' units.
        bounds: Pair of floats, the range of the images before noise, or
            `None` for data without bounds. Defaults to `(0.0, 1.0)`.
        batch_size: Positive integer, how many noisy images the network sees
            at once. Memory grows with it, and not with the number of samples.
            Defaults to 1,000.

    Raises:
        ValueError, TypeError: If an argument is out of its range.

    Example:

    >>> smoothed = atent_keras.SmoothedClassifier(model, sigma=0.25)
    >>> smoothed.predict(x_test)
    >>> classes, radii = smoothed.certify(x_test, seed=0)
    >>> certified_accuracy = np.mean((classes == y_test) & (radii >= 0.5))

    References:
    - Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via
      randomized smoothing", ICML 2019, https://arxiv.org/abs/1902.02918.
    """

    model: Classifier
    sigma: float
    _: dataclasses.KW_ONLY
    bounds: Bounds = (0.0, 1.0)
    batch_size: int = 1000

    def __post_init__(self):
        if not callable(self.model):
            raise TypeError(
                "`model` must be a Keras model or a callable from images to "
                f"logits. Received: model={self.model!r}"
            )
        require_number(True, sigma=self.sigma)
        checks.require_count(batch_size=self.batch_size)
        object.__setattr__(self, "sigma", float(self.sigma))
        object.__setattr__(self, "bounds", L2(0.0, self.bounds).bounds)

    def predict(
        self,
        x: Array,
        num_samples: int = 1000,
        alpha: float = 0.001,
        seed: int | None = None,
        first: int | Array = 0,
    ) -> np.ndarray:
        """Returns the smoothed classifier's answers.

        ```python
        n = sorted(count(x, num_samples), reverse=True)
        argmax(count) if binomial_test(n[0], n[0] + n[1]) <= alpha else ABSTAIN
        ```

        Args:
            x: Floating-point images within the bounds, `(n, ...)`.
            num_samples: Positive integer, the noisy images for each image.
                Defaults to 1,000.
            alpha: Float in (0, 1), how likely an answer may be another than
                `g(x)`, for each image. Defaults to 0.001.
            seed: Integer; the same seed draws the same noise. Defaults to
                `None`, fresh randomness in every call.
            first: Integer, the place of the first image in its data set,
                where a data set is looked at batch by batch under one seed;
                or the places of all images, of shape `(n,)`.

        Returns:
            Integers `(n,)`, int64: classes, and `ABSTAIN` (-1) where a
            two-sided test can't tell the two most frequent classes apart.

        Raises:
            ValueError, TypeError: If an argument is out of its range, if there
                are too few samples to answer at all, or if images and network
                do not fit each other.
        """
        checks.require_count(num_samples=num_samples)
        _require_alpha(alpha)
        _require_enough(num_samples, alpha, lambda n: _differ(n, 0, alpha))
        counts = self.count(x, num_samples, seed, first)
        second, most = np.sort(counts, axis=1)[:, -2:].T
        differ = [_differ(*pair, alpha) for pair in zip(most, second)]
        return np.where(differ, np.argmax(counts, axis=1), ABSTAIN)

    def certify(
        self,
        x: Array,
        num_samples: int = 10_000,
        selection_samples: int = 100,
        alpha: float = 0.001,
        seed: int | None = None,
        first: int | Array = 0,
    ) -> Certificates:
        """Returns the answers with the radii within which they can't change.

        Args:
            x: Floating-point images within the bounds, `(n, ...)`.
            num_samples: Positive integer, the noisy images from which a
                class's probability is bounded. They limit the radius: where
                all of them agree it is `sigma * Phi^-1(alpha ** (1 /
                num_samples))`, 3.2 sigma with the defaults. Defaults to
                10,000.
            selection_samples: Positive integer, the noisy images, besides
                those, by which the class is chosen. Defaults to 100.
            alpha: Float in (0, 1), how likely a certificate may be wrong, for
                each image. Defaults to 0.001.
            seed: Integer; the same seed draws the same noise. Defaults to
                `None`, fresh randomness in every call.
            first: Integer, the place of the first image in its data set,
                where a data set is looked at batch by batch under one seed;
                or the places of all images, of shape `(n,)`.

        Returns:
            `Certificates(classes, radii)`: int64 and float64 arrays `(n,)`,
            `ABSTAIN` (-1) and 0 where the bound is at most 1/2.

        Raises:
            ValueError, TypeError: If an argument is out of its range, if there
                are too few samples for any certificate, or if images and
                network do not fit each other.
        """
        require_certifiable(num_samples, selection_samples, alpha)
        # A class that was chosen for its luck must not bring it along.
        seed = noise_lib.as_seed(seed)
        fold_in = tf.random.experimental.stateless_fold_in
        selection, estimation = (
            fold_in(seed, part) for part in tf.range(2, dtype=tf.int64)
        )
        chosen = self.count(x, selection_samples, selection, first)
        classes = np.argmax(chosen, axis=1)
        counts = self.count(x, num_samples, estimation, first)
        bounds = np.array(
            [
                lower_bound(count, num_samples, 1 - alpha)
                for count in counts[range(len(classes)), classes]
            ]
        )
        certain = bounds > 0.5
        radii = self.sigma * stats.norm.ppf(np.where(certain, bounds, 0.5))
        return Certificates(np.where(certain, classes, ABSTAIN), radii)

    def count(
        self,
        x: Array,
        num_samples: int = 1000,
        seed: int | None = None,
        first: int | Array = 0,
    ) -> np.ndarray:
        """Returns how often the network gives each class under noise.

        Args:
            x: Floating-point images within the bounds, `(n, ...)`.
            num_samples: Positive integer, the noisy images for each image.
                Defaults to 1,000.
            seed: Integer; the same seed draws the same noise. Defaults to
                `None`, fresh randomness in every call.
            first: Integer, the place of the first image in its data set; or
                the places of all images, of shape `(n,)`.

        Returns:
            Integers `(n, classes)`, int64; each row's sum is `num_samples`.

        Raises:
            ValueError, TypeError: If an argument is out of its range, or if
                images and network do not fit each other.
        """
        checks.require_count(num_samples=num_samples)
        seed = noise_lib.as_seed(seed)
        x = checks.images(x, self.bounds, "`SmoothedClassifier`")
        classes = self.num_classes(x.shape)

        def tally(self, *arguments):
            return self._tally(*arguments, classes)

        signature = tf.TensorSpec(x.shape[1:], x.dtype), *_SCALARS
        tally = compiled(self, classes, tally, signature)
        places = tf.cast(noise_lib.places(x, first), tf.int64)
        counts = []
        for image, place in zip(x, places, strict=True):
            found, finite = tally(image, place, seed, num_samples)
            checks.require_finite(finite, "noisy images")
            counts.append(found)
        return np.stack(counts)

    def num_classes(self, shape: Shape) -> int:
        """Returns the number of classes of images of a shape `(n, ...)`.

        Raises:
            ValueError: If the network does not give one row of outputs for
                each image, or a single one of unknown kind.
        """
        # Of several outputs the largest counts, on whatever scale they are.
        classes = checks.network(self.model, None, shape, self.bounds)
        if classes > 1:
            return classes
        loss = base_losses.of_model(self.model, tf.zeros(1))
        checks.network(self.model, loss, shape, self.bounds)
        self._loss(shape)
        return 2

    def _loss(self, shape):
        """Returns what tells a single output's logit from its probability."""
        loss = base_losses.of_model(self.model, tf.zeros(1))
        return checks.decided(self.model, loss, shape, self.bounds)

    def _tally(self, image, place, seed, num_samples, classes):
        """Returns one image's counts, and whether all outputs were finite."""
        predict, xla = checks.inference(self.model), config.uses_xla()

        def look(start, counts, finite):
            size = left = tf.minimum(num_samples - start, self.batch_size)
            if xla:  # which wants to know how many there are
                size = self.batch_size
            x = tf.repeat(image[None], size, axis=0)
            # The samples are a data set of which this batch has its rows, and
            # each image is a step: no draw depends on the size of the batch.
            noise = noise_lib.normal_noise(seed, x, start, xla)(place)
            noise.set_shape(x.shape)
            outputs = predict(x + self.sigma * noise)
            answers = self._answers(outputs, x.shape)
            beyond = tf.range(size, dtype=tf.int64) >= left
            # One-hot rows of -1 are empty.
            answers = tf.where(beyond, tf.constant(-1, tf.int64), answers)
            answers = tf.one_hot(answers, classes, dtype=tf.int64)
            numbers = tf.reduce_all(tf.math.is_finite(outputs), axis=1)
            return (
                start + left,
                counts + tf.reduce_sum(answers, axis=0),
                finite & tf.reduce_all(numbers | beyond),
            )

        return while_loop(
            lambda start, *_: start < num_samples,
            look,
            (
                tf.constant(0, tf.int64),
                tf.zeros(classes, tf.int64),
                tf.constant(True),
            ),
        )[1:]

    @property
    def run_eagerly(self) -> bool:
        """Whether the network runs without a graph, as Keras calls it."""
        return getattr(self.model, "run_eagerly", False)

    def _answers(self, outputs, shape):
        if outputs.shape[-1] > 1:
            return tf.argmax(outputs, axis=-1)
        # The second class, where that would be right.
        second = tf.ones(tf.shape(outputs)[:1], tf.int32)
        right = accuracy.is_correct(second, outputs, self._loss(shape))
        return tf.cast(right, tf.int64)


def _differ(most, second, alpha):
    """Whether two counts are too far apart to be those of even chances."""
    return stats.binomtest(most, most + second).pvalue <= alpha


def require_certifiable(num_samples, selection_samples, alpha):
    """Checks the settings of `SmoothedClassifier.certify`.

    Raises:
        ValueError: If one is out of its range, or so few samples certify
            nothing even where all of them agree.
    """
    checks.require_count(
        num_samples=num_samples, selection_samples=selection_samples
    )
    _require_alpha(alpha)
    _require_enough(
        num_samples, alpha, lambda n: lower_bound(n, n, 1 - alpha) > 0.5
    )


def _require_alpha(alpha):
    # The confidence has to be below 1 after rounding, too.
    if not is_finite(alpha) or not 0 < 1 - alpha < 1:
        raise ValueError(
            "`alpha` and `1 - alpha` must lie between 0 and 1. Received: "
            f"alpha={alpha!r}"
        )


def _require_enough(num_samples, alpha, decides):
    """Checks that so many samples decide if all of them agree."""
    if not decides(num_samples):
        enough = next(filter(decides, itertools.count(num_samples)))
        raise ValueError(
            f"`num_samples` must be at least {enough} for alpha={alpha}; fewer "
            "decide nothing, even where all of them agree. Received: "
            f"num_samples={num_samples}"
        )
