"""How far a classifier is from changing its mind, as losses to climb."""

import keras
import tensorflow as tf

from atent_keras.types import Array


def class_labels(y, classes):
    """Returns labels of any kind as integers of shape `(batch,)`.

    Args:
        y: Integers of shape `(batch,)` or `(batch, 1)`, or one-hot
            `(batch, classes)`. Those of a single output may be -1 and 1, too.
        classes: Integer, the number of the network's outputs.
    """
    y = tf.cast(y, tf.int32) if y.dtype == tf.bool else y
    if y.shape.rank == 2:
        one_hot = y.shape[1] == classes and classes > 1
        y = tf.argmax(y, axis=-1) if one_hot else y[:, 0]
    if classes == 1:
        y = tf.cast(y, tf.float32) > 0.5
    return tf.cast(y, tf.int32)


def of_classes(logits):
    """Returns the logits of two or more classes, `(batch, classes)`.

    A single one, `z`, is that of the second of two classes: the pair `(0, z)`,
    whose softmax is the sigmoid of `z`.
    """
    if logits.shape[-1] > 1:
        return logits
    return tf.concat([tf.zeros_like(logits), logits], axis=-1)


def own_and_best_other(logits, y):
    """Returns `logits[y]` and `max(logits[k] for k != y)`, each `(batch,)`."""
    logits = of_classes(logits)
    own = tf.one_hot(y, logits.shape[-1], True, False, dtype=tf.bool)
    return (
        tf.reduce_sum(tf.where(own, logits, 0), axis=-1),
        tf.reduce_max(tf.where(own, logits.dtype.min, logits), axis=-1),
    )


def margin(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the lead of the true class, negative where it has lost.

    ```python
    logits[y] - max(logits[k] for k != y)
    ```

    Args:
        logits: The network's outputs, `(batch, classes)`.
        y: Integer labels, `(batch,)`.
    """
    own, other = own_and_best_other(logits, y)
    return own - other


def dlr(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the difference-of-logits-ratio loss, `(batch,)`.

    ```python
    z = sorted(logits, reverse=True)
    -(logits[y] - max(logits[k] for k != y)) / (z[0] - z[2])
    ```

    It changes with neither a shift nor a scale of the logits, so that an
    overconfident network can't hide its gradient. Fewer than four classes get
    the plain difference: of three, the ratio rises by pushing the last one
    down as well as by bringing the second one up, and ascent ends there.
    """
    if logits.shape[-1] < 4:
        return -margin(logits, y)
    z = tf.math.top_k(logits, 3).values
    return tf.math.divide_no_nan(-margin(logits, y), z[:, 0] - z[:, 2])


def targeted_dlr(logits, y, target):
    """Returns the difference-of-logits ratio towards a class, `(batch,)`.

    ```python
    z = sorted(logits, reverse=True)
    (logits[target] - logits[y]) / (z[0] - (z[2] + z[3]) / 2)
    ```

    Fewer than four classes have no `z[3]`, and get the plain difference: over
    `z[0] - z[2]` it would be constant, without a gradient, wherever the target
    is the last of three.
    """
    rise = difference(logits, y, target)
    if logits.shape[-1] < 4:
        return rise
    z = tf.math.top_k(logits, 4).values
    return tf.math.divide_no_nan(
        rise, z[:, 0] - tf.reduce_mean(z[:, 2:], axis=-1)
    )


def difference(logits, y, target):
    """Returns `logits[target] - logits[y]`, of shape `(batch,)`."""
    logits = of_classes(logits)
    own, aim = (
        tf.gather(logits, index, axis=1, batch_dims=1) for index in (y, target)
    )
    return aim - own


def likeliest_others(logits, y):
    """Returns all wrong classes, `(batch, classes - 1)`, likeliest first."""
    logits = of_classes(logits)
    own = tf.one_hot(y, logits.shape[-1], True, False, dtype=tf.bool)
    ranked = tf.where(own, logits.dtype.max, logits)
    return tf.math.top_k(ranked, logits.shape[-1]).indices[:, 1:]


class Lead(keras.losses.Loss):
    """A loss of integer or one-hot labels and of logits.

    A single logit is that of the second of two classes, whose labels are 0
    and 1, or -1 and 1.
    """

    from_logits: bool | None = True

    def call(self, y_true: Array, y_pred: Array) -> tf.Tensor:
        y_true, y_pred = map(tf.convert_to_tensor, (y_true, y_pred))
        labels = class_labels(y_true, y_pred.shape[-1])
        return self.function(y_pred, labels)

    # Equal losses share what was compiled for them; names, which Keras counts
    # up, and reductions make no difference to an attack.
    def __eq__(self, other):
        return type(self) is type(other)

    def __hash__(self):
        return hash(type(self))

    def __repr__(self):
        return f"{type(self).__name__}()"


@keras.saving.register_keras_serializable("atent_keras")
class Margin(Lead):
    """The lead of the best wrong class over the true one.

    ```python
    max(logits[k] for k != y) - logits[y]
    ```

    Unlike cross-entropy it does not flatten out where the network is sure.
    Labels are integers `(batch,)` or one-hot `(batch, classes)`.

    Example:

    >>> attack = atent_keras.attacks.PGD(
    ...     threat_model, loss=atent_keras.attacks.Margin()
    ... )

    References:
    - Carlini & Wagner, "Towards evaluating the robustness of neural networks",
      S&P 2017, https://arxiv.org/abs/1608.04644.
    """

    @staticmethod
    def function(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return -margin(logits, y)


class OutputMargin(Margin):
    """The same of outputs on any scale, that of probabilities too."""

    from_logits = None


@keras.saving.register_keras_serializable("atent_keras")
class DLR(Lead):
    """The difference of logits ratio: a margin without a scale.

    ```python
    z = sorted(logits, reverse=True)
    -(logits[y] - max(logits[k] for k != y)) / (z[0] - z[2])
    ```

    With fewer than four classes it is the plain difference, which three
    classes withstand less than the ratio.

    Labels are integers `(batch,)` or one-hot `(batch, classes)`.

    Example:

    >>> attack = atent_keras.attacks.APGD(
    ...     threat_model, loss=atent_keras.attacks.DLR()
    ... )

    References:
    - Croce & Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks", ICML 2020,
      https://arxiv.org/abs/2003.01690.
    """

    function = staticmethod(dlr)
