"""Trains a robust classifier of MNIST.

    python examples/mnist.py --flagfile=examples/flags/mnist_linf_cpu.flags

Flag files with the authors' settings are in examples/flags, too. A run that
was stopped goes on when it is started again with the same flags.
"""

from absl import app
from absl import flags

import settings
import training

settings.define("mnist", **settings.DATASETS["mnist"])
# So that --help shows them.
flags.adopt_module_key_flags(settings)

if __name__ == "__main__":
    app.run(lambda argv: training.run("mnist", argv))
