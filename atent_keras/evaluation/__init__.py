"""How robust a network is, and how far the figures can be trusted."""

from atent_keras.evaluation.certification import CertificationReport
from atent_keras.evaluation.certification import certify_robustness
from atent_keras.evaluation.comparison import RobustnessComparison
from atent_keras.evaluation.masking import Finding
from atent_keras.evaluation.masking import MaskingChecks
from atent_keras.evaluation.report import AttackResult
from atent_keras.evaluation.report import RobustnessReport
from atent_keras.evaluation.robustness import evaluate_robustness
from atent_keras.evaluation.saved_model import load_classifier

__all__ = [
    "AttackResult",
    "CertificationReport",
    "Finding",
    "MaskingChecks",
    "RobustnessComparison",
    "RobustnessReport",
    "certify_robustness",
    "evaluate_robustness",
    "load_classifier",
]
