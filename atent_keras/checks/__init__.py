"""What may enter: images, labels and networks that fit each other.

Shapes and types are checked wherever a tensor is seen, while tracing too.
Values are checked on the host, where they can be seen: eagerly at once, in
`fit` by a map over the data, so that the compiled step stays as it is. An
assertion guards the values inside a user's own `tf.function`; XLA drops it.
"""

from atent_keras.checks.batches import batch
from atent_keras.checks.classes import class_names
from atent_keras.checks.classes import labels
from atent_keras.checks.classes import labels_fit
from atent_keras.checks.classes import name_classes
from atent_keras.checks.classes import one_class
from atent_keras.checks.classes import sample_weights
from atent_keras.checks.networks import are_probabilities
from atent_keras.checks.networks import call
from atent_keras.checks.networks import decided
from atent_keras.checks.networks import default_loss
from atent_keras.checks.networks import gives_probabilities
from atent_keras.checks.networks import inference
from atent_keras.checks.networks import network
from atent_keras.checks.networks import require_finite
from atent_keras.checks.networks import require_logits
from atent_keras.checks.networks import typical
from atent_keras.checks.pixels import images
from atent_keras.checks.rules import plain_errors
from atent_keras.checks.rules import require_count
from atent_keras.checks.rules import require_flag
from atent_keras.checks.rules import require_seed
from atent_keras.checks.streams import guard

__all__ = [
    "are_probabilities",
    "batch",
    "call",
    "class_names",
    "decided",
    "default_loss",
    "gives_probabilities",
    "guard",
    "images",
    "inference",
    "labels",
    "labels_fit",
    "name_classes",
    "network",
    "one_class",
    "plain_errors",
    "require_count",
    "require_flag",
    "require_seed",
    "require_logits",
    "sample_weights",
    "require_finite",
    "typical",
]
