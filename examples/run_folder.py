"""One folder a run: what was asked, how it went, and how to go on."""

import csv
import json
import pathlib
import platform
import zipfile

import keras
import tensorflow as tf

import atent_keras as ak
import devices
from atent_keras import lock
from atent_keras.archives import DAMAGES

# What a run leaves that was killed before it had written anything.
DRAFTS = {"config.json.tmp", lock.NAME}
FILES = (
    "best.keras",
    "classifier.keras",
    "config.json",
    "images.png",
    "last.keras",
    "metrics.csv",
    "report.txt",
    "results.json",
)
FOLDERS = ("checkpoints", "saved_model", "tensorboard")
# What goes on reads of each line of `metrics.csv`.
COLUMNS = {"epoch", "seconds", "val_accuracy", "val_robust_accuracy"}
REPORT_END = " s)\n"


class RunFolder:
    """The files of a training run.

    - `config.json`: the flags that decide the outcome, and the machine.
    - `checkpoints/`: the state of training, the last two; see `resume.py`.
    - `metrics.csv`: a line an epoch.
    - `best.keras`, `last.keras`: the best epoch's network, and the last.
    - `classifier.keras`, `saved_model/`: the best, a plain one in float32.
    - `report.txt`, `results.json`: the end.

    What a run that goes on needs and finds damaged, it refuses by name; what
    it can make anew from the rest, it makes anew.

    Args:
        path: The folder; `create` makes it.
        config: Dictionary of the flags that decide the outcome.

    Raises:
        ValueError: If the folder holds another run, other files, or a damaged
            `config.json`.
    """

    def __init__(self, path, config):
        self.path = pathlib.Path(path)
        # As JSON gives it back.
        self.config = json.loads(json.dumps(config))
        self.check()

    def check(self):
        """Checks that the folder is free, or this run's."""
        lock.require_folder(self.path, "--output_dir")
        for name in (*FILES, *FOLDERS):
            path, folder = self / name, name in FOLDERS
            if path.exists() and path.is_dir() != folder:
                raise ValueError(
                    f"{path} must be a {'folder' if folder else 'file'}, or "
                    f"not there. Received: a {'file' if folder else 'folder'}"
                )
        if (self / "config.json").exists():
            theirs = self._flags()
            different = [
                f"--{name}={theirs.get(name)} there, {self.config.get(name)} "
                "now"
                for name in self.different(theirs)
            ]
            if different:
                raise ValueError(
                    "A run goes on with the flags it was started with; give "
                    f"this one another --output_dir. Received: {self.path} "
                    f"with {'; '.join(different)}"
                )
        elif self.path.exists() and (
            {file.name for file in self.path.iterdir()} - DRAFTS
        ):
            raise ValueError(
                "--output_dir must be a new or empty folder, or that of an "
                f"interrupted run. Received: {self.path}, which has no "
                "config.json"
            )

    def different(self, flags):
        """The names of flags with other values; one that is new has `None`."""
        return [
            name
            for name in sorted({*flags, *self.config})
            if flags.get(name) != self.config.get(name)
        ]

    def _flags(self):
        """The flags that the run was started with."""
        path = self / "config.json"
        found = read_json(path)
        flags = found.get("flags") if isinstance(found, dict) else None
        if not isinstance(flags, dict):
            raise damaged(path, "hold a run's flags")
        return flags

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
                    "atent_keras": ak.__version__,
                },
                "devices": [d.name for d in tf.config.list_logical_devices()],
                "processor": devices.name(),
            },
        )

    def __truediv__(self, name):
        return self.path / name

    def draft(self, name):
        """Where a file is written before it gets its name."""
        return self / f"draft_{name}"

    def rows(self):
        """The lines of `metrics.csv`, as dictionaries of strings."""
        file = self / "metrics.csv"
        if not file.exists():
            return []
        with open(file, newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))

    def keep_rows(self, count):
        """Drops the lines of epochs that have to be run again.

        Args:
            count: Integer, the number of epochs that are done.

        Raises:
            ValueError: If the lines of the others are not all there, and
                whole.
        """
        file = self / "metrics.csv"
        if not count:
            file.unlink(missing_ok=True)
            return
        try:
            with open(file, newline="", encoding="utf-8") as content:
                lines = content.readlines()
            whole = are_rows(lines[: count + 1], count)
        except (OSError, ValueError, csv.Error):
            whole = False
        if not whole:
            raise damaged(file, f"have a line for each of {count} epochs")
        if len(lines) > count + 1:
            write_text(file, "".join(lines[: count + 1]))

    def require_networks(self, *names):
        """Checks `.keras` files that are not written again.

        Raises:
            ValueError: If one is damaged, or not there.
        """
        for name in names:
            if not is_archive(self / name):
                raise damaged(self / name, "hold a network")

    def require_state(self):
        """Checks that a run without a state of training has just begun.

        Raises:
            ValueError: If more epochs are done than can be without one.
        """
        file = self / "metrics.csv"
        if file.exists() and file.read_bytes().count(b"\n") > 2:
            raise damaged(
                self / "checkpoints",
                "hold the state of a run whose metrics.csv has several epochs",
            )

    def report(self):
        """The text that a complete run ends with, `None` if it is not so.

        What is damaged counts as not there: the run makes it anew.
        """
        try:
            results = read_json(self / "results.json")
            text = (self / "report.txt").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        whole = isinstance(results, dict) and "training_seconds" in results
        return text if whole and text.endswith(REPORT_END) else None


class Publish(keras.callbacks.Callback):
    """Renames what other callbacks wrote as drafts in this epoch.

    Keras writes a file in its place, where a kill would leave it torn.

    Args:
        folder: A `RunFolder`.
        names: Names of files, whose drafts `draft` names.
    """

    def __init__(self, folder, names):
        super().__init__()
        self.files = {folder.draft(name): folder / name for name in names}

    def on_train_begin(self, logs=None):
        for draft in self.files:  # of a run that was killed
            draft.unlink(missing_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        for draft, file in self.files.items():
            if draft.exists():
                draft.replace(file)


def damaged(path, rule):
    """The error for a file that can't be made anew."""
    return ValueError(
        f"{path} must {rule}. Received: "
        f"{'a damaged one' if path.exists() else 'nothing there'}; bring back "
        "a copy of it, or start anew in another --output_dir"
    )


def are_rows(lines, count):
    """Whether lines of CSV are a header and those of so many epochs.

    What is no number raises a `ValueError`.
    """
    header, *rows = csv.reader(lines)
    numbers = [[float(value) for value in row] for row in rows]
    return (
        COLUMNS <= {*header}
        and lines[-1].endswith("\n")
        and all(len(row) == len(header) for row in numbers)
        and [row[header.index("epoch")] for row in numbers] == [*range(count)]
    )


def is_archive(path):
    """Whether a file is a whole `.keras` or `.zip` file."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except DAMAGES:
        return False


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, "hold JSON") from error


def write_json(path, content):
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path, text):
    """Writes a file that is there either whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8", newline="")
    draft.replace(path)
