"""Whether images, labels, loss and network fit each other."""

from atent_keras.checks.classes import labels
from atent_keras.checks.classes import labels_fit
from atent_keras.checks.networks import network
from atent_keras.checks.pixels import images


def batch(model, loss, threat_model, x, y):
    """Returns one batch as tensors, checked against each other and the model.

    Args:
        model: A Keras model, or any callable from images to outputs.
        loss: The base loss, or a loss that has one.
        threat_model: Whose bounds the images keep.
        x: Images, `(batch, ...)`.
        y: Labels.

    Raises:
        ValueError, TypeError: As `images`, `labels`, `network` and
            `labels_fit` do.
    """
    x = images(x, threat_model.bounds)
    y = labels(y, x)
    classes = network(model, loss, x.shape, threat_model.bounds)
    return x, labels_fit(y, loss, classes)
