# %% [markdown]
# # A first robust classifier
#
# In this notebook you train one small network twice, plainly and by ATENT, see
# how little it takes to fool the first, and find the number by which to judge
# the second. The images are handwritten digits that scikit-learn carries along,
# so that nothing is downloaded. It runs within a minute on two cores; its last
# line says how long it took here.

# %% tags=["remove_output"]
import time

import keras

import atent_keras as ak

start = time.perf_counter()

# %%
(x_train, y_train), (x_test, y_test) = ak.datasets.digits()
print(f"{len(x_train)} images to train on, {len(x_test)} to test")
print(f"shape {x_train.shape[1:]}, from {x_train.min():g} to {x_train.max():g}")

# %% [markdown]
# ## What an attacker may do
#
# A claim of robustness is a claim about a *threat model*: here every pixel may
# change by at most `epsilon`, and stays between black and white.

# %%
threat_model = ak.threat_models.Linf(epsilon=0.15)

# %% [markdown]
# ## Two trainings
#
# The second differs from the first in two lines: the model is an `ATENTModel`,
# and its loss says how points around each image are found. `compile` and `fit`
# are Keras's own.


# %%
def train(loss, make_model, epochs=10):
    """Returns a network that was trained by one of the losses."""
    keras.utils.set_random_seed(0)
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    model = make_model(network.input, network.output)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    history = model.fit(
        x_train, y_train, batch_size=64, epochs=epochs, verbose=0
    )
    accuracy = history.history["accuracy"][-1]
    print(f"{type(model).__name__}: {100 * accuracy:.1f} % while it trained")
    return model


cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
plain = train(cross_entropy, keras.Model)

# %%
sampler = ak.attacks.SGLD(threat_model, step_size=0.06, num_steps=4)
loss = ak.ATENTRegularizedLoss(cross_entropy, sampler, loss_iterates=2)
robust = train(loss, ak.ATENTModel)

# %% [markdown]
# The second figure is lower for a reason: it counts attacked images, those that
# the Langevin chain `SGLD` found, and they get worse as the network gets
# better.
#
# ## What fools a network
#
# `PGD` climbs the loss from a random point of the ball, and never leaves it.
# The first row shows eight test images, the second what PGD made of them, the
# third the difference; the network's answer stands above each image, and wrong
# answers are framed. To our eyes the digits are what they were.

# %%
attack = ak.attacks.PGD(threat_model, num_steps=20)
x, y = x_test[:8], y_test[:8]
figure = ak.plots.adversarial_images(plain, x, attack(plain, x, y, seed=0), y)

# %% [markdown]
# The same eight images, attacked in the same way for the robust network.
# Compare the frames of the second rows, and how sure the answers are: a robust
# network says less than it might of clean images, too. Eight images are not
# enough to judge by, which is what comes next.

# %%
figure = ak.plots.adversarial_images(robust, x, attack(robust, x, y, seed=0), y)

# %% [markdown]
# ## Accuracy over the radius
#
# `evaluate_robustness` attacks all test images, counts those that the network
# gets right both as they are and attacked, and puts an interval around each
# figure. One attack at several radii makes a curve: both start at the clean
# accuracy, at 0, and the distance between them is what robust training bought.
# Both must come down in the end. A curve that does not come down is the sign of
# a broken attack, not of a strong network.

# %%
attacks = {
    f"PGD-20 at {epsilon:g}": ak.attacks.PGD(
        ak.threat_models.Linf(epsilon), num_steps=20
    )
    for epsilon in (0.05, 0.1, 0.15, 0.2, 0.3)
}
reports = {
    name: ak.evaluate_robustness(
        model, (x_test, y_test), attacks, checks=None, verbose=0
    )
    for name, model in {"plain": plain, "ATENT": robust}.items()
}
figure = ak.plots.robust_accuracy_curves(
    reports, trained_at=threat_model.epsilon
)

# %%
for name, report in reports.items():
    accuracy = report.robust_accuracy["PGD-20 at 0.15"]
    low, high = report.interval(accuracy)
    print(
        f"{name}: clean {100 * report.clean_accuracy:.1f} %, under PGD-20 "
        f"{100 * accuracy:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    )

# %% [markdown]
# ## The number that decides
#
# An accuracy under attack is an upper bound, as good as its attack: PGD may
# have missed what another attack finds. The figure to report is the **worst
# case** under the strongest attacks you can afford, with its interval and with
# the number of images. The field expects AutoAttack. To be quick, only its
# first two parts are run here, on few images, and the interval is as wide as
# that makes it; for a claim take `ak.attacks.AutoAttack(threat_model)`, all
# four parts, and a thousand images.

# %%
strong = ak.attacks.AutoAttack(
    threat_model,
    [ak.attacks.APGD(threat_model), ak.attacks.APGDT(threat_model)],
)
report = ak.evaluate_robustness(
    robust,
    (x_test[:100], y_test[:100]),
    {"PGD-20": attack, "APGD, APGD-T": strong},
    checks=None,
    verbose=0,
)
low, high = report.interval(report.worst_case_accuracy)
print(
    f"{100 * report.worst_case_accuracy:.1f} % ({100 * low:.1f} to "
    f"{100 * high:.1f}) of {report.num_examples} images in the worst case, "
    f"{100 * report.robust_accuracy['PGD-20']:.1f} % under PGD-20"
)

# %% [markdown]
# What leaves training is a plain Keras model: `robust.save("robust.keras")` and
# `robust.export("robust")` are Keras's own.
#
# ## Where to go on
#
# - [Your own model](your_own_model.py): the same around a network that exists.
# - [Comparing methods](comparing_methods.py): ATENT beside PGD training, TRADES
#   and MART.
# - [Evaluating honestly](../evaluation.md): what to report, and how a figure
#   can deceive; [as a notebook](evaluating_honestly.py).
# - [Serving](../serving.md): what leaves training, and for whom.

# %%
print(f"{time.perf_counter() - start:.0f} s")
