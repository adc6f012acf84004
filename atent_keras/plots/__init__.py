"""Pictures of robustness, each a matplotlib figure to show or to save."""

from atent_keras.plots.boundaries import decision_boundaries
from atent_keras.plots.curves import certified_accuracy_curves
from atent_keras.plots.curves import robust_accuracy_curves
from atent_keras.plots.grid import adversarial_images
from atent_keras.plots.surface import loss_surface

__all__ = [
    "adversarial_images",
    "certified_accuracy_curves",
    "decision_boundaries",
    "loss_surface",
    "robust_accuracy_curves",
]
