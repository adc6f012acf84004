"""How the loss is climbed."""

from atent_keras.attacks.attack import Attack
from atent_keras.attacks.fgsm import FGSM
from atent_keras.attacks.pgd import PGD
from atent_keras.attacks.sgld import SGLD

__all__ = ["FGSM", "PGD", "SGLD", "Attack"]
