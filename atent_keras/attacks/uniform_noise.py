"""Uniform noise: what any attack has to beat."""

import dataclasses

import keras

from atent_keras.attacks.rounds import RoundAttack


@keras.saving.register_keras_serializable("atent_keras")
@dataclasses.dataclass(frozen=True)
class UniformNoise(RoundAttack):
    """Draws points of the ball at random: a floor under every attack.

    ```python
    x_adv = clip(x + uniform_in_ball())
    ```

    Args:
        threat_model: `Linf` or `L2`.
        tries: Positive integer, the number of draws, each on what still
            stands. Defaults to 1.

    Raises:
        ValueError, TypeError: If a setting is out of its range.

    Example:

    >>> threat_model = atent_keras.threat_models.Linf(epsilon=8 / 255)
    >>> floor = atent_keras.attacks.UniformNoise(threat_model, tries=10)
    >>> x_adv = floor(model, x, y, seed=0)
    """

    tries: int = 1
    uses_gradient = False

    def __post_init__(self):
        super().__post_init__()
        self._require_count(tries=self.tries)

    def rounds(self, classes):
        return self.tries

    def round(self, predict, loss, x, y, x_adv, margin, number, noise_of):
        noise = noise_of(number)(0)
        point = self.threat_model.clip(self.threat_model.random_start(x, noise))
        return point, self.lead(predict, point, y)
