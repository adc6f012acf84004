# %% [markdown]
# # Certificates
#
# An attack that fails proves nothing; a certificate does. In this notebook you
# certify, by randomized smoothing, that no perturbation within a radius changes
# an answer, read the curve of certified accuracy, and see that a network must
# have met noise in training. It runs within a minute on two cores; its last
# line says how long it took here.

# %% tags=["remove_output"]
import time

import keras

import atent_keras as ak

start = time.perf_counter()

# %% [markdown]
# ## Two networks
#
# One trained on scikit-learn's handwritten digits as they are, one with
# Gaussian noise on them: `keras.layers.GaussianNoise`, which is active in
# training alone.

# %%
SIGMA = 0.4
(x_train, y_train), (x_test, y_test) = ak.datasets.digits()


def train(sigma, epochs=12):
    """Returns a network that was trained on images with noise."""
    keras.utils.set_random_seed(0)
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    inputs = keras.Input((8, 8, 1))
    noisy = keras.layers.GaussianNoise(sigma)(inputs)
    model = keras.Model(inputs, network(noisy))
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x_train, y_train, batch_size=64, epochs=epochs, verbose=0)
    return model


models = {"without noise": train(0.0), "with noise": train(SIGMA)}

# %% [markdown]
# ## A smoothed classifier
#
# `SmoothedClassifier` answers with the class that a network gives most often to
# an image under noise. Where the samples do not decide, it abstains, with -1.

# %%
smoothed = {
    name: ak.SmoothedClassifier(model, sigma=SIGMA)
    for name, model in models.items()
}
for name, one in smoothed.items():
    print(f"{name}: {one.predict(x_test[:10], seed=0)}")
print(f"truth: {y_test[:10]}")

# %% [markdown]
# ## Certificates
#
# If a class is given with probability p above one half, no perturbation shorter
# than sigma times the normal quantile of p can change the answer, whoever looks
# for it. `certify` bounds p from below by many samples, so that each
# certificate is wrong with probability `alpha` at most.

# %%
classes, radii = smoothed["with noise"].certify(x_test[:5], seed=0)
for number, (found, radius, truth) in enumerate(
    zip(classes, radii, y_test[:5])
):
    print(f"image {number}: class {found} (truth: {truth}) within {radius:.3f}")

# %% [markdown]
# Radii are in l_2: the length of the whole change, in pixels from 0 to 1. They
# are no statement about l_inf.
#
# ## Certified accuracy
#
# An image counts at a radius if the answer is right *and* certified that far. A
# curve falls as the radius grows; the higher, the better. The network that met
# noise in training lies above the other at every radius: a certificate is as
# good as the network is under noise.

# %%
reports = {
    name: ak.certify_robustness(
        one, (x_test[:100], y_test[:100]), num_samples=2000, verbose=0
    )
    for name, one in smoothed.items()
}
figure = ak.plots.certified_accuracy_curves(reports)

# %%
print(reports["with noise"])
for name, report in reports.items():
    accuracy = report.certified_accuracy(SIGMA)
    low, high = report.interval(accuracy)
    print(
        f"{name}: certified at {SIGMA:g}: {100 * accuracy:.0f} % "
        f"({100 * low:.0f} to {100 * high:.0f})"
    )

# %% [markdown]
# ## What it costs, and what it says
#
# The samples set a limit: the largest radius that so many can prove, when all
# of them agree, however good the network is. More noise reaches further, and
# costs accuracy at small radii; try another `SIGMA`.
#
# The certificate is of the smoothed classifier, not of the network inside, so
# serve the former: `predict` draws the samples anew for every image.
#
# A certificate is a lower bound, an accuracy under attack an upper one. Here is
# PGD on the networks inside, which are not smoothed, and so other classifiers
# than those above: more of them withstand one attack than can be certified
# against all.

# %%
attack = ak.attacks.PGD(ak.threat_models.L2(SIGMA), num_steps=40)
for name, model in models.items():
    report = ak.evaluate_robustness(
        model,
        (x_test[:100], y_test[:100]),
        {"PGD-40": attack},
        checks=None,
        verbose=0,
    )
    accuracy = report.robust_accuracy["PGD-40"]
    print(f"{name}: {100 * accuracy:.0f} % withstand PGD at {SIGMA:g}")

# %% [markdown]
# To certify a robust network, give it noise as well: a `GaussianNoise` in front
# of it, in an `ak.ATENTModel`, trained by any loss of the package.
#
# ## Where to go on
#
# - [Evaluating honestly](../evaluation.md#certificates): what to report of a
#   certificate.
# - [Attacks](../attacks.md): the other side.
# - [A first robust classifier](first_robust_classifier.py).

# %%
print(f"{time.perf_counter() - start:.0f} s")
