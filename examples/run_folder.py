"""One folder a run: what was asked, how it went, and how to go on."""

import csv
import json
import pathlib
import platform

import keras
import tensorflow as tf
from absl import logging

DRAFT = "config.json.tmp"


class RunFolder:
    """The files of a training run.

    - `config.json`: the flags that decide the outcome, and the machine.
    - `checkpoints/`: the state of training after each epoch, the last two.
    - `metrics.csv`: a line an epoch.
    - `best.keras`, `last.keras`: the best epoch's network, and the last.

    Args:
        path: The folder; `create` makes it.
        config: Dictionary of the flags that decide the outcome.

    Raises:
        ValueError: If the folder holds another run, or other files.
    """

    def __init__(self, path, config):
        self.path = pathlib.Path(path)
        # As JSON gives it back.
        self.config = config = json.loads(json.dumps(config))
        if (self / "config.json").exists():
            theirs = read_json(self / "config.json")["flags"]
            different = [
                f"--{name}={theirs.get(name)} there, {config.get(name)} now"
                for name in sorted({*theirs, *config})
                if theirs.get(name) != config.get(name)
            ]
            if different:
                raise ValueError(
                    "A run goes on with the flags it was started with; give "
                    f"this one another --output_dir. Received: {self.path} "
                    f"with {'; '.join(different)}"
                )
        elif self.path.exists() and (
            not self.path.is_dir()
            # A draft is what a run leaves that was killed here.
            or {file.name for file in self.path.iterdir()} - {DRAFT}
        ):
            raise ValueError(
                "--output_dir must be a new or empty folder, or that of an "
                f"interrupted run. Received: {self.path}, which has no "
                "config.json"
            )

    def create(self):
        """Makes the folder and writes `config.json`, if that is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        if (self / "config.json").exists():
            return
        write_json(
            self / "config.json",
            {
                "flags": self.config,
                "versions": {
                    "python": platform.python_version(),
                    "tensorflow": tf.__version__,
                    "keras": keras.__version__,
                },
                "devices": [d.name for d in tf.config.list_logical_devices()],
            },
        )

    def __truediv__(self, name):
        return self.path / name

    def rows(self):
        """The lines of `metrics.csv`, as dictionaries of strings."""
        file = self / "metrics.csv"
        if not file.exists():
            return []
        with open(file, newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))

    def keep_rows(self, count):
        """Drops the lines of epochs that have to be run again."""
        rows = self.rows()
        if len(rows) <= count:
            return
        if not count:
            (self / "metrics.csv").unlink()
            return
        draft = self / "metrics.csv.tmp"
        with open(draft, "w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, rows[0])
            writer.writeheader()
            writer.writerows(rows[:count])
        draft.replace(self / "metrics.csv")


class Resume(keras.callbacks.Callback):
    """Saves the state of training after each epoch, and brings it back.

    It goes behind all other callbacks: what they write of an epoch is on the
    disk before the checkpoint that says that the epoch is done. An epoch that
    was interrupted runs again.

    Args:
        folder: Where the checkpoints are; the last two are kept.
        model: A compiled, built Keras model.
    """

    def __init__(self, folder, model):
        super().__init__()
        optimizer = model.optimizer
        optimizer.build(model.trainable_variables)
        self.epoch = tf.Variable(0, dtype=tf.int64)
        # All of the model's variables: `weights` lacks the seeds of dropout.
        checkpoint = tf.train.Checkpoint(
            epoch=self.epoch,
            model=[variable.value for variable in model.variables],
            optimizer=[variable.value for variable in optimizer.variables],
        )
        self.manager = tf.train.CheckpointManager(
            checkpoint, str(folder), max_to_keep=2, checkpoint_name="epoch"
        )

    def restore(self):
        """Brings back the newest state that can be read.

        Returns:
            The number of epochs that are done.

        Raises:
            ValueError: If there are checkpoints, but none can be read.
        """
        paths = self.manager.checkpoints[::-1]
        for path in paths:
            try:
                self.manager.checkpoint.restore(path).assert_consumed()
                return int(self.epoch)
            except (
                tf.errors.OpError,
                AssertionError,
                IndexError,
                RuntimeError,
                ValueError,
            ) as error:
                reason = str(error).splitlines()[0]
                logging.warning(
                    "%s cannot be read and is left out: %s", path, reason
                )
        if paths:
            raise ValueError(
                "The checkpoints must be whole and of this network and "
                f"optimizer. Received: {', '.join(paths)}: {reason}. Start "
                "anew in another --output_dir"
            )
        return 0

    def save(self, epoch):
        self.epoch.assign(epoch)
        self.manager.save(checkpoint_number=epoch)

    def on_epoch_begin(self, epoch, logs=None):
        # Now, not at the end of the epoch before: averaged weights have left
        # the model again.
        if epoch != int(self.epoch):
            self.save(epoch)


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} must hold JSON. Received: a damaged file ({error})"
        ) from error


def write_json(path, content):
    """Writes a file that is there either whole or not at all."""
    text = json.dumps(content, indent=2) + "\n"
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
