"""How many images a smoothed classifier is right about, with a guarantee."""

import dataclasses
import json
import time
from typing import Any

import keras
import numpy as np

from atent_keras import base_losses
from atent_keras import checks as entry
from atent_keras import margins
from atent_keras.evaluation import page
from atent_keras.evaluation import table
from atent_keras.evaluation.batches import Digest
from atent_keras.evaluation.batches import batches
from atent_keras.evaluation.batches import split
from atent_keras.evaluation.precision import tensor_float_32
from atent_keras.evaluation.report import Report
from atent_keras.evaluation.results import PRECISION
from atent_keras.evaluation.results import Results
from atent_keras.evaluation.robustness import counted_alone
from atent_keras.evaluation.robustness import require_run
from atent_keras.evaluation.smoothing import SmoothedClassifier
from atent_keras.evaluation.smoothing import require_certifiable
from atent_keras.types import Data
from atent_keras.types import Path
from atent_keras.version import __version__

# Images between two looks at the disk: few, since each takes many samples.
_SIZE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class CertificationReport(Report):
    """Certified accuracies in [0, 1], over all of the examples.

    An example counts at a radius if the smoothed classifier's class is right,
    and can't be changed from within that radius. `print` shows a table; `save`
    writes `certificates.json`, `certificates.md`, `certificates.csv`, the page
    `certificates.html`, and `certificates.npz`, which holds `correct`,
    `classes` and `radii`.

    Attributes:
        correct: Booleans `(num_examples,)`, whether the certified class is the
            right one; False where there is no certificate.
        classes: Integers `(num_examples,)`, the certified class, -1 where
            there is no certificate.
        radii: Floats `(num_examples,)`, in l_2 and in the images' units, 0
            where there is no certificate.
        sigma: Float, the standard deviation of the noise.
        num_samples: Integer, the noisy images that a radius comes from.
        selection_samples: Integer, those that the class is chosen by.
        alpha: Float, how likely each certificate may be wrong.
        seconds: Float, the time that it took.
        seed: Integer, the seed of the noise.
        data: String, a digest of the images and labels.
        confidence: Float, the confidence of the intervals.
        num_ignored: Integer, the number of further examples, which were left
            out since the network's loss ignores their label.
        precision: String, in what the network computed; see
            `RobustnessReport`.
    """

    correct: np.ndarray
    classes: np.ndarray
    radii: np.ndarray
    sigma: float
    num_samples: int
    selection_samples: int
    alpha: float
    seconds: float = 0.0
    seed: int = 0
    data: str = ""
    confidence: float = 0.95
    num_ignored: int = 0
    precision: str = ""

    NAME = "certificates"

    def certified_accuracy(self, radius: float) -> float:
        """Returns the share of examples that are certified at a radius.

        Args:
            radius: Float, in l_2 and in the images' units.
        """
        return float(np.mean(self.correct & (self.radii >= radius)))

    @property
    def abstained(self) -> float:
        """Float, the share of examples without a certificate."""
        return float(np.mean(self.classes < 0))

    def rows(self) -> list[dict[str, Any]]:
        # In steps of half of sigma, up to where nothing is certified any more.
        largest = np.max(self.radii, initial=0.0, where=self.correct)
        steps = np.arange(1 + int(largest / (self.sigma / 2)) + 1)
        found = []
        for radius in (self.sigma / 2 * steps).tolist():
            certified = self.certified_accuracy(radius)
            low, high = self.interval(certified)
            found.append(
                {
                    "radius": radius,
                    "accuracy": certified,
                    "low": low,
                    "high": high,
                }
            )
        return found

    def _cells(self):
        return [
            [
                f"{row['radius']:.4g}",
                table.percent(row["accuracy"]),
                table.between((row["low"], row["high"])),
            ]
            for row in self.rows()
        ]

    def _caption(self):
        return (
            f"certified accuracy on {self.num_examples} examples"
            f"{self.left_out} by smoothing with sigma {self.sigma:g}: "
            f"{self.num_samples} samples, and {self.selection_samples} to "
            f"choose the class, alpha {self.alpha:g}, seed {self.seed}"
            f"{self.in_precision}; "
            f"{table.percent(self.abstained)} without a certificate"
        )

    @property
    def _header(self):
        return [
            "l_2 radius",
            "accuracy",
            f"{100 * self.confidence:g} % interval",
        ]

    def __str__(self):
        cells = table.text([self._header, *self._cells()])
        return f"{self._caption()}\n{cells}\n{self.seconds:.1f} s"

    def to_markdown(self) -> str:
        caption = self._caption()
        return (
            f"{caption[0].upper()}{caption[1:]}. {self.seconds:.1f} s, "
            f"atent_keras {__version__}; intervals by Clopper and Pearson.\n\n"
            + table.markdown(self._header, self._cells())
        )

    def to_html(self) -> str:
        return page.of_certificates(self, self._caption())

    def to_json(self) -> str:
        arrays = self.arrays()
        settings = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in arrays
        }
        return json.dumps(
            {
                "num_examples": self.num_examples,
                "abstained": self.abstained,
                "rows": self.rows(),
                **settings,
                "version": __version__,
            },
            indent=2,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "correct": self.correct,
            "classes": self.classes,
            "radii": self.radii,
        }


def certify_robustness(
    smoothed: SmoothedClassifier,
    data: Data,
    num_samples: int = 10_000,
    selection_samples: int = 100,
    alpha: float = 0.001,
    seed: int = 0,
    *,
    folder: Path | None = None,
    confidence: float = 0.95,
    allow_tf32: bool = False,
    verbose: int = 1,
) -> CertificationReport:
    """Measures the certified accuracy of a smoothed classifier.

    ```python
    classes, radii = smoothed.certify(x)
    certified_accuracy = mean((classes == y) & (radii >= radius))
    ```

    With a `folder`, a run that was stopped goes on where it was when it is
    called again with the same folder, which in the end holds the report's
    files; see `CertificationReport`. It may be that of `evaluate_robustness`.

    Args:
        smoothed: A `SmoothedClassifier`.
        data: Batches `(x, y)`, e.g. a `tf.data.Dataset`, or a tuple of two
            arrays. Images are floating-point numbers within the classifier's
            bounds, of shape `(batch, ...)`, labels integers `(batch,)` or
            one-hot `(batch, classes)`. Their order and batches must be the
            same in a run that goes on.
        num_samples: See `SmoothedClassifier.certify`.
        selection_samples: See `SmoothedClassifier.certify`.
        alpha: See `SmoothedClassifier.certify`.
        seed: Integer, from which the noise follows, whatever the size of the
            batches. Defaults to 0.
        folder: Path of the results. Defaults to `None`: none are written.
        confidence: Float in (0, 1), the confidence of the intervals of the
            accuracies, over the choice of images. Defaults to 0.95.
        allow_tf32: Boolean, whether a GPU may round float32 to TF32; see
            `evaluate_robustness`. Defaults to `False`.
        verbose: 0 for silence, 1 for a progress bar. Defaults to 1.

    Returns:
        A `CertificationReport`; `print` shows it as a table.

    Raises:
        ValueError, TypeError: If there are no data, if a setting is out of
            its range or too few samples are asked for to certify anything, if
            images, labels and network do not fit each other, or if `folder`
            belongs to another model, data set or setting, or is damaged.
        BlockingIOError: If another certification is at work in `folder`.
        OSError: If results can't be written; what was written is kept.

    Example:

    >>> smoothed = atent_keras.SmoothedClassifier(model, sigma=0.25)
    >>> report = atent_keras.certify_robustness(smoothed, (x_test, y_test))
    >>> report.certified_accuracy(0.5)

    References:
    - Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via
      randomized smoothing", ICML 2019, https://arxiv.org/abs/1902.02918.
    """
    if not isinstance(smoothed, SmoothedClassifier):
        raise TypeError(
            "`smoothed` must be an `atent_keras.SmoothedClassifier`. Received: "
            f"{smoothed!r}"
        )
    require_run(seed, confidence, verbose)
    require_certifiable(num_samples, selection_samples, alpha)
    if folder is not None:
        CertificationReport.require_room(folder)
    name = "certificates_progress"
    with tensor_float_32(allow_tf32), Results.alone(folder, name) as results:
        results.require(
            version=__version__,
            floatx=keras.config.floatx(),
            seed=int(seed),
            sigma=smoothed.sigma,
            bounds=smoothed.bounds,
            num_samples=int(num_samples),
            selection_samples=int(selection_samples),
            alpha=float(alpha),
        )
        digest, last = Digest(), 0
        bar = keras.utils.Progbar(
            None,
            verbose=verbose,
            stateful_metrics=["certified"],
            unit_name="image",
        )
        num_ignored = 0

        def admitted():
            nonlocal num_ignored
            for x, y in batches(data, smoothed.bounds):
                x, y, ignored = _admit(smoothed, x, y)
                num_ignored += ignored
                yield x, y

        for number, (x, y) in enumerate(split(admitted(), _SIZE)):
            if not number:
                results.require_model(smoothed.model, x.shape, smoothed.bounds)
            first, last = last, last + x.shape[0]
            known = digest.update(x, y)
            results.require_batch(number, last, known)
            if results.known("correct") < last:
                start = time.perf_counter()
                classes, radii = smoothed.certify(
                    x, num_samples, selection_samples, alpha, seed, first
                )
                results.append(
                    correct=classes == y.numpy(),
                    classes=classes,
                    radii=radii,
                    last=[last],
                    digest=[known],
                    **{"certificates/seconds": [time.perf_counter() - start]},
                )
            certified = results.arrays["correct"][:last].mean()
            bar.update(last, [("certified", certified)], finalize=False)
        if not last:
            raise ValueError(
                f"`data` must not be empty. Received: data={data!r}"
            )
        bar.update(last, finalize=True)
        results.finish(num_examples=last)
        arrays = results.arrays
        report = CertificationReport(
            arrays["correct"],
            arrays["classes"],
            arrays["radii"],
            smoothed.sigma,
            int(num_samples),
            int(selection_samples),
            float(alpha),
            float(arrays["certificates/seconds"].sum()),
            int(seed),
            digest.value,
            float(confidence),
            num_ignored,
            results.settings[PRECISION],
        )
        if folder is not None:
            report.save(folder)
        return report


def _admit(smoothed, x, y):
    """Returns images, and labels as integers, that fit each other.

    And the number of those that were left out, being ignored.
    """
    x = entry.images(x, smoothed.bounds)
    y = entry.labels(y, x)
    smoothed.num_classes(x.shape)
    loss = base_losses.of_model(smoothed.model, y)
    network = smoothed.model, None, x.shape, smoothed.bounds
    outputs, total = entry.network(*network), x.shape[0]
    x, y = counted_alone(loss, x, y)
    y = margins.class_labels(entry.one_class(y, loss, outputs), outputs)
    return x, y, total - x.shape[0]
