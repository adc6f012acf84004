"""How robust a network is: accuracies, clean and under attack."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from atent_keras import base_losses
from atent_keras import checks
from atent_keras import margins

_BATCH_SIZE = 512  # of predictions, and of arrays


def is_correct(y, y_pred, loss=None):
    """Returns whether each prediction is right, booleans of shape `(batch,)`.

    Args:
        y: Labels: integers of shape `(batch,)` or `(batch, 1)`, or one-hot
            `(batch, classes)`.
        y_pred: The network's outputs, `(batch, classes)`. A single output is
            that of the second of two classes.
        loss: The loss that the network is trained with; it tells whether a
            single output is a logit (above 0) or a probability (above 0.5).
    """
    if y_pred.shape[-1] == 1:
        threshold = 0.0 if base_losses.from_logits(loss) else 0.5
        predicted = tf.cast(y_pred[:, 0] > threshold, tf.int64)
    else:
        predicted = tf.argmax(y_pred, axis=-1)
    labels = margins.class_labels(y, y_pred.shape[-1])
    return tf.equal(tf.cast(labels, tf.int64), predicted)


@dataclasses.dataclass(frozen=True)
class RobustnessReport:
    """Accuracies in [0, 1], each over all of the examples.

    Attributes:
        clean_accuracy: Float, on the images as they are.
        robust_accuracy: Dictionary from the name of an attack to the share
            of examples that are classified right both clean and attacked.
        worst_case_accuracy: Float, the share that withstands every attack.
        num_examples: Integer, the number of examples.
        attacks: Dictionary from the name of an attack to the attack.
    """

    clean_accuracy: float
    robust_accuracy: dict
    worst_case_accuracy: float
    num_examples: int
    attacks: dict

    def __str__(self):
        rows = [("clean", self.clean_accuracy, "")]
        for name, accuracy in self.robust_accuracy.items():
            rows.append((name, accuracy, repr(self.attacks[name])))
        rows.append(("worst case", self.worst_case_accuracy, ""))
        width = max(len(name) for name, *_ in rows)
        lines = [f"accuracy on {self.num_examples} examples"]
        for name, accuracy, note in rows:
            line = f"{name:<{width}}  {100 * accuracy:6.2f} %  {note}"
            lines.append(line.rstrip())
        return "\n".join(lines)


def evaluate_robustness(model, data, attacks, seed=0):
    """Measures a network's accuracy, clean and under each of several attacks.

    An example that is misclassified clean counts as misclassified under every
    attack. The network runs in inference mode.

    Args:
        model: A Keras model, or a callable from images to logits.
        data: Batches `(x, y)`, e.g. a `tf.data.Dataset`, or a tuple of two
            arrays. Images are floating-point numbers within the threat
            model's bounds, of shape `(batch, ...)`, labels integers
            `(batch,)` or one-hot `(batch, classes)`.
        attacks: Dictionary from names to `atent_keras.attacks`.
        seed: Integer, from which the attacks' randomness follows, whatever
            the size of the batches. Defaults to 0.

    Returns:
        A `RobustnessReport`; `print` shows it as a table.

    Raises:
        ValueError, TypeError: If there are no data or attacks, or if images,
            labels and network do not fit each other.

    Example:

    >>> attack = atent_keras.attacks.PGD(threat_model, num_steps=40)
    >>> report = atent_keras.evaluate_robustness(
    ...     model, (x_test, y_test), attacks={"PGD-40": attack}
    ... )
    >>> report.robust_accuracy["PGD-40"]
    """
    named = isinstance(attacks, dict) and bool(attacks)
    if not named or not all(map(callable, attacks.values())):
        raise TypeError(
            "`attacks` must be a dictionary from names to at least one "
            f"attack. Received: attacks={attacks!r}"
        )
    predict = checks.inference(model)
    if not getattr(model, "run_eagerly", False):
        predict = tf.function(predict, autograph=False, reduce_retracing=True)
    clean, attacked = [], {name: [] for name in attacks}
    first = 0
    for x, y in batches(data):
        y = checks.labels(y, x)
        loss = base_losses.of_model(model, y)
        for attack in attacks.values():
            x, y = checks.batch(model, loss, attack.threat_model, x, y)
        clean.append(is_correct(y, predict(x), loss).numpy())
        for name, attack in attacks.items():
            x_adv = attack(model, x, y, seed=seed, first=first)
            attacked[name].append(is_correct(y, predict(x_adv), loss).numpy())
        first += len(clean[-1])
    if not first:
        raise ValueError(f"`data` must not be empty. Received: data={data!r}")
    clean = np.concatenate(clean)
    standing = {
        name: clean & np.concatenate(correct)
        for name, correct in attacked.items()
    }
    return RobustnessReport(
        clean_accuracy=float(clean.mean()),
        robust_accuracy={
            name: float(correct.mean()) for name, correct in standing.items()
        },
        worst_case_accuracy=float(
            np.logical_and.reduce([clean, *standing.values()]).mean()
        ),
        num_examples=first,
        attacks=dict(attacks),
    )


def batches(data):
    """Returns an iterable of `(x, y)` from batches, or from two arrays."""
    if isinstance(data, (tuple, list)) and len(data) == 2:
        x, y = data
        if len(x) != len(y):
            raise ValueError(
                "`data` must hold one label per image. Received: "
                f"{len(x)} images and {len(y)} labels"
            )
        rows = range(0, len(x), _BATCH_SIZE)
        return ((x[i : i + _BATCH_SIZE], y[i : i + _BATCH_SIZE]) for i in rows)
    if isinstance(data, keras.utils.PyDataset):
        return (data[i][:2] for i in range(data.num_batches))
    if not hasattr(data, "__iter__"):
        raise TypeError(
            "`data` must be batches of (x, y), or two arrays. Received: "
            f"{type(data).__name__}"
        )
    return (keras.utils.unpack_x_y_sample_weight(batch)[:2] for batch in data)
