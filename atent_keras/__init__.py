"""Adversarially robust training in Keras 3 by entropic regularization."""

from atent_keras import architectures
from atent_keras import attacks
from atent_keras import callbacks
from atent_keras import config
from atent_keras import datasets
from atent_keras import losses
from atent_keras import plots
from atent_keras import presets
from atent_keras import threat_models
from atent_keras.evaluation import CertificationReport
from atent_keras.evaluation import MaskingChecks
from atent_keras.evaluation import RobustnessComparison
from atent_keras.evaluation import RobustnessReport
from atent_keras.evaluation import certify_robustness
from atent_keras.evaluation import evaluate_robustness
from atent_keras.evaluation import load_classifier
from atent_keras.evaluation.smoothing import SmoothedClassifier
from atent_keras.losses import AdversarialLoss
from atent_keras.losses import AdversarialWeightPerturbation
from atent_keras.losses import ATENTRegularizedLoss
from atent_keras.losses import MARTLoss
from atent_keras.losses import TRADESLoss
from atent_keras.model import ATENTModel
from atent_keras.model import RobustModel
from atent_keras.serving import export_classifier
from atent_keras.version import __version__

__all__ = [
    "ATENTModel",
    "ATENTRegularizedLoss",
    "AdversarialLoss",
    "AdversarialWeightPerturbation",
    "CertificationReport",
    "MARTLoss",
    "MaskingChecks",
    "RobustModel",
    "RobustnessComparison",
    "RobustnessReport",
    "SmoothedClassifier",
    "TRADESLoss",
    "__version__",
    "architectures",
    "attacks",
    "callbacks",
    "certify_robustness",
    "config",
    "datasets",
    "evaluate_robustness",
    "export_classifier",
    "load_classifier",
    "losses",
    "plots",
    "presets",
    "threat_models",
]
