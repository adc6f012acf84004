# %% [markdown]
# # Your own model
#
# In this notebook you take a backbone of `keras.applications`, put a head on
# it, and train it robustly: preprocessing inside the model, backbone frozen or
# not, and BatchNormalization, which needs a decision of its own. You also see
# why a frozen backbone can't be made robust by its head. It runs within a
# minute on two cores; its last line says how long it took here.

# %% tags=["remove_output"]
import time

import keras
import numpy as np
from IPython.display import Markdown

import atent_keras as ak

start = time.perf_counter()

# %% [markdown]
# ## Images
#
# Handwritten digits of scikit-learn, made four times as large and of three
# channels, stand for your images: floats from 0 to 1. Radii are in these units.

# %%
(x_train, y_train), (x_test, y_test) = (
    (x.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3), y)
    for x, y in ak.datasets.digits()
)
threat_model = ak.threat_models.Linf(epsilon=0.1)
print(x_train.shape, x_train.dtype)

# %% [markdown]
# ## A backbone
#
# The first blocks of a MobileNet. There is no network here to download weights
# from, so that they are random: with `weights="imagenet"` yours are better than
# these. Random weights come without BatchNormalization's statistics, too. One
# pass in training mode with a momentum of zero takes them from the images;
# leave that out where weights are pretrained.


# %%
def make_backbone():
    """Returns the first blocks of a MobileNet, 32×32×3 to 8×8×32."""
    keras.utils.set_random_seed(0)
    whole = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, include_top=False, weights=None
    )
    backbone = keras.Model(
        whole.input, whole.get_layer("conv_pw_3_relu").output
    )
    norms = [
        layer
        for layer in backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in norms:
        layer.momentum = 0.0
    backbone(2 * x_train[:256] - 1, training=True)
    for layer in norms:
        layer.momentum = 0.9  # so that few epochs suffice
    return backbone


# %% [markdown]
# ## Preprocessing goes inside
#
# The attacker changes the image as it is, not what preprocessing makes of it.
# So what the backbone wants, here pixels from -1 to 1, is a layer of the model,
# and `epsilon` keeps its meaning. Random augmentation is different: it belongs
# to the data, before the model sees them.
#
# What comes out are logits. `ATENTModel(inputs, outputs)` is all that changes
# in a transfer of learning by Keras.


# %%
def make(model_class, backbone, loss):
    """Returns a compiled classifier around the backbone."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(2.0, offset=-1.0)(inputs)
    x = backbone(x)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(10)(x)
    model = model_class(inputs, outputs)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return model


cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
attack = ak.attacks.PGD(threat_model, num_steps=20)
reports = {}


def train_and_judge(name, model):
    """Trains a model, and attacks it on the first test images."""
    model.fit(x_train, y_train, batch_size=64, epochs=8, verbose=0)
    reports[name] = ak.evaluate_robustness(
        model,
        (x_test[:200], y_test[:200]),
        {"PGD-20": attack},
        checks=None,
        verbose=0,
    )
    clean = reports[name].clean_accuracy
    robust = reports[name].robust_accuracy["PGD-20"]
    print(f"{name}: clean {100 * clean:.1f} %, attacked {100 * robust:.1f} %")


# %% [markdown]
# ## A frozen backbone
#
# Plainly first, then by ATENT. `backbone.trainable = False` freezes the
# weights, and keeps BatchNormalization in inference mode, in robust training as
# well.

# %%
frozen = make_backbone()
frozen.trainable = False
before = frozen.get_weights()
train_and_judge("frozen, plain", make(keras.Model, frozen, cross_entropy))

# %%
sampler = ak.attacks.SGLD(threat_model, step_size=0.05, num_steps=4)
loss = ak.ATENTRegularizedLoss(cross_entropy, sampler, loss_iterates=1)
train_and_judge("frozen, ATENT", make(ak.ATENTModel, frozen, loss))
moved = any(map(np.any, map(np.not_equal, before, frozen.get_weights())))
print(f"the backbone has changed: {moved}")

# %% [markdown]
# Random features are good enough for clean digits, and the head alone can't
# make them robust: where a small change of the image moves the features far, no
# linear layer behind them can undo it. Pretrained features are better, but not
# robust either, unless they were trained to be.
#
# ## The backbone, trained as well
#
# Now BatchNormalization matters. By default the chain of attacked images passes
# in training mode, as the authors' code does, and the moving averages move at
# every step of it. `chain_training=False` looks for points in inference mode,
# and lets the averages move with the points that are learned from alone: less
# noise, faster, and what to start with where a backbone has statistics that are
# worth keeping.

# %%
loss = ak.ATENTRegularizedLoss(
    cross_entropy, sampler, loss_iterates=1, chain_training=False
)
train_and_judge("trained, ATENT", make(ak.ATENTModel, make_backbone(), loss))

# %% [markdown]
# ## Side by side
#
# Compare the second column of figures: with the backbone trained as well, most
# of the clean accuracy survives the attack.

# %%
Markdown(ak.RobustnessComparison(reports).to_markdown())

# %% [markdown]
# With pretrained weights, the usual order is good: the head first, with the
# backbone frozen, plainly; then all of it by ATENT, at a tenth of the learning
# rate. The first robust step of a deep backbone takes a while, since it is
# compiled; [Methods](../methods.md#what-they-cost) has the figures.
#
# ## Where to go on
#
# - [Comparing methods](comparing_methods.py): what to train by.
# - [Evaluating honestly](../evaluation.md): what to report of your model.
# - [Serving](../serving.md): `ak.export_classifier`, preprocessing included.
# - [On a GPU](../gpu.md) and [Many devices](../distributed.md), for backbones
#   of a real size.

# %%
print(f"{time.perf_counter() - start:.0f} s")
