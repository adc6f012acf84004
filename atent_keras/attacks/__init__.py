"""How the loss is climbed."""

from atent_keras.attacks.apgd import APGD
from atent_keras.attacks.apgdt import APGDT
from atent_keras.attacks.attack import Attack
from atent_keras.attacks.auto_attack import AutoAttack
from atent_keras.attacks.carlini_wagner import CarliniWagner
from atent_keras.attacks.deepfool import DeepFool
from atent_keras.attacks.fab import FAB
from atent_keras.attacks.fgsm import FGSM
from atent_keras.attacks.pgd import PGD
from atent_keras.attacks.sgld import SGLD
from atent_keras.attacks.square import Square
from atent_keras.attacks.uniform_noise import UniformNoise
from atent_keras.margins import DLR
from atent_keras.margins import Margin

__all__ = [
    "APGD",
    "APGDT",
    "DLR",
    "FAB",
    "FGSM",
    "PGD",
    "SGLD",
    "Attack",
    "AutoAttack",
    "CarliniWagner",
    "DeepFool",
    "Margin",
    "Square",
    "UniformNoise",
]
