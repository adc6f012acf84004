"""Evaluates a network, and is killed while it does so.

    python tests/evaluation/killed_run.py MODEL FOLDER COUNT

At the attacks' call number COUNT the process kills itself, as a power cut
would: nothing is flushed, no handler runs.
"""

import dataclasses
import os
import signal
import sys

import keras

import atent_keras as ak
from atent_keras.threat_models import Linf

SETTINGS = ak.MaskingChecks(num_images=20, num_steps=5, num_queries=20)
CALLS = []


@dataclasses.dataclass(frozen=True)
class Deadly(ak.attacks.PGD):
    """PGD, which counts its calls and does not survive the last of them."""

    def __call__(self, model, x, y, seed=None, first=0):
        CALLS.append(len(x))
        if len(CALLS) == self.last_call():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(model, x, y, seed, first)

    @staticmethod
    def last_call():
        return int(sys.argv[3]) if __name__ == "__main__" else None


def attacks():
    return {
        "PGD-3": Deadly(Linf(0.1), num_steps=3),
        "PGD-5": Deadly(Linf(0.1), num_steps=5),
    }


def evaluate(model, folder):
    """Returns a report on 100 digits, in five batches."""
    x, y = (part[:100] for part in ak.datasets.digits()[1])
    batches = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 100, 20)]
    return ak.evaluate_robustness(
        keras.models.load_model(model),
        batches,
        attacks(),
        folder=folder,
        checks=SETTINGS,
        verbose=0,
    )


if __name__ == "__main__":
    evaluate(*sys.argv[1:3])
