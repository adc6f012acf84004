r"""What a training step of each method costs, in passes and in time.

    pip install "." && python benchmarks/methods.py
    python benchmarks/methods.py --settings=PreActResNet18:10:512 \
        --precision=mixed_bfloat16            # on a GPU, where XLA compiles

One table for each network, all rows with the same number of steps of the
inner attack; all of it goes to `methods.json`, too. Each row lives in a process
of its own, and the rows are timed in turns, so that a busy machine slows all
of them alike; figures are medians with quartiles, and `to ATENT` is the ratio
of medians. The passes are those that the method needs: forward, back to the
images, back to the first layer's weights, and gradients by weights. What tests
count is in `tests/losses/test_methods.py`.
"""

import json
import pathlib

import device
import keras
import processes
import tensorflow as tf
import train_step
from absl import app
from absl import flags
from arithmetic import Passes

import atent_keras as ak

FLAGS = flags.FLAGS
FLAGS.set_default("settings", ["SmallCNN:10", "ResNet20:10"])
FLAGS.set_default("output", "methods.json")

ATENT = "ATENT, K=2"


def attack(num_steps):
    threat_model = train_step.sampler(num_steps).threat_model
    return ak.attacks.PGD(threat_model, num_steps=num_steps)


def fast(num_steps):
    threat_model = train_step.sampler(1).threat_model
    single = ak.attacks.PGD(threat_model, 1.25 * threat_model.epsilon, 1)
    return ak.AdversarialLoss(
        train_step.cross_entropy(), single, attack_training=True
    )


def pgd(num_steps):
    return ak.AdversarialLoss(train_step.cross_entropy(), attack(num_steps))


def atent(num_steps):
    return ak.ATENTRegularizedLoss(
        train_step.cross_entropy(),
        train_step.sampler(num_steps),
        loss_iterates=2,
    )


def trades(num_steps):
    return ak.TRADESLoss(attack(num_steps))


def mart(num_steps):
    return ak.MARTLoss(attack(num_steps))


def perturbed(method):
    def loss(num_steps):
        return ak.AdversarialWeightPerturbation(method(num_steps), 0.005)

    return loss


def step(name, num_steps, batch_size, method, jit_compile, precision):
    keras.config.set_dtype_policy(precision)
    model, x, y = train_step.network(name, batch_size)
    loss = train_step.cross_entropy()
    if method in METHODS:
        model = ak.RobustModel(model.inputs, model.outputs)
        loss = METHODS[method][0](num_steps)
    optimizer = keras.optimizers.SGD(0.01)
    model.compile(optimizer, loss=loss, jit_compile=jit_compile)
    compiled = tf.function(
        model.train_step, autograph=False, jit_compile=jit_compile
    )
    return {"step": lambda: compiled((x, y))["loss"].numpy()}


# The loss of each method, and its passes for so many steps.
METHODS = {
    "Fast-AT": (fast, lambda steps: Passes(2, 1, 1, 1)),
    "PGD training": (pgd, lambda steps: Passes(steps + 1, steps, 1, 1)),
    ATENT: (atent, lambda steps: Passes(steps + 1, steps, 1, 2)),
    "TRADES": (trades, lambda steps: Passes(steps + 3, steps, 2, 2)),
    "MART": (mart, lambda steps: Passes(steps + 2, steps, 2, 2)),
    "PGD training + AWP": (
        perturbed(pgd),
        lambda steps: Passes(steps + 2, steps, 2, 2),
    ),
    "ATENT, K=2 + AWP": (
        perturbed(atent),
        lambda steps: Passes(steps + 4, steps, 4, 4),
    ),
    "TRADES + AWP": (
        perturbed(trades),
        lambda steps: Passes(steps + 5, steps, 4, 4),
    ),
}


def measure(name, num_steps, batch_size):
    """Prints a table; returns its rows as dictionaries, by label."""
    table = {"plain Keras": Passes(1, 0, 1, 1)}
    for label, (_, passes) in METHODS.items():
        table[label] = passes(num_steps)
    given = name, num_steps, batch_size
    how = device.jit_compile(), FLAGS.precision
    running = {
        label: processes.Process(step, *given, label, *how) for label in table
    }
    took = processes.interleave(
        {label: (process, "step") for label, process in running.items()},
        FLAGS.rounds,
    )
    mebibytes = {label: process.peak() for label, process in running.items()}
    for process in running.values():
        process.close()
    print(
        f"\n{name}, {num_steps} steps, batch {batch_size}\n"
        f"{device.header()}\n{'':<20}"
        f"{'forward':>8}{'images':>7}{'last':>5}{'weights':>8}"
        f"{'ms [quartiles]':>25}{'to ATENT':>9}{'MiB':>6}"
    )
    results = {}
    for label, passes in table.items():
        ratio = took[label][1] / took[ATENT][1]
        results[label] = {
            "passes": passes._asdict(),
            "milliseconds": took[label],
            "to_atent": ratio,
            "mebibytes": mebibytes[label],
        }
        print(
            f"{label:<20}{passes.forward:8}{passes.inputs:7}{passes.last:5}"
            f"{passes.weights:8}{processes.spread(took[label]):>25}"
            f"{ratio:9.2f}{mebibytes[label]:6.0f}",
            flush=True,
        )
    return results


def main(argv):
    del argv
    results = {
        setting: measure(*train_step.parse(setting))
        for setting in FLAGS.settings
    }
    text = json.dumps({**device.described(), "tables": results}, indent=2)
    pathlib.Path(FLAGS.output).write_text(text + "\n")


if __name__ == "__main__":
    app.run(main)
