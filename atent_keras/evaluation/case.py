"""What the checks for masked gradients look at."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras.attacks import gradients
from atent_keras.attacks.apgd import APGD
from atent_keras.attacks.auto_attack import AutoAttack
from atent_keras.evaluation.intervals import favours
from atent_keras.evaluation.target import Target

# How likely an attack leads another by luck alone: below this, it leads.
CHANCE = 0.01


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
        batches: Tuple of slices, the batches in which the images came. The
            network is given no more at once.
        progress: Function that is called for each batch that an attack of the
            checks is done with.
    """

    target: Target
    x: tf.Tensor
    y: tf.Tensor
    places: tf.Tensor
    attacks: dict
    succeeded: dict
    seed: int
    batches: tuple
    progress: object = lambda: None

    @property
    def threat_model(self):
        return next(iter(self.attacks.values())).threat_model

    @property
    def loss(self):
        """What attacks climb."""
        classes = self.outputs.shape[-1]
        return checks.default_loss(self.target.model, self.y, classes)

    @functools.cached_property
    def outputs(self):
        parts = [self.target.outputs(self.x[rows]) for rows in self.batches]
        outputs = np.concatenate(parts)
        # Sums in bfloat16 would hardly be any.
        return outputs.astype(np.promote_types(outputs.dtype, "float32"))

    @functools.cached_property
    def gives_probabilities(self):
        model = self.target.model
        loss = base_losses.of_model(model, self.y)
        if self.outputs.shape[-1] > 1 and not base_losses.is_binary(loss):
            if checks.are_probabilities(self.outputs):
                return True
        network = self.x.shape, self.threat_model.bounds
        return bool(checks.gives_probabilities(model, loss, *network))

    @functools.cached_property
    def gives_logits(self):
        """Whether the attacks that need logits can be run."""
        if self.gives_probabilities:
            return False
        model = self.target.model
        loss = base_losses.of_model(model, self.y)
        network = model, loss, self.x.shape, self.threat_model.bounds
        try:
            checks.require_logits("A check", *network)
        except ValueError:
            return False
        return True

    @functools.cached_property
    def gradients(self):
        """The loss's gradients, `(batch, pixels)`; `None` without any."""
        found = []
        for rows in self.batches:
            climbed = functools.partial(
                base_losses.per_example, self.loss, self.y[rows]
            )
            try:
                gradient, *_ = gradients.at(
                    self.target.predict, self.x[rows], climbed
                )
            except (LookupError, base_losses.NoGradientError):
                return None  # of an operation that has none
            found.append(gradient.numpy().reshape(len(gradient), -1))
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

    def fooled_by(self, attack, through=None):
        """Returns whom an attack fools, perhaps an attack on another network.

        Args:
            attack: An attack.
            through: The network that it is led by. Defaults to `None`: the
                one under evaluation.
        """
        found = []
        for rows in self.batches:
            fooled, *_ = self.target.attempt(
                attack,
                self.x[rows],
                self.y[rows],
                self.seed,
                self.places[rows],
                through,
            )
            found.append(fooled)
            self.progress()
        return np.concatenate(found)

    def against_white_box(self, name, fooled):
        """Returns whether an attack beats those with a gradient, and why."""
        other = self.white_box
        alone, others = (
            int((fooled & ~other).sum()),
            int((other & ~fooled).sum()),
        )
        chance = favours(alone, others)
        return bool(chance < CHANCE), (
            f"{name} leaves {percent(~fooled)}, attacks with a gradient "
            f"{percent(~other)} of {len(fooled)} images; {alone} and {others} "
            f"fell to one of the two alone (p = {chance:.2g})"
        )


def percent(flags):
    """Returns a share of flags as a string."""
    return f"{100 * np.mean(flags):.1f} %"
