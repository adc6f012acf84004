# %% [markdown]
# # Comparing methods
#
# In this notebook you train one network plainly, by PGD training, TRADES, MART,
# ATENT and ATENT with weight perturbation, each on the same budget, and judge
# all of them alike. You learn to put robust losses into each other's place, to
# make a comparison fair, and to read intervals that overlap. It runs within a
# minute or so on two cores; its last line says how long it took here.

# %% tags=["remove_output"]
import time

import keras
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import atent_keras as ak

start = time.perf_counter()

# %% [markdown]
# ## The methods
#
# Every method is a loss. All of them look for points in the same ball, by as
# many steps of the same length.

# %%
threat_model = ak.threat_models.Linf(epsilon=0.15)
STEPS = 4
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
inner = ak.attacks.PGD(threat_model, step_size=0.06, num_steps=STEPS)
sampler = ak.attacks.SGLD(threat_model, step_size=0.06, num_steps=STEPS)
atent = ak.ATENTRegularizedLoss(cross_entropy, sampler, loss_iterates=2)

# %% [markdown]
# ## One budget
#
# Methods differ in what a step costs, so that equal numbers of epochs favour
# the expensive ones. [Methods](../methods.md#what-they-cost) counts the passes
# of a training step, K being the steps of the attack: forward, back to the
# images (or the first layer), and gradients by weights. Each method gets as
# many steps as the budget pays for.

# %%
K = STEPS
methods = {  # the loss, and the passes of a step
    "plain": (cross_entropy, 3),
    "PGD training": (ak.AdversarialLoss(cross_entropy, inner), 2 * K + 3),
    "TRADES": (ak.TRADESLoss(inner, beta=6.0), 2 * K + 7),
    "MART": (ak.MARTLoss(inner, beta=5.0), 2 * K + 6),
    "ATENT": (atent, 2 * K + 4),
    "ATENT + AWP": (
        ak.AdversarialWeightPerturbation(atent, gamma=0.005),
        2 * K + 12,
    ),
}
BUDGET = 84  # passes over the training images
for name, (_, passes) in methods.items():
    print(f"{name}: {passes} passes a step, {BUDGET / passes:.1f} epochs")

# %% [markdown]
# ## Training
#
# The same network from the same seed, the same optimizer, whose learning rate
# falls to zero within each one's steps. Those seldom are whole epochs, so the
# data have no end.

# %%
(x_train, y_train), (x_test, y_test) = ak.datasets.digits()


def train(loss, passes, batch_size=64):
    """Returns a network that was trained by one of the losses."""
    keras.utils.set_random_seed(0)
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    robust = isinstance(loss, ak.losses.RobustLoss)
    model_class = ak.RobustModel if robust else keras.Model
    model = model_class(network.input, network.output)
    steps = round(BUDGET / passes * len(x_train) / batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(schedule), loss)
    data = ak.datasets.pipeline(
        x_train, y_train, batch_size, shuffle=True, endless=True
    )
    model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
    return model


models = {name: train(loss, passes) for name, (loss, passes) in methods.items()}

# %% [markdown]
# ## One judge
#
# The same images, attacks and seed for all; `RobustnessComparison` refuses
# reports of which that isn't true. The second attack is one that none of them
# was trained with.

# %%
attacks = {
    "PGD-20": ak.attacks.PGD(threat_model, num_steps=20),
    "APGD-DLR": ak.attacks.APGD(
        threat_model, num_steps=30, loss=ak.attacks.DLR()
    ),
}
reports = {
    name: ak.evaluate_robustness(
        model, (x_test[:300], y_test[:300]), attacks, checks=None, verbose=0
    )
    for name, model in models.items()
}
comparison = ak.RobustnessComparison(reports)
Markdown(comparison.to_markdown())

# %% [markdown]
# The same as a picture: open circles are clean accuracies, dots the worst case,
# each with its interval of 95 %. Plain training is far to the left of all
# others in the worst case. Among the robust methods, see which intervals
# overlap before you see an order.

# %%
figure, axis = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
for row in comparison.rows():
    if row["attack"] in ("clean", "worst case"):
        accuracy, low, high = (
            100 * row[key] for key in ("accuracy", "low", "high")
        )
        axis.errorbar(
            accuracy,
            row["model"],
            xerr=[[accuracy - low], [high - accuracy]],
            marker="o",
            color="C0",
            mfc="white" if row["attack"] == "clean" else "C0",
            capsize=3,
        )
axis.invert_yaxis()
axis.set(xlabel="accuracy (%)", xlim=(0, 100))
axis.grid(axis="x", color="0.9")

# %% [markdown]
# ## Reading intervals
#
# An interval says how far the accuracy on *all* such images may lie from that
# on these. Where two intervals do not overlap, the networks differ. Where they
# do, the matter is open, and since both networks saw the same images, there is
# a sharper look: the images on which just one of them fell. If the networks
# were equally good, each of these images would be a toss of a coin.

# %%
standing = {
    name: np.logical_and.reduce(list(report.robust.values()))
    for name, report in reports.items()
}
for rival in methods:
    if rival != "ATENT":
        ours = int(np.sum(standing["ATENT"] & ~standing[rival]))
        theirs = int(np.sum(~standing["ATENT"] & standing[rival]))
        # How far the tosses are from even, in standard deviations.
        deviations = (ours - theirs) / max(ours + theirs, 1) ** 0.5
        verdict = "they differ" if abs(deviations) > 2 else "can't tell"
        print(
            f"{ours} images stood with ATENT alone, {theirs} with {rival} "
            f"alone: {deviations:+.1f} standard deviations, {verdict}"
        )

# %% [markdown]
# Even a sure difference is one between two *networks*. Another seed of the
# training makes others, and the settings of a method (beta, the length of the
# steps, the learning rate) move its figures further than the choice among good
# methods. A claim about methods takes several seeds, tuned rivals and longer
# training; `examples/compare.py` does all of that, and goes on after a kill.
#
# A budget as small as this one also cuts those short whose steps cost most:
# weight perturbation narrows a gap that opens late in long training, and in its
# few epochs here it has hardly begun.
#
# ## Where to go on
#
# - [Methods](../methods.md): each one's formula, costs and published settings.
# - [Evaluating honestly](evaluating_honestly.py): when to distrust a table.
# - [A training loop of your own](custom_training_loop.py), and a method of your
#   own.

# %%
print(f"{time.perf_counter() - start:.0f} s")
