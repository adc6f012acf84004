"""ResNet20, PreActResNet18 and WideResNet: what they have in common."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from atent_keras.architectures import PreActResNet18
from atent_keras.architectures import ResNet20
from atent_keras.architectures import WideResNet
from conftest import largest_difference


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_resnet20_has_the_published_0_27_million_parameters():
    def stage(before, filters):
        return 9 * before * filters + 5 * 9 * filters**2 + 6 * 2 * filters

    stem = 9 * 3 * 16 + 2 * 16
    stages = stage(16, 16) + stage(16, 32) + stage(32, 64)
    assert trainable(ResNet20()) == stem + stages + 65 * 10 == 269_722


def preactivation(before, filters, blocks, shortcut):
    """Parameters of a stage of preactivation blocks."""
    first = 9 * before * filters + 2 * before + shortcut * before * filters
    last = 9 * filters**2 + 2 * filters
    return first + last + (blocks - 1) * 2 * last


def test_preact_resnet18_has_the_published_11_17_million_parameters():
    stages = (
        preactivation(64, 64, 2, 0)
        + preactivation(64, 128, 2, 1)
        + preactivation(128, 256, 2, 1)
        + preactivation(256, 512, 2, 1)
    )
    head = 2 * 512 + 513 * 10
    expected = 9 * 3 * 64 + stages + head
    assert trainable(PreActResNet18()) == expected == 11_172_170


def test_wide_resnet_34_10_has_the_published_46_16_million_parameters():
    stages = (
        preactivation(16, 160, 5, 1)
        + preactivation(160, 320, 5, 1)
        + preactivation(320, 640, 5, 1)
    )
    head = 2 * 640 + 641 * 10
    expected = 9 * 3 * 16 + stages + head
    assert trainable(WideResNet()) == expected == 46_160_474


SMALL = [
    lambda **kwargs: ResNet20(width=4, **kwargs),
    lambda **kwargs: PreActResNet18(width=4, **kwargs),
    lambda **kwargs: WideResNet(depth=10, width=1, **kwargs),
]
each = pytest.mark.parametrize("build", SMALL, ids=["resnet", "preact", "wrn"])


def images(*shape):
    return np.random.default_rng(0).random(shape, dtype="float32")


@each
@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1), (9, 7, 2)])
def test_outputs_one_row_of_logits_per_image(build, shape):
    model = build(input_shape=shape, classes=7)
    assert model(images(3, *shape)).shape == (3, 7)
    assert model.get_layer("logits").activation is keras.activations.linear


@each
def test_batch_norm_follows_pytorch(build):
    norms = [
        layer
        for layer in build().layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert norms
    assert {(n.momentum, n.epsilon) for n in norms} == {(0.9, 1e-5)}


@each
def test_every_weight_has_a_gradient(build):
    model = build(input_shape=(8, 8, 3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images(4, 8, 8, 3), training=True)[:, 0])
    gradients = tape.gradient(loss, [v.value for v in model.trainable_weights])
    assert all(g is not None for g in gradients)
    # A dead branch would have none; the bias of the other logits may.
    dead = [
        v.path
        for v, g in zip(model.trainable_weights, gradients)
        if not np.any(g)
    ]
    assert dead == []


@each
def test_saves_and_loads(build, tmp_path):
    model = build(input_shape=(8, 8, 3), name="mine")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.name == "mine"
    x = images(2, 8, 8, 3)
    assert largest_difference([loaded(x)], [model(x)]) == 0


def test_resnet20_shortcut_takes_every_second_pixel_and_pads_channels():
    model = ResNet20((8, 8, 3), width=4)
    before = model.get_layer("stage1_block3_relu").output
    add = model.get_layer("stage2_block1_add")
    shortcut = keras.Model(model.inputs[0], [before, add.input[1]])
    x, shortcut = shortcut(images(2, 8, 8, 3))
    np.testing.assert_array_equal(shortcut[..., :4], x[:, ::2, ::2])
    np.testing.assert_array_equal(shortcut[..., 4:], np.zeros((2, 4, 4, 4)))


@pytest.mark.parametrize(
    "build, arguments, message",
    [
        (ResNet20, {"input_shape": (32, 32)}, r"\(height, width, channels\)"),
        (
            ResNet20,
            {"width": 0},
            "`width` must be an integer, at least 1.*width=0",
        ),
        (ResNet20, {"classes": 1.5}, "`classes` must.*classes=1.5"),
        (PreActResNet18, {"width": -1}, "width=-1"),
        (PreActResNet18, {"input_shape": (0, 1, 1)}, "all positive"),
        (WideResNet, {"depth": 20}, "4 plus a multiple of 6.*depth=20"),
        (WideResNet, {"depth": 4}, "depth=4"),
        (WideResNet, {"width": None}, "width=None"),
        (WideResNet, {"depth": 10**400}, "`depth` must be an integer, at lea"),
        (WideResNet, {"depth": 1006}, "at most 1000. Received: depth=1006"),
        (ResNet20, {"classes": 10**400}, "`classes` must be .* at most 21474"),
        (ResNet20, {"input_shape": (10**40, 8, 1)}, "integers of 32 bits"),
    ],
)
def test_rejects(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
