"""Signs that attacks failed for want of a gradient, not for robustness."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import keras

from atent_keras import base_losses
from atent_keras import checks
from atent_keras.evaluation.case import Case
from atent_keras.evaluation.description import describe
from atent_keras.evaluation.signs import ATTACKS
from atent_keras.evaluation.signs import CHECKS
from atent_keras.evaluation.target import fingerprint
from atent_keras.threat_models import ThreatModel
from atent_keras.types import Array
from atent_keras.types import Classifier


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        check: String, the check's name.
        fired: Boolean, whether it saw the sign that it looks for; `None` if
            it could not be run.
        evidence: String, the figures behind the verdict.
    """

    check: str
    fired: bool | None
    evidence: str

    @property
    def verdict(self) -> str:
        """`"fired"`, `"silent"` or `"not run"`."""
        return {True: "fired", False: "silent", None: "not run"}[self.fired]

    def __str__(self):
        return f"{self.check:<18}  {self.verdict:<7}  {self.evidence}"


@dataclasses.dataclass(frozen=True)
class MaskingChecks:
    """Looks for signs that a network hides its gradient from attacks.

    | check | fires if |
    |---|---|
    | zero gradients | more than 5 % of the loss's gradients by the image are |
    | | zero, not finite or not there |
    | black box | Square, which needs no gradient, fools more images than the |
    | | attacks that follow one (sign test, p < 0.01) |
    | large radius | over 5 % withstand PGD in a ball as large as the box |
    | more effort | five times the steps, or five restarts, fool images that |
    | | withstood all attacks, over 1 % of all (95 % confidence) |
    | randomness | two passes over the same images differ |
    | probabilities | the outputs are probabilities, not logits |
    | transfer | PGD on another network fools more images than the attacks |
    | | that follow this one's gradient (sign test, p < 0.01) |

    A check that fires does not prove a fault, and silence proves nothing: it
    says where the reported robustness may be an illusion, or the attacks too
    weak. The attacks that follow the gradient are those of the evaluation,
    `AutoAttack` excepted since it contains Square, and APGD with 100 steps. A
    check that can't be run says why: there is no largest radius without bounds.

    Args:
        num_images: Positive integer: the first so many that the network
            classifies right are looked at, of images of several sizes those
            of the size that comes first. Defaults to 100.
        num_steps: Positive integer, the steps of PGD. Defaults to 40.
        num_queries: Positive integer, the queries of Square. Defaults to
            1,000.
        surrogate: A Keras model or a callable from images to logits, another
            network for the same task, best trained plainly. Defaults to
            `None`: the last check is not run.

    Raises:
        ValueError, TypeError: If an argument is out of its range.

    Example:

    >>> report = atent_keras.evaluate_robustness(
    ...     model,
    ...     (x_test, y_test),
    ...     {"PGD-40": attack},
    ...     checks=atent_keras.MaskingChecks(surrogate=plain_model),
    ... )
    >>> [finding.check for finding in report.findings if finding.fired]

    References:
    - Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of
      security", ICML 2018, https://arxiv.org/abs/1802.00420.
    - Carlini et al., "On evaluating adversarial robustness", 2019,
      https://arxiv.org/abs/1902.06705.
    """

    num_images: int = 100
    num_steps: int = 40
    num_queries: int = 1000
    surrogate: Classifier | None = None

    def __post_init__(self):
        checks.require_count(
            num_images=self.num_images,
            num_steps=self.num_steps,
            num_queries=self.num_queries,
        )
        if self.surrogate is not None and not callable(self.surrogate):
            raise TypeError(
                "`surrogate` must be a Keras model or a callable from images "
                f"to logits. Received: surrogate={self.surrogate!r}"
            )

    def admit(self, threat_model: ThreatModel, x: Array, y: Array) -> None:
        """Checks the surrogate against images and labels.

        Raises:
            ValueError: If it does not fit them.
        """
        if self.surrogate is None:
            return
        loss = base_losses.of_model(self.surrogate, y)
        try:
            checks.batch(self.surrogate, loss, threat_model, x, y)
        except Exception as error:
            raise ValueError(
                "`surrogate` must take the same images and labels as the "
                "network under evaluation, and give logits. Received: "
                f"surrogate={self.surrogate!r}, with which: {error}"
            ) from error

    def run(
        self,
        case: Case,
        once: Callable[..., Any] = lambda name, find: find(),
        verbose: int = 0,
    ) -> tuple[Finding, ...]:
        """Returns a tuple of one `Finding` a check.

        Args:
            case: A `Case`.
            once: Function of a name and of a function without arguments,
                which gives the latter's result, perhaps from an earlier run.
            verbose: 0 for silence, 1 for a progress bar. Defaults to 0.
        """
        if not len(case.places):
            nothing = "the network classifies no image right"
            return tuple(Finding(name, None, nothing) for name in CHECKS)
        key = self._key(case)
        bar = Bar(len(case.batches), verbose)
        case = dataclasses.replace(case, progress=bar.attacked)
        findings = []
        for name, check in CHECKS.items():
            fired, evidence = once(
                f"{name} {key}", functools.partial(check, self, case)
            )
            bar.finish(name)
            findings.append(Finding(name, fired, evidence))
        return tuple(findings)

    def _key(self, case):
        """Returns a digest of all that a finding depends on."""
        surrogate = self.surrogate
        if surrogate is not None:
            surrogate = fingerprint(
                surrogate, case.x.shape, case.threat_model.bounds
            )
        parts = (
            *(self.num_images, self.num_steps, self.num_queries, surrogate),
            *(repr(case.threat_model), len(case.places)),
            *sorted(
                f"{name}: {describe(one)}" for name, one in case.attacks.items()
            ),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


class Bar:
    """A progress bar of the checks, which shows as soon as one attacks.

    Args:
        batches: Integer, the number of batches that each attack goes through.
        verbose: 0 for silence, 1 for the bar.
    """

    def __init__(self, batches, verbose):
        self.batches, self.verbose = batches, verbose
        self.done, self.before, self.bar = 0, 0, None

    def attacked(self):
        """Counts one more batch."""
        if self.verbose and self.bar is None:
            print("checks for masked gradients", flush=True)
            total = self.batches * sum(ATTACKS.values())
            self.bar = keras.utils.Progbar(total, unit_name="attack of a batch")
        self._show(self.done + 1)

    def finish(self, check):
        """Counts all of a check's attacks, even if it ran none."""
        self.before += self.batches * ATTACKS.get(check, 0)
        self._show(self.before)

    def _show(self, done):
        if self.bar is not None and done > self.done:
            self.bar.update(done)
        self.done = done
