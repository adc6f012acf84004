"""Signs that attacks failed for want of a gradient, not for robustness."""

import dataclasses
import functools
import hashlib
import math

import numpy as np
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras.attacks.apgd import APGD
from atent_keras.attacks.attack import chunks
from atent_keras.attacks.auto_attack import AutoAttack
from atent_keras.attacks.pgd import PGD
from atent_keras.attacks.square import Square
from atent_keras.evaluation.description import describe
from atent_keras.evaluation.target import Target
from atent_keras.evaluation.target import fingerprint
from atent_keras.intervals import favours
from atent_keras.intervals import lower_bound
from atent_keras.threat_models import Linf

# Above these, a check fires.
LOST_GRADIENTS = 0.05  # share of the images
LEFT_AT_LARGEST_RADIUS = 0.05  # accuracy
GAIN = 0.01  # share of the images, with 95 % confidence
CHANCE = 0.01  # how likely an attack leads by luck alone: below this
NOISE = 1e-3  # difference of two passes, relative to the largest output

_RADII = 4


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
    def verdict(self):
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
    `AutoAttack` excepted since it contains Square, and APGD with 100 steps.

    Args:
        num_images: Positive integer: the first so many that the network
            classifies right are looked at. Defaults to 100.
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
    surrogate: object = None

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

    def admit(self, threat_model, x, y):
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

    def run(self, case, once=lambda name, find: find()):
        """Returns a tuple of one `Finding` a check.

        Args:
            case: A `Case`.
            once: Function of a name and of a function without arguments,
                which gives the latter's result, perhaps from an earlier run.
        """
        if not len(case.places):
            nothing = "the network classifies no image right"
            return tuple(Finding(name, None, nothing) for name in CHECKS)
        key = self._key(case)
        findings = []
        for name, check in CHECKS.items():
            fired, evidence = once(
                f"{name} {key}", functools.partial(check, self, case)
            )
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


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What the checks look at: images that the network classifies right.

    Attributes:
        target: The network, a `Target`.
        x, y: Images and labels, as tensors.
        places: The images' places in their data set, as a tensor `(batch,)`.
        attacks: Dictionary of the evaluation's attacks, at least one.
        succeeded: Dictionary from the name of an attack to the images, of
            these, that it fooled, booleans `(batch,)`.
        seed: Integer.
    """

    target: Target
    x: tf.Tensor
    y: tf.Tensor
    places: tf.Tensor
    attacks: dict
    succeeded: dict
    seed: int

    @property
    def threat_model(self):
        return next(iter(self.attacks.values())).threat_model

    @property
    def loss(self):
        return base_losses.of_model(self.target.model, self.y)

    @functools.cached_property
    def outputs(self):
        return self.target.outputs(self.x).numpy()

    @functools.cached_property
    def gives_probabilities(self):
        if self.outputs.shape[-1] == 1:
            return base_losses.from_logits(self.loss) is False
        return checks.are_probabilities(self.outputs)

    @functools.cached_property
    def gradients(self):
        """The loss's gradients, `(batch, pixels)`; `None` without any."""
        found = []
        for rows in chunks(len(self.places)):
            x, y = self.x[rows], self.y[rows]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                outputs = self.target.predict(x)
                losses = base_losses.per_example(self.loss, y, outputs)
            try:
                gradient = tape.gradient(losses, x)
            except LookupError:  # of an operation that has none
                gradient = None
            if gradient is None:
                return None
            found.append(gradient.numpy().reshape(len(x), -1))
        return np.concatenate(found)

    def comparable(self, names):
        """Returns who was fooled by any of these, under the threat model."""
        return np.logical_or.reduce(
            [np.zeros(len(self.places), bool)]
            + [
                self.succeeded[name]
                for name in names
                if self.attacks[name].threat_model == self.threat_model
            ]
        )

    @functools.cached_property
    def white_box(self):
        """Who was fooled by attacks that follow the gradient."""
        names = [
            name
            for name, attack in self.attacks.items()
            if getattr(attack, "uses_gradient", True)
            and not isinstance(attack, AutoAttack)
        ]
        fooled = self.comparable(names)
        if self.gradients is None:
            return fooled
        return fooled | self.fooled_by(APGD(self.threat_model))

    def fooled_by(self, attack):
        fooled, _, _ = self.target.attempt(
            attack, self.x, self.y, self.seed, self.places
        )
        return fooled

    def against_white_box(self, name, fooled):
        """Returns whether an attack beats those with a gradient, and why."""
        other = self.white_box
        alone, others = (
            int((fooled & ~other).sum()),
            int((other & ~fooled).sum()),
        )
        chance = favours(alone, others)
        return bool(chance < CHANCE), (
            f"{name} leaves {_percent(~fooled)}, attacks with a gradient "
            f"{_percent(~other)} of {len(fooled)} images; {alone} and {others} "
            f"fell to one of the two alone (p = {chance:.2g})"
        )


def zero_gradients(settings, case):
    if case.gradients is None:
        return True, "the loss has no gradient by the image"
    zero = ~case.gradients.any(axis=1)
    finite = np.isfinite(case.gradients).all(axis=1)
    return float(np.mean(zero | ~finite)) > LOST_GRADIENTS, (
        f"of the loss's gradients at {len(zero)} images {_percent(zero)} are "
        f"zero, {_percent(~finite)} not finite"
    )


def black_box(settings, case):
    if case.gives_probabilities or case.outputs.shape[-1] == 1:
        return None, "Square needs the logits of two or more classes"
    if case.x.shape.rank != 4:
        return None, "Square needs images (batch, height, width, channels)"
    square = Square(case.threat_model, settings.num_queries)
    name = f"Square ({settings.num_queries} queries)"
    return case.against_white_box(name, case.fooled_by(square))


def large_radius(settings, case):
    if case.gradients is None:
        return None, "PGD needs a gradient"
    norm, width = case.threat_model, np.ptp(case.threat_model.bounds)
    whole = width  # a ball that holds the box
    if not isinstance(norm, Linf):
        whole *= math.sqrt(math.prod(case.x.shape[1:]))
    smallest = min(max(norm.epsilon, whole / 16), whole)
    accuracies = []
    for radius in np.geomspace(smallest, whole, _RADII):
        ball = dataclasses.replace(norm, epsilon=float(radius))
        fooled = case.fooled_by(PGD(ball, num_steps=settings.num_steps))
        accuracies.append((radius, np.mean(~fooled)))
    return bool(accuracies[-1][1] > LEFT_AT_LARGEST_RADIUS), (
        f"accuracy under PGD-{settings.num_steps}: "
        + ", ".join(
            f"{100 * accuracy:.1f} % at {radius:.3g}"
            for radius, accuracy in accuracies
        )
        + f" (the whole box), {len(case.places)} images"
    )


def more_effort(settings, case):
    if case.gradients is None:
        return None, "PGD needs a gradient"
    standing = ~case.comparable(case.attacks)
    gains = {}
    steps = settings.num_steps
    for name, attack in {
        f"{5 * steps} steps": PGD(case.threat_model, num_steps=5 * steps),
        "5 restarts": PGD(case.threat_model, num_steps=steps, restarts=5),
    }.items():
        gains[name] = int((standing & case.fooled_by(attack)).sum())
    most = max(gains.values())
    return lower_bound(most, len(standing), 0.95) > GAIN, (
        f"of {len(standing)} images {standing.sum()} withstood all attacks; of "
        "these, PGD fools "
        + ", ".join(f"{count} with {name}" for name, count in gains.items())
    )


def randomness(settings, case):
    # Not compiled: a graph keeps what Python drew while it was made.
    rows = next(chunks(len(case.places)))
    one, other = (
        np.asarray(case.target.predict(case.x[rows]), "float64")
        for _ in range(2)
    )
    difference = np.abs(one - other).max() / max(np.abs(one).max(), 1e-30)
    return bool(difference > NOISE), (
        f"two passes over {len(one)} images differ by up to {difference:.1e} "
        "of the largest output"
    )


def probabilities(settings, case):
    sums = case.outputs.sum(axis=-1)
    return case.gives_probabilities, (
        f"outputs lie in {case.outputs.min():.3g} to {case.outputs.max():.3g} "
        f"and sum to {sums.min():.3g} to {sums.max():.3g}"
    )


def transfer(settings, case):
    if settings.surrogate is None:
        return None, "needs another network as a `surrogate`"
    if case.gives_probabilities or case.outputs.shape[-1] == 1:
        return None, "APGD, to compare with, needs the logits of classes"
    attack = PGD(case.threat_model, num_steps=settings.num_steps)
    x_adv = case.target.admissible(
        case.threat_model,
        case.x,
        attack(
            settings.surrogate,
            case.x,
            case.y,
            seed=case.seed,
            first=case.places,
        ),
    )
    fooled = ~case.target.correct(x_adv, case.y)
    name = f"PGD-{settings.num_steps} on another network"
    return case.against_white_box(name, fooled)


CHECKS = {
    "zero gradients": zero_gradients,
    "black box": black_box,
    "large radius": large_radius,
    "more effort": more_effort,
    "randomness": randomness,
    "probabilities": probabilities,
    "transfer": transfer,
}


def _percent(flags):
    return f"{100 * np.mean(flags):.1f} %"
