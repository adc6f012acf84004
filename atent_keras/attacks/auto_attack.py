"""AutoAttack: what a claim of robustness has to withstand."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from typing_extensions import Self

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import config
from atent_keras import margins
from atent_keras.attacks import accuracy
from atent_keras.attacks import noise as noise_lib
from atent_keras.attacks.apgd import APGD
from atent_keras.attacks.apgdt import APGDT
from atent_keras.attacks.attack import Attack
from atent_keras.attacks.fab import FAB
from atent_keras.attacks.square import Square
from atent_keras.attacks.stages import AutoAttackResult
from atent_keras.attacks.stages import Bar
from atent_keras.attacks.stages import Stage
from atent_keras.compiler import any_batch
from atent_keras.compiler import compiled
from atent_keras.threat_models import per_example
from atent_keras.types import Array
from atent_keras.types import Classifier
from atent_keras.types import Shape

_SAMPLES = 20  # passes that "rand" averages over

_VERSIONS = {
    "standard": lambda norm: (APGD(norm), APGDT(norm), FAB(norm), Square(norm)),
    "plus": lambda norm: (
        APGD(norm, restarts=5),
        APGD(norm, restarts=5, loss=margins.DLR()),
        FAB(norm, targets=None, restarts=5),
        Square(norm),
        APGDT(norm),
        FAB(norm),
    ),
    "rand": lambda norm: (
        APGD(norm, num_samples=_SAMPLES),
        APGD(norm, num_samples=_SAMPLES, loss=margins.DLR()),
    ),
}


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class AutoAttack(Attack):
    """Runs several unlike attacks in turn, each on what still stands.

    ```python
    for attack in attacks:
        standing = f(x_adv) == y
        x_adv[standing] = attack(model, x[standing], y[standing])
    ```

    | `version` | attacks |
    |---|---|
    | `"standard"` | APGD-CE, APGD-T and FAB-T (9 targets each), Square |
    | `"plus"` | APGD-CE, APGD-DLR, FAB (5 restarts each), then Square, |
    | | APGD-T and FAB-T |
    | `"rand"` | APGD-CE and APGD-DLR, averaged over 20 passes |

    with 100 steps each, and 5,000 queries. `"standard"` is what the field
    reports; `"rand"` is for networks that draw random numbers. There is
    nothing to tune. Of what Square has no rule for, such as tables `(batch,
    features)`, these versions run the rest, and say so: in the result's
    `not_run`, and in the reports of `evaluate_robustness`.

    Args:
        threat_model: `Linf` or `L2`.
        version: `"standard"`, `"plus"`, `"rand"`, or a list of attacks under
            the same threat model. Defaults to `"standard"`.
        verbose: 0 for silence, 1 for a progress bar with the robust accuracy
            so far, 2 for a line after each stage. Defaults to 1.

    Raises:
        ValueError, TypeError: If a setting is out of its range; in a call, if
            images, labels and network do not fit each other, the network's
            outputs are no finite logits, or an attack of a list can't be run
            on such images.
        UserWarning: In a call, if there are fewer wrong classes than an attack
            of a list has targets, or the network's gradient is zero.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> attack = atent_keras.attacks.AutoAttack(threat_model)
    >>> result = attack.evaluate(model, x, y, seed=0)
    >>> print(result)
    >>> result.stages[-1].accuracy

    References:
    - Croce & Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks", ICML 2020,
      https://arxiv.org/abs/2003.01690.
    """

    version: str | Sequence[Attack] = "standard"
    verbose: int = 1

    def __post_init__(self):
        super().__post_init__()
        version = self.version
        if isinstance(version, list):
            version = tuple(version)
            object.__setattr__(self, "version", version)
        known = isinstance(version, str) and version in _VERSIONS
        if not known and not (
            isinstance(version, tuple)
            and version
            and all(isinstance(attack, Attack) for attack in version)
            and not any(isinstance(attack, AutoAttack) for attack in version)
        ):
            names = ", ".join(map(repr, _VERSIONS))
            raise ValueError(
                f"`version` must be one of {names}, or a list of at least one "
                f"attack, AutoAttack excepted. Received: version={version!r}"
            )
        for attack in self.attacks:
            if attack.threat_model != self.threat_model:
                raise ValueError(
                    "`version` must list attacks under the same threat model, "
                    f"{self.threat_model}. Received: {attack}"
                )
        if self.verbose not in (0, 1, 2):
            raise ValueError(
                "`verbose` must be 0, 1 or 2. Received: "
                f"verbose={self.verbose!r}"
            )

    @property
    def attacks(self) -> Sequence[Attack]:
        """The attacks, in their order."""
        if isinstance(self.version, tuple):
            return self.version
        return _VERSIONS[str(self.version)](self.threat_model)

    def left_out(self, shape: Shape) -> dict[str, str]:
        if isinstance(self.version, tuple):
            # What is asked for by name refuses what it can't do.
            return {}
        reasons = {one.name: one.inapplicable(shape) for one in self.attacks}
        return {name: reason for name, reason in reasons.items() if reason}

    def __call__(
        self,
        model: Classifier,
        x: Array,
        y: Array,
        seed: int | None = None,
        first: int | Array = 0,
        batch_size: int | None = None,
    ) -> tf.Tensor:
        if tf.executing_eagerly():
            return self.evaluate(model, x, y, seed, first, batch_size).x_adv
        return super().__call__(model, x, y, seed, first, batch_size)

    def evaluate(
        self,
        model: Classifier,
        x: Array,
        y: Array,
        seed: int | None = None,
        first: int | Array = 0,
        batch_size: int | None = None,
    ) -> AutoAttackResult:
        """Attacks images, and says what each attack has left.

        Args:
            model: As in a call.
            x: As in a call.
            y: As in a call.
            seed: As in a call.
            first: As in a call.
            batch_size: As in a call.

        Returns:
            An `AutoAttackResult`.
        """
        with config.batches_of(batch_size):
            return self._evaluate(model, x, y, seed, first)

    def _evaluate(self, model, x, y, seed, first):
        x = checks.images(x, self.threat_model.bounds)
        y, plan, _ = self._admit(model, x, checks.labels(y, x))
        if self.uses_gradient:
            self._look_for_a_gradient(model, x)
        seed = noise_lib.as_seed(seed)
        places = noise_lib.places(x, first)
        start = time.perf_counter()
        standing = self._withstand(model, x, y)
        x_adv, stages = x.numpy().copy(), []

        def record(name):
            nonlocal start
            now = time.perf_counter()
            stages.append(Stage(name, float(standing.mean()), now - start))
            start = now
            if self.verbose == 2:
                print(AutoAttackResult(x_adv, stages[-1:]), flush=True)

        record("clean")
        for attack, loss, labels, classes in plan:
            rows = np.flatnonzero(standing)
            if rows.size:
                bar = Bar(attack.name, standing, self.verbose == 1)
                found = attack._perform(
                    model,
                    loss,
                    *(tf.gather(part, rows) for part in (x, labels)),
                    seed,
                    tf.gather(places, rows),
                    classes,
                    bar.progress,
                )
                found = self._within(tf.gather(x, rows), found)
                labels = tf.gather(y, rows)
                standing[rows] = self._withstand(model, found, labels)
                fooled = ~standing[rows]
                x_adv[rows[fooled]] = found.numpy()[fooled]
                bar.finish(standing)
            record(attack.name)
        not_run = self.left_out(x.shape)
        if self.verbose:
            for name, reason in not_run.items():
                print(f"{name} not run: {reason}", flush=True)
        return AutoAttackResult(tf.constant(x_adv), tuple(stages), not_run)

    @property
    def uses_gradient(self) -> bool:
        return any(attack.uses_gradient for attack in self.attacks)

    def _admit(self, model, x, y):
        network = model, None, x.shape, self.threat_model.bounds
        plan, left_out = [], self.left_out(x.shape)
        for attack in self.attacks:
            if attack.name in left_out:
                continue
            labels = y
            if isinstance(attack, APGD) and attack.loss is None:
                # Cross-entropy, whatever the model was compiled with.
                labels = self._for_cross_entropy(model, x, y)
                attack = dataclasses.replace(
                    attack, loss=base_losses.of_model(None, labels)
                )
            if isinstance(self.version, str) and getattr(attack, "targets", 0):
                # Nobody asked for more than there are.
                others = max(checks.network(*network), 2) - 1
                attack = dataclasses.replace(
                    attack, targets=min(attack.targets, others)
                )
            labels, loss, classes = attack._admit(model, x, labels)
            plan.append((attack, loss, labels, classes))
        # Each of them has to be right or wrong, whatever it is that climbs.
        outputs = checks.network(*network)
        y = checks.one_class(y, base_losses.of_model(model, y), outputs)
        return y, plan, classes

    def _for_cross_entropy(self, model, x, y):
        """Returns -1 and 1, which a single output may have, as 0 and 1."""
        network = model, None, x.shape, self.threat_model.bounds
        if checks.network(*network) > 1:
            return y
        return margins.class_labels(checks.one_class(y, None, 1), 1)

    def _attack(self, model, plan, x, y, seed, first):
        predict = checks.inference(model)
        standing, x_adv = _is_correct(y, predict(x)), x
        for attack, loss, labels, _ in plan:
            found = attack._attack(model, loss, x, labels, seed, first)
            found = self._within(x, found)
            fooled = standing & ~_is_correct(y, predict(found))
            x_adv = tf.where(per_example(fooled, x), found, x_adv)
            standing &= ~fooled
        return x_adv

    def _within(self, x, found):
        """Brings back what an attack without projection found elsewhere."""
        return self.threat_model.clip(self.threat_model.project(x, found))

    def _withstand(self, model, x, y):
        """Returns which images the network classifies right, as an array."""

        def judge(model, x, y):
            logits = checks.inference(model)(x)
            finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
            return _is_correct(y, logits), finite

        judge = compiled(model, "judge", judge, (any_batch(x), any_batch(y)))
        parts = judge.over(x.shape[0], lambda rows: (x[rows], y[rows]))
        correct, finite = (
            np.concatenate(part) for part in zip(*(found for _, found in parts))
        )
        checks.require_finite(finite.all())
        return correct

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if isinstance(self.version, tuple):
            config["version"] = [
                keras.saving.serialize_keras_object(attack)
                for attack in self.version
            ]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        if isinstance(config.get("version"), (list, tuple)):
            config["version"] = [
                keras.saving.deserialize_keras_object(attack)
                for attack in config["version"]
            ]
        return super().from_config(config)


def _is_correct(y, logits):
    return accuracy.is_correct(y, logits, margins.Margin())
