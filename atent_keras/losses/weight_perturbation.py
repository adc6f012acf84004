"""AWP: any robust loss, at weights that were made worse first."""

import operator
from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Self

from atent_keras import checks
from atent_keras import distribution
from atent_keras import presets
from atent_keras.losses.adversarial import AdversarialLoss
from atent_keras.losses.network import Network
from atent_keras.losses.robust_loss import RobustLoss
from atent_keras.losses.trades import TRADESLoss
from atent_keras.threat_models import L2
from atent_keras.threat_models import require_number
from atent_keras.types import Array
from atent_keras.types import Loss

# Whose norms are safe at zero, and where squares would underflow.
_BALL = L2(0.0)


@keras.saving.register_keras_serializable("atent_keras")
class AdversarialWeightPerturbation(RobustLoss):
    """A robust loss, at the weights' worst neighbours.

    ```python
    points = loss.points(f, x, y)
    for w in kernels:
        g = gradient(loss.at(points), w)
        perturbed[w] = w + gamma * norm(w) * g / norm(g)
    gradient(loss.at(points) + penalties, perturbed)    # applied to w
    ```

    The points are found once, with the weights as they are. Kernels, that is
    weights of two or more dimensions, are perturbed each by its own length;
    biases and BatchNorm are not. The step is made from the unperturbed
    weights, which the model keeps throughout: the perturbed ones are only
    handed to the network.

    Args:
        loss: Any other robust loss, such as `AdversarialLoss`, `TRADESLoss` or
            `ATENTRegularizedLoss`.
        gamma: Float, at least 0, the perturbation's length in units of the
            weight's own: 0.005 and 0.01 are the authors' choices.
        warmup_steps: Integer, at least 0, the iterations of the optimizer
            before the first perturbation. Without an optimizer there is no
            warm-up. Defaults to 0.
        name: Optional name of the loss.

    Raises:
        ValueError, TypeError: If a setting is out of its range; in a step, if
            the network has no weight of two or more dimensions.

    Example:

    >>> loss = atent_keras.AdversarialWeightPerturbation(
    ...     atent_keras.TRADESLoss(attack), gamma=0.005
    ... )
    >>> model.compile("adam", loss=loss)

    References:
    - Wu et al., "Adversarial weight perturbation helps robust generalization",
      NeurIPS 2020, https://arxiv.org/abs/2004.05884.
    """

    arguments = ("loss", "gamma", "warmup_steps")
    around_robust = True

    def __init__(
        self,
        loss: RobustLoss,
        gamma: float,
        warmup_steps: int = 0,
        name: str | None = None,
    ) -> None:
        if not isinstance(loss, RobustLoss) or isinstance(
            loss, AdversarialWeightPerturbation
        ):
            raise TypeError(
                "`loss` must be another robust loss, such as "
                "`atent_keras.TRADESLoss(attack)`. Received: "
                f"loss={loss!r}"
            )
        require_number(gamma=gamma)
        checks.require_count(0, warmup_steps=warmup_steps)
        super().__init__(
            loss,
            loss.attack,
            loss.radius_schedule,
            loss.reduction,
            name,
            loss.dtype,
        )
        self._gamma = float(gamma)
        self._warmup_steps = int(warmup_steps)

    gamma = property(operator.attrgetter("_gamma"))
    warmup_steps = property(operator.attrgetter("_warmup_steps"))

    @classmethod
    def from_preset(
        cls, name: str, loss: Loss | None = None, **overrides: Any
    ) -> Self:
        """Returns a perturbed loss with the authors' settings.

        Args:
            name: `"cifar10_linf"` or `"cifar10_l2"`, of adversarial training,
                or `"cifar10_linf_trades"`.
            loss: The base loss. Defaults to `None`: cross-entropy of integer
                labels from logits.
            **overrides: `gamma`, `warmup_steps`, and what the robust loss's
                own `from_preset` takes.

        Raises:
            ValueError: If there is no such preset or setting.
        """
        presets.require(presets.PERTURBED, name)
        method, gamma, preset = presets.PERTURBED[name]
        kinds: dict[str, type[RobustLoss]] = {
            "adversarial": AdversarialLoss,
            "trades": TRADESLoss,
        }
        kind = kinds[method]
        settings: dict[str, Any] = {"gamma": gamma, "warmup_steps": 0}
        for key in settings.keys() & overrides.keys():
            settings[key] = overrides.pop(key)
        inner = kind._published({name: preset}, name, loss, overrides)
        return cls(inner, **settings)

    def call(self, y_true: Array, y_pred: Array) -> tf.Tensor:
        return self.loss.call(y_true, y_pred)

    def check(
        self, model: keras.Model, x: Array, y: Array
    ) -> tuple[tf.Tensor, tf.Tensor]:
        x, y = self.loss.check(model, x, y)
        weights = model.trainable_variables
        if not any(len(weight.shape) > 1 for weight in weights):
            raise ValueError(
                "The network must have a trainable weight of two or more "
                "dimensions to perturb. Received: weights of shapes "
                f"{[tuple(weight.shape) for weight in weights]}"
            )
        return x, y

    def _step(self, part, model, weights, state, batch, attack, seed):
        inner, awake = self.loss, self._is_awake(model)
        if not self.gamma:
            return inner._step(part, model, weights, state, batch, attack, seed)

        def find(weights, state, batch):
            network = Network(model, weights, inner.dtype)
            points, state = inner.points(network, state, batch, attack, seed)
            proxy, _ = inner.learn(network, state, points, batch, False)
            worse = [
                None if one is None else network.without_overflow(one)
                for one in proxy.gradients
            ]
            return points, state, worse

        def learn(weights, state, points, batch):
            network = Network(model, weights, inner.dtype)
            return inner.learn(network, state, points, batch)

        points, state, worse = part(find)(weights, state, batch)
        perturbed = [
            self._perturbed(weight, gradient, awake)
            for weight, gradient in zip(weights, distribution.total(worse))
        ]
        return part(learn)(perturbed, state, points, batch)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        # Those of the loss around which it is.
        for name in ("reduction", "dtype"):
            del config[name]
        return config

    def _is_awake(self, model):
        """Whether the warm-up is over."""
        optimizer = getattr(model, "optimizer", None)
        if not self.warmup_steps or optimizer is None:
            return True
        return tf.convert_to_tensor(optimizer.iterations) >= self.warmup_steps

    def _perturbed(self, weight, gradient, awake):
        """Moves a kernel along a gradient, by `gamma` of its own length."""
        if gradient is None or weight.shape.rank < 2:
            return weight
        length = self.gamma * tf.cast(awake, weight.dtype)
        length *= _BALL.norm(weight[None])[0]
        return weight + length * _BALL.ascent_direction(gradient[None])[0]
