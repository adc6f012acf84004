r"""Trains a robust classifier of CIFAR-10.

    python examples/cifar10.py \
        --flagfile=examples/flags/cifar10_linf_small.flags

Flag files with the authors' settings are in examples/flags, too. A run that
was stopped goes on when it is started again with the same flags.
"""

from absl import app
from absl import flags

import settings
import training

settings.define("cifar10", **settings.DATASETS["cifar10"])
# So that --help shows them.
flags.adopt_module_key_flags(settings)

if __name__ == "__main__":
    app.run(lambda argv: training.run("cifar10", argv))
