"""Networks from images in [0, 1] to logits, as functional builders."""

from atent_keras.architectures.lenet5 import LeNet5
from atent_keras.architectures.small_cnn import SmallCNN

__all__ = ["LeNet5", "SmallCNN"]
