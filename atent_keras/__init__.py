"""Adversarially robust training in Keras 3 by entropic regularization."""

from atent_keras import architectures
from atent_keras import attacks
from atent_keras import callbacks
from atent_keras import datasets
from atent_keras import presets
from atent_keras import threat_models
from atent_keras.evaluation import MaskingChecks
from atent_keras.evaluation import RobustnessComparison
from atent_keras.evaluation import RobustnessReport
from atent_keras.evaluation import evaluate_robustness
from atent_keras.evaluation import load_classifier
from atent_keras.losses import ATENTRegularizedLoss
from atent_keras.model import ATENTModel
from atent_keras.serving import export_classifier
from atent_keras.version import __version__

__all__ = [
    "ATENTModel",
    "ATENTRegularizedLoss",
    "MaskingChecks",
    "RobustnessComparison",
    "RobustnessReport",
    "__version__",
    "architectures",
    "attacks",
    "callbacks",
    "datasets",
    "evaluate_robustness",
    "export_classifier",
    "load_classifier",
    "presets",
    "threat_models",
]
