"""Kills a short training again and again, and compares how it ends.

    python tests/examples/kills.py

Each run is killed by SIGKILL once it has taken steps since it was started,
then started again. What comes out in the end must be, to the last bit, what
comes out without any kill.
"""

import pathlib
import re
import shutil
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

import atent_keras as ak
from scripts import ROOT
from scripts import run
from scripts import running

EXAMPLES = ROOT / "examples"
SCRIPT = pathlib.Path(__file__).with_name("digits_run.py")
# Dropout, averaged weights, a schedule and noise: 3 epochs of 20 steps.
FLAGS = (
    "--num_steps=2",
    "--step_size=0.15",
    "--epochs=3",
    "--train_limit=640",
    "--validation_limit=64",
    "--test_limit=64",
    "--batch_size=32",
    "--optimizer=adam",
    "--learning_rate=0.004",
    "--schedule=one_cycle",
    "--ema=0.8",
    "--weight_decay=1e-4",
    "--validation_attack_steps=2",
    "--checkpoint_every=2",
    "--deterministic",
    "--verbose=2",
)
STEPS = 20  # an epoch
DELAY = 0.1  # seconds; past the writing, in the midst of a step
# (steps that have to be done, whether to wait until a checkpoint is written)
MOMENTS = (
    (2, False),
    (6, False),
    (10, True),
    (16, False),
    (20, False),
    (26, True),
    (32, False),
    (38, False),
    (44, True),
    (54, False),
)


def newest(folder):
    """The step of the newest whole checkpoint."""
    names = (path.stem for path in (folder / "checkpoints").glob("*.index"))
    return max((int(name.partition("-")[2]) for name in names), default=0)


def being_written(folder):
    return [*(folder / "checkpoints").glob("*_temp*")]


def kill(folder, step, in_write, flags=FLAGS):
    """Starts a run and kills it after `step` steps, or in the next writing.

    Returns:
        The step that the killed run had started from.
    """
    before = newest(folder)
    # What an earlier kill left behind is no sign of writing.
    for path in being_written(folder):
        shutil.rmtree(path)
    with running(SCRIPT, *flags, f"--output_dir={folder}") as process:
        while newest(folder) < max(step, before + 1) or (
            in_write and not being_written(folder)
        ):
            if process.returncode is not None:
                raise RuntimeError(f"Ended too early: {process.wait()}")
            time.sleep(0 if in_write else 0.005)
        if not in_write:
            time.sleep(DELAY)
        process.kill()
        output = process.wait()
    found = re.search(r"Going on after epoch (\d+) and (\d+) steps", output)
    return int(found[1]) * STEPS + int(found[2]) if found else 0


def state(folder):
    """What a run leaves: its networks, and all of its last checkpoint."""
    networks = [
        keras.models.load_model(
            folder / name,
            custom_objects={"ATENTModel": ak.ATENTModel},
            compile=False,
        ).get_weights()
        for name in ("best.keras", "last.keras")
    ]
    path = tf.train.latest_checkpoint(folder / "checkpoints")
    return [array for network in networks for array in network] + [
        tf.train.load_variable(path, name)
        for name, _ in tf.train.list_variables(path)
        if name.endswith("VARIABLE_VALUE") and "save_counter" not in name
    ]


def main():
    with tempfile.TemporaryDirectory() as parent:
        whole, killed = (
            pathlib.Path(parent) / name for name in ("whole", "killed")
        )
        code, output = run(SCRIPT, *FLAGS, f"--output_dir={whole}")
        if code:
            raise RuntimeError(output)
        print("| kill | started from | newest checkpoint | of a torn one |")
        print("|---|---|---|---|")
        for index, (step, in_write) in enumerate(MOMENTS, 1):
            started = kill(killed, step, in_write)
            torn = bool(being_written(killed))
            print(
                f"| {index} | {started} | {newest(killed)} | {torn} |",
                flush=True,
            )
        code, output = run(SCRIPT, *FLAGS, f"--output_dir={killed}")
        print(output.splitlines()[3] if not code else output)
        same = all(
            np.array_equal(one, other)
            for one, other in zip(state(killed), state(whole), strict=True)
        )
        print(f"runs lost: {int(code != 0)}; weights the same: {same}")


if __name__ == "__main__":
    main()
