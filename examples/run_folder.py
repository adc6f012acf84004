"""One folder a run: what was asked, how it went, and how to go on."""

import csv
import json
import pathlib
import platform

import keras
import tensorflow as tf

DRAFT = "config.json.tmp"


class RunFolder:
    """The files of a training run.

    - `config.json`: the flags that decide the outcome, and the machine.
    - `checkpoints/`: the state of training, the last two; see `resume.py`.
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


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} must hold JSON. Received: a damaged file ({error})"
        ) from error


def write_json(path, content):
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path, text):
    """Writes a file that is there either whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
