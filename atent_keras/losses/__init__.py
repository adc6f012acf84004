"""What is minimized: the losses of robust training, one file a method."""

from atent_keras.losses.adversarial import AdversarialLoss
from atent_keras.losses.atent import ATENTRegularizedLoss
from atent_keras.losses.mart import MARTLoss
from atent_keras.losses.robust_loss import RobustLoss
from atent_keras.losses.step import Step
from atent_keras.losses.trades import TRADESLoss
from atent_keras.losses.weight_perturbation import AdversarialWeightPerturbation

__all__ = [
    "ATENTRegularizedLoss",
    "AdversarialLoss",
    "AdversarialWeightPerturbation",
    "MARTLoss",
    "RobustLoss",
    "Step",
    "TRADESLoss",
]
