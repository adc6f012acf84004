"""Trains a robust classifier of scikit-learn's digits, in about a minute.

    python examples/digits.py --flagfile=examples/flags/digits_linf.flags

As `mnist.py`, on 1,797 real images of 8x8 pixels that need no download.
"""

from absl import app
from absl import flags

import settings
import training

settings.define("digits", **settings.DATASETS["digits"])
# So that --help shows them.
flags.adopt_module_key_flags(settings)

if __name__ == "__main__":
    app.run(lambda argv: training.run("digits", argv))
