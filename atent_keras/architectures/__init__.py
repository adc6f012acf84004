"""Networks from images in [0, 1] to logits, as functional builders."""

from atent_keras.architectures.catalogue import weights
from atent_keras.architectures.lenet5 import LeNet5
from atent_keras.architectures.preact_resnet18 import PreActResNet18
from atent_keras.architectures.resnet20 import ResNet20
from atent_keras.architectures.small_cnn import SmallCNN
from atent_keras.architectures.wide_resnet import WideResNet

__all__ = [
    "LeNet5",
    "PreActResNet18",
    "ResNet20",
    "SmallCNN",
    "WideResNet",
    "weights",
]
