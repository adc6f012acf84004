"""The words of the signatures: what images, data and networks may be.

The docstrings say more, shapes and units among it: a type knows neither.
"""

import os
from collections.abc import Callable
from collections.abc import Iterable
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    import matplotlib.figure

# Images, points or labels, by example: `(batch, ...)`.
Array: TypeAlias = np.ndarray | tf.Tensor
# The smallest and the largest value of a pixel; `None` for data without.
Bounds: TypeAlias = tuple[float, float] | None
# What can be attacked: from images to one row of classes each.
Classifier: TypeAlias = keras.Model | Callable[[Any], Any]
# Two arrays, or batches of images and labels.
Data: TypeAlias = (
    tuple[Array, Array] | tf.data.Dataset | Iterable[tuple[Array, Array]]
)
# A Keras loss: its name, its configuration, or itself.
Loss: TypeAlias = str | dict[str, Any] | keras.losses.Loss | Callable[..., Any]
# What only drawing needs is not imported for it.
Figure: TypeAlias = "matplotlib.figure.Figure"
# From the number of a step, a Python integer or a tensor, to N(0, 1) draws.
Noise: TypeAlias = Callable[[Any], tf.Tensor]
Path: TypeAlias = str | os.PathLike[str]
Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule
Shape: TypeAlias = tuple[int | None, ...] | tf.TensorShape
# The values of a network's variables that training moves, but its weights.
State: TypeAlias = list[tf.Tensor]
