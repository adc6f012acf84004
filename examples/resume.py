"""The state of training on the disk, from which a killed run goes on."""

import json
import pathlib
import re
import time

import keras
import tensorflow as tf
from absl import logging

from run_folder import write_text

# What the files of a damaged checkpoint raise, as far as was seen.
DAMAGED = (
    tf.errors.OpError,
    AssertionError,
    IndexError,
    RuntimeError,
    ValueError,
)


class Clock(keras.callbacks.Callback):
    """Adds the seconds that each epoch took, validation included.

    Of an epoch that goes on, those before its checkpoint count, too.

    Attributes:
        spent: Variable, the seconds of this epoch before it went on.
    """

    def __init__(self):
        super().__init__()
        self.spent = tf.Variable(0.0, dtype=tf.float64)
        self.start = time.time()

    def note(self):
        """Keeps the seconds so far, for a checkpoint."""
        self.spent.assign(time.time() - self.start)

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.time() - float(self.spent)

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.time() - self.start
        self.spent.assign(0.0)


class Resume(keras.callbacks.Callback):
    """Saves the state of training every so many steps, and brings it back.

    A checkpoint holds all that a step depends on: the model's variables, the
    seeds of dropout among them, those of the optimizer (its averages of the
    weights, too) and of the metrics, and the number of steps done. The order
    of the data follows from that number, and so does the noise.

    It goes behind all other callbacks: what they write of an epoch is on the
    disk before the checkpoint that says that the epoch is done. The first
    epoch of a run that goes on is as long as what is left of it.

    Args:
        folder: Where the checkpoints are; the last two are kept.
        model: A compiled, built Keras model, its metrics built, too.
        steps_per_epoch: Integer, as `fit` has it; the data go on for ever.
        every: Integer, steps between checkpoints; there is one after each
            epoch besides.
        strategy: A `tf.distribute.Strategy`.
        writes: Whether this process writes checkpoints. All processes of a
            run call this callback, since they read some variables together.

    Attributes:
        clock: A `Clock`, to be put in front of this callback.
    """

    def __init__(
        self, folder, model, steps_per_epoch, every, strategy, writes=True
    ):
        super().__init__()
        self.set_model(model)
        self.steps_per_epoch = steps_per_epoch
        self.every = every
        self.strategy = strategy
        self.short = False
        self.clock = Clock()
        optimizer = model.optimizer
        with strategy.scope():
            optimizer.build(model.trainable_variables)
        self.step = tf.Variable(0, dtype=tf.int64)
        self.settings = tf.Variable(json.dumps(settings(model.loss)))
        self.metrics = [tf.Variable(v.value) for v in model.metrics_variables]
        # All of the model's variables: `weights` lacks the seeds of dropout.
        checkpoint = tf.train.Checkpoint(
            step=self.step,
            spent=self.clock.spent,
            settings=self.settings,
            metrics=self.metrics,
            model=[variable.value for variable in model.variables],
            optimizer=[variable.value for variable in optimizer.variables],
        )
        self.checkpoint = checkpoint
        self.paths = checkpoints(folder)
        self.manager = None
        if writes:
            write_list(folder, self.paths)
            self.manager = tf.train.CheckpointManager(
                checkpoint, str(folder), max_to_keep=2, checkpoint_name="step"
            )

    def restore(self):
        """Brings back the newest state that can be read.

        Returns:
            The number of steps that are done.

        Raises:
            ValueError: If there are checkpoints, but none can be read, or
                they are of other settings, or the workers see different ones.
        """
        expected = json.loads(self.settings.numpy())
        paths = self.paths[::-1]
        for path in paths:
            try:
                self.checkpoint.restore(path).assert_consumed()
                break
            except DAMAGED as error:
                reason = str(error).splitlines()[0]
                logging.warning(
                    "%s cannot be read and is left out: %s", path, reason
                )
        else:
            if paths:
                raise ValueError(
                    "The checkpoints must be whole and of this network and "
                    f"optimizer. Received: {', '.join(paths)}: {reason}. Start "
                    "anew in another --output_dir"
                )
        found = json.loads(self.settings.numpy())
        different = [
            f"{name.rpartition('/')[2]}={found.get(name)} there, "
            f"{expected.get(name)} now"
            for name in sorted({*found, *expected})
            if found.get(name) != expected.get(name)
        ]
        if different:
            raise ValueError(
                "The checkpoints must be of a run with the same loss. "
                f"Received: {path} with {'; '.join(different)}"
            )
        self._require_agreement()
        return int(self.step)

    def _require_agreement(self):
        steps = self.strategy.run(lambda: tf.reshape(self.step, (1,)))
        steps = self.strategy.gather(steps, axis=0).numpy()
        if (steps != steps[0]).any():
            raise ValueError(
                "All workers must find the same checkpoints: --output_dir "
                "must be a folder that they share. Received: checkpoints of "
                f"steps {sorted({*steps.tolist()})}"
            )

    def save(self):
        for copy, variable in zip(self.metrics, self.model.metrics_variables):
            copy.assign(variable.value)
        if self.manager is not None:
            self.manager.save(checkpoint_number=self.step)

    def on_epoch_begin(self, epoch, logs=None):
        done = int(self.step) % self.steps_per_epoch
        if done:
            self.short = True
            for copy, variable in zip(
                self.metrics, self.model.metrics_variables
            ):
                variable.assign(copy.value())
        elif int(self.step):
            # Now, not at the end of the epoch before: averaged weights have
            # left the model again.
            self.save()

    def on_train_batch_end(self, batch, logs=None):
        done = int(self.step.assign_add(1)) % self.steps_per_epoch
        if done == 0:
            self.model.stop_training |= self.short
        elif done % self.every == 0:
            self.clock.note()
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if self.short:
            self.model.stop_training = False
            self.short = False


def checkpoints(folder):
    """Paths of the checkpoints in a folder, without suffixes, by step.

    Raises:
        ValueError: If a folder is where a file should be.
    """
    folder = pathlib.Path(folder)
    for path in (folder / "checkpoint", *folder.glob("step-*.*")):
        if path.is_dir():
            raise ValueError(f"{path} must be a file. Received: a folder")
    names = (path.name for path in folder.glob("step-*.index"))
    steps = (re.fullmatch(r"step-(\d+)\.index", name) for name in names)
    steps = sorted(int(step[1]) for step in steps if step)
    return [str(folder / f"step-{step}") for step in steps]


def write_list(folder, paths):
    """Writes TensorFlow's list of checkpoints anew: it may be damaged."""
    file = pathlib.Path(folder) / "checkpoint"
    if not paths:
        file.unlink(missing_ok=True)
        return
    lines = [f'model_checkpoint_path: "{pathlib.Path(paths[-1]).name}"']
    for path in map(pathlib.Path, paths):
        # The manager leaves alone what has no time.
        time = path.with_suffix(".index").stat().st_mtime
        lines.append(f'all_model_checkpoint_paths: "{path.name}"')
        lines.append(f"all_model_checkpoint_timestamps: {time}")
    write_text(file, "\n".join(lines) + "\n")


def settings(loss):
    """What a loss was made with, in one flat dictionary."""

    def flat(config, path=""):
        if not isinstance(config, dict):
            return {path: config}
        return {
            name: value
            for key, inner in config.items()
            if key not in ("name", "version", "module", "registered_name")
            for name, value in flat(inner, f"{path}/{key}").items()
        }

    return flat(keras.saving.serialize_keras_object(loss))
