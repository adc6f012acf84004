"""How robust a network is: accuracies, clean and under each of attacks."""

import dataclasses
import inspect
import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks as entry
from atent_keras import config
from atent_keras.attacks.attack import Attack
from atent_keras.evaluation.batches import Digest
from atent_keras.evaluation.batches import batches
from atent_keras.evaluation.batches import count
from atent_keras.evaluation.case import Case
from atent_keras.evaluation.description import describe
from atent_keras.evaluation.masking import Finding
from atent_keras.evaluation.masking import MaskingChecks
from atent_keras.evaluation.pictures import Pictures
from atent_keras.evaluation.precision import tensor_float_32
from atent_keras.evaluation.report import WORST_CASE
from atent_keras.evaluation.report import AttackResult
from atent_keras.evaluation.report import RobustnessReport
from atent_keras.evaluation.results import PRECISION
from atent_keras.evaluation.results import Results
from atent_keras.evaluation.saved_model import load_classifier
from atent_keras.evaluation.target import Target
from atent_keras.threat_models import ThreatModel
from atent_keras.threat_models import is_finite
from atent_keras.types import Classifier
from atent_keras.types import Data
from atent_keras.types import Path
from atent_keras.version import __version__


def evaluate_robustness(
    model: Classifier | Path,
    data: Data,
    attacks: Mapping[str, Callable[..., Any]],
    seed: int = 0,
    *,
    folder: Path | None = None,
    checks: MaskingChecks | None = MaskingChecks(),
    confidence: float = 0.95,
    batch_size: int | None = None,
    allow_tf32: bool = False,
    class_names: Sequence[str] | None = None,
    verbose: int = 1,
) -> RobustnessReport:
    """Measures a network's accuracy, clean and under each of several attacks.

    ```python
    correct = f(x) == y
    for name, attack in attacks.items():
        x_adv = clip(project(x, attack(f, x, y)))
        robust[name] = correct & (f(x_adv) == y)
    worst_case = all(robust.values())       # of each example
    ```

    An example that is misclassified clean counts as misclassified under every
    attack, and is not attacked. What an attack returns is projected to its
    ball and clipped to its box before it is judged. The network runs in
    inference mode. Examples whose label the compiled loss ignores (Keras's
    `ignore_class`) are left out.

    With a `folder`, every batch that an attack is done with is on the disk at
    once. A run that was stopped goes on where it was when it is called again
    with the same folder; attacks that are added run alone. In the end the
    folder holds the report's files; see `RobustnessReport`.

    Args:
        model: A Keras model, a callable from images to logits, or the path of
            a SavedModel; see `atent_keras.load_classifier`.
        data: Batches `(x, y)`, e.g. a `tf.data.Dataset`, or a tuple of two
            arrays. Images are floating-point numbers within the threat
            model's bounds, of shape `(batch, ...)`, labels integers
            `(batch,)` or one-hot `(batch, classes)`. Their order and batches
            must be the same in a run that goes on.
        attacks: Dictionary from names to `atent_keras.attacks`, or to other
            callables of `(model, x, y, seed, first)` with a `threat_model`;
            `first` holds the images' places in their data set.
        seed: Integer, from which the attacks' randomness follows, whatever
            the size of the batches. Defaults to 0.
        folder: Path of the results. Defaults to `None`: none are written.
        checks: `MaskingChecks`, the search for signs of masked gradients,
            under the first attack's threat model. `None` leaves them out.
            Defaults to `MaskingChecks()`.
        confidence: Float in (0, 1), the confidence of the intervals. Defaults
            to 0.95.
        batch_size: Positive integer, how many images of a batch are looked at
            together. Defaults to `None`: see
            `atent_keras.config.set_batch_size`.
        allow_tf32: Boolean, whether a GPU may round float32 to TF32, which is
            faster. The report says so. Whatever TensorFlow was told before
            holds again afterwards. Defaults to `False`.
        class_names: Sequence of strings, one for each class, for the report's
            page. Defaults to `None`: their numbers.
        verbose: 0 for silence, 1 for a progress bar, and one of the checks.
            Defaults to 1.

    Returns:
        A `RobustnessReport`; `print` shows it as a table.

    Raises:
        ValueError, TypeError: If a setting is out of its range, if there are
            no data or attacks or the data have no end, if images, labels,
            names and network do not fit each other, if the network gives NaN
            or infinity for a clean image, or if `folder` belongs to another
            model, data set or setting, or is damaged.
        FileNotFoundError: If `model` is a path without a SavedModel.
        BlockingIOError: If another evaluation is at work in `folder`.
        OSError: If results can't be written; what was written is kept.

    Example:

    >>> attack = atent_keras.attacks.PGD(threat_model, num_steps=40)
    >>> report = atent_keras.evaluate_robustness(
    ...     model, (x_test, y_test), attacks={"PGD-40": attack}
    ... )
    >>> report.robust_accuracy["PGD-40"]

    References:
    - Carlini et al., "On evaluating adversarial robustness", 2019,
      https://arxiv.org/abs/1902.06705.
    """
    _require(attacks, seed, checks, confidence, verbose)
    if isinstance(model, (str, os.PathLike)):
        model = load_classifier(model)
    if not callable(model):
        raise TypeError(
            "`model` must be a Keras model, a callable from images to logits, "
            f"or the path of a SavedModel. Received: model={model!r}"
        )
    if not verbose:
        attacks = {name: _silent(attack) for name, attack in attacks.items()}
    if folder is not None:
        RobustnessReport.require_room(folder)
    with (
        config.batches_of(batch_size),
        tensor_float_32(allow_tf32),
        Results.alone(folder) as results,
    ):
        walk = Walk(model, attacks, int(seed), results, checks, class_names)
        results.require_reach(count(data))
        bar = Bar(count(data), attacks, verbose)
        for x, y in batches(data, walk.target.bounds):
            walk.batch(x, y, bar)
        bar.finish()
        if not walk.num_examples:
            left_out = ""
            if walk.num_ignored:
                left_out = f", with {walk.num_ignored} examples, all ignored"
            raise ValueError(
                f"`data` must not be empty. Received: data={data!r}{left_out}"
            )
        results.finish(num_examples=walk.num_examples)
        findings: tuple[Finding, ...] = ()
        if checks is not None:
            findings = checks.run(walk.case(), results.once, verbose)
        report = RobustnessReport(
            results.arrays["correct"],
            walk.attack_results(),
            findings,
            int(seed),
            walk.digest.value,
            float(confidence),
            walk.num_ignored,
            results.settings[PRECISION],
            None if class_names is None else tuple(class_names),
            results.pictures,
        )
        if folder is not None:
            report.save(folder)
        return report


def require_attackable(model, data, attack):
    """Checks the first batch of data as an evaluation would, without attacking.

    Args:
        model: A Keras model.
        data: As `evaluate_robustness` takes it.
        attack: An `atent_keras.attacks` attack.

    Raises:
        ValueError, TypeError: If images, labels and network do not fit each
            other, or the data have no end.
    """
    with Results.alone(None) as results:
        walk = Walk(model, {"attack": attack}, 0, results, None)
        for x, y in batches(data, walk.target.bounds):
            walk.admit(x, y)
            return
    raise ValueError(f"`data` must not be empty. Received: data={data!r}")


class Walk:
    """A pass over the data: what is known is kept, the rest is found out.

    Args:
        model, attacks, seed: As `evaluate_robustness` takes them.
        results: `Results`, perhaps of a pass that was stopped.
        checks: `MaskingChecks`, or `None`; the first images that are
            classified right are kept for them.
        class_names: Sequence of strings, or `None`.
    """

    def __init__(self, model, attacks, seed, results, checks, class_names=None):
        bounds = next(iter(attacks.values())).threat_model.bounds
        self.target, self.attacks = Target(model, bounds), attacks
        self.seed = seed
        self.results, self.digest = results, Digest()
        self.pictures = Pictures(results, self.target)
        self.class_names = class_names
        self.num_examples, self.num_batches, self.num_ignored = 0, 0, 0
        self.not_run = {}
        self.checks, self.sample = checks, []
        self.room = checks.num_images if checks else 0
        results.require(
            version=__version__,
            floatx=keras.config.floatx(),
            seed=seed,
            **{
                f"attack {name}": describe(attack)
                for name, attack in attacks.items()
            },
        )

    def batch(self, x, y, bar):
        """Attacks the next batch."""
        x, y = self.admit(x, y)
        if not x.shape[0]:
            bar.skip()
            return
        first, last = self.num_examples, self.num_examples + x.shape[0]
        if not first:
            threat_model = next(iter(self.attacks.values())).threat_model
            if self.checks is not None:
                self.checks.admit(threat_model, x, y)
            self.results.require_model(
                self.target.model, x.shape, threat_model.bounds
            )
            loss = base_losses.of_model(self.target.model, y)
            self.results.require(loss=describe(loss))
        digest = self.digest.update(x, y)
        self.results.require_batch(self.num_batches, last, digest)
        if self.results.known("correct") < last:
            outputs = self.target.outputs(x)
            correct = self.target.correct(x, y, outputs, finite=True)
            self.pictures.keep(first, x, y, outputs)
            self.results.append(correct=correct, last=[last], digest=[digest])
        correct = self.results.arrays["correct"][first:last]
        rows = np.flatnonzero(correct)
        # Errors are errors already, and need no attack.
        x, y, places = tf.gather(x, rows), tf.gather(y, rows), first + rows
        for name, attack in self.attacks.items():
            if isinstance(attack, Attack):
                self.not_run[name] = attack.left_out(x.shape)
            if self.results.known(f"{name}/succeeded") < last:
                attempt = self.target.attempt(attack, x, y, self.seed, places)
                self.pictures.keep_attacked(name, first, correct, y, attempt)
                self.results.append(
                    **{
                        f"{name}/succeeded": _spread(attempt.fooled, correct),
                        f"{name}/norm": _spread(attempt.norm, correct),
                        f"{name}/seconds": [attempt.seconds],
                    }
                )
            bar.update(self.results.arrays, last)
        self._keep(x, y, places)
        self.num_examples, self.num_batches = last, self.num_batches + 1

    def _keep(self, *batch):
        """Keeps images for the checks, which take those of one size."""
        if self.sample and not len(self.sample[0][-1]):
            self.sample.clear()
        if not self.sample or self.sample[0][0].shape[1:] == batch[0].shape[1:]:
            self.sample.append([part[: self.room] for part in batch])
            self.room -= len(self.sample[-1][-1])

    def admit(self, x, y):
        """Returns images and labels that count, checked for all attacks."""
        first = next(iter(self.attacks.values()))
        x = entry.images(x, first.threat_model.bounds)
        y = entry.labels(y, x)
        loss = base_losses.of_model(self.target.model, y)
        # Integers are right or wrong where one-hot rows were learned, too.
        fitting = None if base_losses.is_elementwise(loss) else loss
        for attack in self.attacks.values():
            x, y = entry.batch(
                self.target.model, fitting, attack.threat_model, x, y
            )
        total = x.shape[0]
        x, y = counted_alone(loss, x, y)
        self.num_ignored += total - x.shape[0]
        network = self.target.model, None, x.shape, self.target.bounds
        classes = entry.network(*network)
        entry.class_names(self.class_names, max(classes, 2))
        return x, entry.one_class(y, loss, classes)

    def case(self):
        """Returns what the checks look at."""
        x, y, places = (tf.concat(part, axis=0) for part in zip(*self.sample))
        succeeded = {
            name: self.results.arrays[f"{name}/succeeded"][places]
            for name in self.attacks
        }
        ends = np.unique(
            np.cumsum([0, *(len(part[0]) for part in self.sample)])
        )
        return Case(
            self.target,
            x,
            y,
            places,
            self.attacks,
            succeeded,
            self.seed,
            tuple(map(slice, ends[:-1], ends[1:])),
        )

    def attack_results(self):
        """Returns an `AttackResult` for each attack, by name."""
        arrays = self.results.arrays
        return {
            name: AttackResult(
                attack,
                arrays[f"{name}/succeeded"],
                arrays[f"{name}/norm"],
                float(arrays[f"{name}/seconds"].sum()),
                self.not_run.get(name, {}),
            )
            for name, attack in self.attacks.items()
        }


class Bar:
    """A progress bar, with the accuracies so far."""

    def __init__(self, batches, attacks, verbose):
        self.attacks, self.done, self.bar = attacks, 0, None
        if verbose:
            self.bar = keras.utils.Progbar(
                batches and batches * len(attacks),
                stateful_metrics=["clean", *attacks],
                unit_name="attack of a batch",
            )

    def update(self, arrays, last):
        self.done += 1
        if self.bar is None:
            return
        correct = arrays["correct"][:last]
        accuracies = [("clean", correct.mean())]
        for name in self.attacks:
            fooled = arrays.get(f"{name}/succeeded", np.zeros(0, bool))[:last]
            if len(fooled):
                robust = correct[: len(fooled)] & ~fooled
                accuracies.append((name, robust.mean()))
        self.bar.update(self.done, accuracies)

    def skip(self):
        """Counts a batch in which there is nothing to attack."""
        self.done += len(self.attacks)

    def finish(self):
        if self.bar is not None and self.bar.target is None:
            self.bar.update(self.done, finalize=True)


def counted_alone(loss, x, y):
    """Returns the images and labels that a loss counts; see `counted`."""
    counted = base_losses.counted(loss, y)
    if counted is None:
        return x, y
    return tf.boolean_mask(x, counted), tf.boolean_mask(y, counted)


def _spread(values, correct):
    """Returns values of the correct examples, and 0 for the others."""
    spread = np.zeros(len(correct), np.asarray(values).dtype)
    spread[correct] = values
    return spread


def _require(attacks, seed, checks, confidence, verbose):
    named = isinstance(attacks, dict) and bool(attacks)
    if not named or not all(map(_is_attack, attacks.values())):
        raise TypeError(
            "`attacks` must be a dictionary from names to at least one "
            "attack, one of `atent_keras.attacks` or another callable of "
            "(model, x, y, seed, first) with a `threat_model`. Received: "
            f"attacks={attacks!r}"
        )
    for name in attacks:
        fits = isinstance(name, str) and name.strip() and name.isprintable()
        if not fits or name in ("clean", WORST_CASE):
            raise ValueError(
                "The names of `attacks` must be printable strings, other than "
                f"'clean' and {WORST_CASE!r}. Received: {name!r}"
            )
    if checks is not None and not isinstance(checks, MaskingChecks):
        raise TypeError(
            "`checks` must be an `atent_keras.MaskingChecks`, or None. "
            f"Received: checks={checks!r}"
        )
    require_run(seed, confidence, verbose)


def _is_attack(attack):
    threat_model = getattr(attack, "threat_model", None)
    if not callable(attack) or not isinstance(threat_model, ThreatModel):
        return False
    try:
        inspect.signature(attack).bind("model", "x", "y", seed=0, first=0)
    except TypeError:
        return False
    return True


def _silent(attack):
    """Returns an attack that prints nothing of its own."""
    if getattr(attack, "verbose", 0) and dataclasses.is_dataclass(attack):
        return dataclasses.replace(attack, verbose=0)
    return attack


def require_run(seed, confidence, verbose):
    """Checks what every evaluation is asked for.

    Raises:
        ValueError, TypeError: If a setting is out of its range.
    """
    entry.require_seed(seed)
    if not is_finite(confidence) or not 0 < confidence < 1:
        raise ValueError(
            "`confidence` must lie between 0 and 1. Received: "
            f"confidence={confidence!r}"
        )
    if verbose not in (0, 1):
        raise ValueError(f"`verbose` must be 0 or 1. Received: {verbose!r}")
