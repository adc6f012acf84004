"""How the loss is climbed."""

from atent_keras.attacks.apgd import APGD
from atent_keras.attacks.apgdt import APGDT
from atent_keras.attacks.attack import Attack
from atent_keras.attacks.fgsm import FGSM
from atent_keras.attacks.pgd import PGD
from atent_keras.attacks.sgld import SGLD
from atent_keras.margins import DLR
from atent_keras.margins import Margin

__all__ = ["APGD", "APGDT", "DLR", "FGSM", "Margin", "PGD", "SGLD", "Attack"]
