"""Networks built to have a fault, and what the checks say of each.

    python tests/evaluation/faults.py

All are one network of the digits, trained plainly, behind something that
hides its gradient; beside them that network itself, and one trained by ATENT.
"""

import keras
import tensorflow as tf

import atent_keras as ak

THREAT_MODEL = ak.threat_models.Linf(0.1)
SIZE = 200


def network(data, loss=None):
    """SmallCNN, trained on the digits; with a loss of ATENT robustly."""
    keras.utils.set_random_seed(0)
    model = ak.architectures.SmallCNN((8, 8, 1), padding="same")
    if loss is not None:
        model = ak.ATENTModel(model.inputs, model.outputs)
    model.compile(
        keras.optimizers.Adam(2e-3),
        loss=loss
        or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(*data, batch_size=64, epochs=8, verbose=0)
    return model


def robust_loss():
    return ak.ATENTRegularizedLoss(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ak.attacks.SGLD(THREAT_MODEL, step_size=0.03, num_steps=5),
        loss_iterates=1,
    )


@tf.custom_gradient
def backwards(x):
    """The identity, with the gradient of its opposite."""
    return x, tf.negative


@tf.custom_gradient
def without_finite_gradient(x):
    return x, lambda gradient: gradient / tf.zeros_like(gradient)


def rugged(x):
    """Moves pixels by 0.004 at most, on waves of a length of 0.002."""
    return x + 0.004 * tf.sin(3000.0 * x)


@tf.custom_gradient
def rounded(x):
    """Quantizes to 64 levels, with the gradient of steps."""
    return tf.round(x * 63) / 63, tf.zeros_like


def faulty(plain):
    """Returns networks with a fault, by its name."""

    def behind(transform):
        return lambda x: plain(transform(x), training=False)

    softmax = keras.Model(
        plain.inputs, keras.layers.Softmax()(plain.outputs[0])
    )
    softmax.compile(loss=keras.losses.SparseCategoricalCrossentropy())
    return {
        "saturated": lambda x: 1e4 * plain(x, training=False),
        "rounded": behind(rounded),
        "gradient not finite": behind(without_finite_gradient),
        "gradient backwards": behind(backwards),
        "rugged": behind(rugged),
        "random": lambda x: (
            plain(x, training=False) + tf.random.normal((10,), stddev=0.1)
        ),
        "probabilities": softmax,
    }


def findings(model, data, attack_steps=40, **settings):
    """Returns the checks' findings by name, and the report."""
    report = ak.evaluate_robustness(
        model,
        data,
        {"PGD": ak.attacks.PGD(THREAT_MODEL, num_steps=attack_steps)},
        checks=ak.MaskingChecks(**settings),
        verbose=0,
    )
    return {finding.check: finding for finding in report.findings}, report


def main():
    train, (x, y) = ak.datasets.digits()
    test = x[:SIZE], y[:SIZE]
    plain, robust = network(train), network(train, robust_loss())
    cases = {
        "none: trained plainly": (plain, robust, 40),
        "none: trained by ATENT": (robust, plain, 40),
        "one step of PGD": (robust, plain, 1),
        **{name: (one, plain, 40) for name, one in faulty(plain).items()},
    }
    checks = None
    for name, (model, surrogate, steps) in cases.items():
        found, report = findings(model, test, steps, surrogate=surrogate)
        if checks is None:
            checks = list(found)
            print("| fault | clean | PGD |", " | ".join(checks), "|")
            print("|---" * (3 + len(checks)) + "|")
        accuracies = report.clean_accuracy, report.robust_accuracy["PGD"]
        print(
            f"| {name} |",
            " | ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies),
            "|",
            " | ".join(found[check].verdict for check in checks),
            "|",
            flush=True,
        )
        for finding in found.values():
            print("    ", finding)


if __name__ == "__main__":
    main()
