# %% [markdown]
# # Evaluating honestly
#
# In this notebook you meet a network that looks robust and is not. PGD finds
# next to nothing, since the network hides its gradient; the checks that every
# report brings along say so, and an attack that needs no gradient settles it.
# You learn to read those checks, and what to do when one of them fires. It runs
# within a minute on two cores; its last line says how long it took here.

# %% tags=["remove_output"]
import time

import keras
from IPython.display import Markdown

import atent_keras as ak

start = time.perf_counter()

# %% [markdown]
# ## Two networks, one of them honest
#
# First a small network, trained plainly, on scikit-learn's handwritten digits.

# %%
keras.utils.set_random_seed(0)
(x_train, y_train), (x_test, y_test) = ak.datasets.digits()
plain = ak.architectures.SmallCNN((8, 8, 1), padding="same")
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
plain.compile("adam", cross_entropy, metrics=["accuracy"])
history = plain.fit(x_train, y_train, batch_size=64, epochs=8, verbose=0)

# %% [markdown]
# Then the same network with its logits multiplied by 10,000. Its answers are
# the same for every image, so it is exactly as robust as before. But its
# softmax is so sure that the loss is zero in float32, and so is the loss's
# gradient.

# %%
sure = keras.Model(plain.input, keras.layers.Rescaling(1e4)(plain.output))
sure.compile(loss=cross_entropy)

# %% [markdown]
# ## What PGD says

# %%
threat_model = ak.threat_models.Linf(epsilon=0.1)
attack = ak.attacks.PGD(threat_model, num_steps=40)
data = x_test[:100], y_test[:100]
reports = {
    name: ak.evaluate_robustness(
        model, data, {"PGD-40": attack}, checks=None, verbose=0
    )
    for name, model in {"plain": plain, "sure": sure}.items()
}
Markdown(ak.RobustnessComparison(reports).to_markdown())

# %% [markdown]
# By this table, the second network is robust, though nothing was done to make
# it so. If you had trained it by a new method of your own, you might have
# believed it.
#
# ## What the checks say
#
# Leave `checks` at its default, and each report ends with the signs of a masked
# gradient. A `surrogate`, another network for the same task, makes one check
# more possible: whether attacks on *it* fool this network, too.

# %%
checks = ak.MaskingChecks(num_images=50, num_queries=500, surrogate=plain)
report = ak.evaluate_robustness(
    sure, data, {"PGD-40": attack}, checks=checks, verbose=0
)
for finding in report.findings:
    print(finding)

# %% [markdown]
# How to read them:
#
# - **zero gradients**: there is nothing for PGD to climb, so that its figure
#   says nothing.
# - **large radius**: in a ball as large as the box every image can be made the
#   same grey one, so that no network can be robust there. An attack that fails
#   even then is broken.
# - **black box** and **transfer**: Square, which asks for outputs alone, and
#   points that were found on another network do better than the attacks that
#   follow this network's own gradient. That can't be, if the gradient is any
#   good.
# - **more effort** is silent: more steps of the same climb in a flat land find
#   nothing, either. One silent check proves nothing.
#
# The picture of the third sign: accuracy under PGD over the radius. The plain
# network's comes down, as it must. The other's stays far above it, and does not
# reach zero even where nothing of the image need be left.

# %%
growing = {
    f"PGD-20 at {epsilon:g}": ak.attacks.PGD(
        ak.threat_models.Linf(epsilon), num_steps=20
    )
    for epsilon in (0.1, 0.2, 0.4, 1.0)
}
figure = ak.plots.robust_accuracy_curves(
    {
        name: ak.evaluate_robustness(
            model, data, growing, checks=None, verbose=0
        )
        for name, model in {"plain": plain, "sure": sure}.items()
    }
)

# %% [markdown]
# ## What stronger attacks say
#
# `Square` needs no gradient. `APGD` with `DLR` climbs a ratio of differences of
# logits, which stays what it is when all logits grow. Both are parts of
# AutoAttack, which is why the field expects AutoAttack: somebody who reports it
# has had such a network found out.

# %%
attacks = {
    "PGD-40": attack,
    "Square": ak.attacks.Square(threat_model, num_queries=1000),
    "APGD-DLR": ak.attacks.APGD(threat_model, loss=ak.attacks.DLR()),
}
reports = {
    name: ak.evaluate_robustness(model, data, attacks, checks=None, verbose=0)
    for name, model in {"plain": plain, "sure": sure}.items()
}
Markdown(ak.RobustnessComparison(reports).to_markdown())

# %%
claimed = reports["sure"].robust_accuracy["PGD-40"]
left = {name: one.worst_case_accuracy for name, one in reports.items()}
print(
    f"the sure network: {100 * claimed:.0f} % under PGD-40, "
    f"{100 * left['sure']:.0f} % under all three; the plain network: "
    f"{100 * left['plain']:.0f} %"
)

# %% [markdown]
# The worst case over all attacks is the figure to report, and it is nearly the
# same for both, as it should be of networks that give the same answers.
#
# ## An attack of your own
#
# An attack that knows the defence outranks all of the above. Here it knows that
# the logits are too large, and attacks the network beneath; what it finds is
# judged by the network as it is. Any callable of `(model, x, y, seed, first)`
# with a `threat_model` is an attack.


# %%
class Beneath:
    """PGD on the network without the last layer."""

    threat_model = threat_model

    def __call__(self, model, x, y, seed=None, first=0):
        return attack(plain, x, y, seed=seed, first=first)


report = ak.evaluate_robustness(
    sure, data, {"adaptive": Beneath()}, checks=None, verbose=0
)
print(f"{100 * report.robust_accuracy['adaptive']:.0f} % under it")

# %% [markdown]
# ## Where to go on
#
# - [Evaluating honestly](../evaluation.md), the guide: what to report, all
#   checks, and what they say of networks that hide their gradient.
# - [Attacks](../attacks.md): which there are, and what each is for.
# - [Certificates](certificates.py): where no attack needs to be believed.

# %%
print(f"{time.perf_counter() - start:.0f} s")
