# %% [markdown]
# # A training loop of your own
#
# In this notebook you train without `fit`: a `tf.function` around
# `value_and_gradients`, an optimizer of your choice, any method put into its
# place, a radius that grows, weight perturbation, and at last a method of your
# own. It runs within a minute on two cores; its last line says how long it took
# here.

# %% tags=["remove_output"]
import time

import keras
import matplotlib.pyplot as plt
import tensorflow as tf

import atent_keras as ak

start = time.perf_counter()

# %% [markdown]
# ## The loop
#
# `value_and_gradients` finds the points and gives the loss, the gradients in
# the order of `trainable_variables`, the points and the network's answers
# there. It moves BatchNormalization's statistics, and leaves the weights to
# you.

# %%
(x_train, y_train), (x_test, y_test) = ak.datasets.digits()
batches = (
    tf.data.Dataset.from_tensor_slices((x_train, y_train))
    .shuffle(len(x_train), seed=0)
    .batch(64, drop_remainder=True)
)
test = x_test[:200], y_test[:200]
threat_model = ak.threat_models.Linf(epsilon=0.15)
judge = ak.attacks.PGD(threat_model, num_steps=20)


def train(loss, epochs=6):
    """Trains a network, and returns it with the loss of each epoch."""
    keras.utils.set_random_seed(0)
    network = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    optimizer = keras.optimizers.AdamW(2e-3, weight_decay=1e-4)
    # A radius schedule reads the iteration of the model's optimizer.
    network.compile(optimizer)

    @tf.function
    def train_step(x, y):
        step = loss.value_and_gradients(network, x, y)
        optimizer.apply_gradients(
            (optimizer.scale_loss(gradient), weight)
            for gradient, weight in zip(
                step.gradients, network.trainable_variables
            )
        )
        return step.loss

    optimizer.build(network.trainable_variables)
    history = []
    for _ in range(epochs):
        losses = [float(train_step(x, y)) for x, y in batches]
        history.append(sum(losses) / len(losses))
    return network, history


def accuracies(network):
    """Returns the network's accuracies, in a line."""
    report = ak.evaluate_robustness(
        network, test, {"PGD-20": judge}, checks=None, verbose=0
    )
    return (
        f"clean {100 * report.clean_accuracy:.1f} %, under PGD-20 "
        f"{100 * report.robust_accuracy['PGD-20']:.1f} %"
    )


# %% [markdown]
# `scale_loss` is for optimizers that divide by a loss scale, such as
# `keras.optimizers.LossScaleOptimizer`; in others it changes nothing.
#
# ## ATENT, and another method in its place
#
# The loop does not know which method it trains by.

# %%
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
sampler = ak.attacks.SGLD(threat_model, step_size=0.06, num_steps=4)
inner = ak.attacks.PGD(threat_model, step_size=0.06, num_steps=4)
losses = {
    "ATENT": ak.ATENTRegularizedLoss(cross_entropy, sampler, loss_iterates=2),
    "TRADES": ak.TRADESLoss(inner, beta=6.0),
}

# %% [markdown]
# ## A radius that grows, and weight perturbation
#
# A schedule of `keras.optimizers.schedules` multiplies the radius and the step,
# here from nothing to the whole within the first three epochs. Weight
# perturbation goes around any of the others.

# %%
share = keras.optimizers.schedules.PolynomialDecay(0.0, 3 * len(batches), 1.0)
growing = ak.ATENTRegularizedLoss(
    cross_entropy, sampler, loss_iterates=2, radius_schedule=share
)
losses["ATENT, growing radius + AWP"] = ak.AdversarialWeightPerturbation(
    growing, gamma=0.005
)

# %% [markdown]
# ## A method of your own
#
# A subclass of `ak.losses.RobustLoss` says where it looks (`points`) and what
# it minimizes there (`losses`); checks, noise, state and mixed precision come
# with it. This is PGD training with the clean images mixed in. `network(x,
# state, training)` is a pure function: it returns the outputs `y_pred`, the new
# `state` and the regularization losses, and changes no variable.


# %%
@keras.saving.register_keras_serializable("my_project")
class HalfClean(ak.AdversarialLoss):
    def losses(self, network, state, x_adv, batch):
        clean = network(batch.x, state, training=True)
        found = super().losses(network, clean.state, x_adv, batch)
        values = self.call(batch.y, clean.y_pred) + found.values
        return found._replace(values=values / 2)


losses["HalfClean"] = HalfClean(cross_entropy, inner)

# %% [markdown]
# ## All of them
#
# The losses are of different quantities, so that their heights can't be
# compared: see that each falls. The one whose radius grows falls while its task
# gets harder. The accuracies can be compared, and after so few epochs they say
# little of the methods; [Comparing methods](comparing_methods.py) does better.

# %%
figure, axis = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
for (name, loss), line in zip(losses.items(), ("-", "--", "-.", ":")):
    network, history = train(loss)
    axis.plot(range(1, len(history) + 1), history, line, label=name)
    print(f"{name}: {accuracies(network)}")
axis.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
legend = axis.legend(frameon=False)

# %% [markdown]
# ## The same by `fit`
#
# Everything above is also a loss of `fit`: `ak.RobustModel(inputs, outputs)`,
# `compile`, `fit`, with callbacks, metrics and files.
#
# A loop under `tf.distribute` calls the step by `strategy.run`. On each
# replica, `loss` and `gradients` are its share of the global batch's, so that
# gradients are to be summed, which Keras's optimizers do, and losses as well.
# `fit` does all of that; [Many devices](../distributed.md) says what a batch,
# noise and BatchNormalization mean there.
#
# ## Where to go on
#
# - [Methods](../methods.md): formulas and costs; `HalfClean` is from there.
# - [Comparing methods](comparing_methods.py).
# - [On a GPU](../gpu.md): `tf.function(jit_compile=True)`, and precision.

# %%
print(f"{time.perf_counter() - start:.0f} s")
