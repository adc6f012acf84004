"""One row of a comparison, trained with one seed: its commands, and its files.

Every part is a process of its own: what a user would type, and what gives its
memory back.
"""

import csv
import dataclasses
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
from absl import flags

import devices
import methods
import named_attacks
import run_folder
import settings
import standings
import suites
from atent_keras.archives import DAMAGES
from atent_keras.evaluation.certification import CertificationReport
from atent_keras.evaluation.report import AttackResult
from atent_keras.evaluation.report import RobustnessReport
from atent_keras.lock import Lock

FLAGS = flags.FLAGS

EXAMPLES = pathlib.Path(__file__).resolve().parent
POLL = 1.0  # seconds between looks at a training
# What reading a file raises that is damaged, or not there.
DAMAGE = (*DAMAGES, csv.Error)


class ComparedRun:
    """A row's training with a seed, and its judgement.

    Args:
        name: String, the row's name.
        flagfile: Path.
        seed: Integer.
        judge: `suites.Judge`.
        output: Path of the comparison's folder.
        epochs: Integer, to train for fewer than the flag file says. Defaults
            to `None`.
        data_dir: Path of TensorFlow Datasets. Defaults to `None`.

    Attributes:
        label: String, the name among all runs.
        command: String, what repeats the training.
        method: String, the method's name in tables.
        epochs: Integer.
        share: Float, of the training images, that it trains on.
        passes: Float, the passes over all training images.
        network: Function that builds the network.
        path: Path of the run's folder.
        network_file: Path of the network that is judged.
        surrogate: `ComparedRun` of a network whose adversarial images are
            tried, too, once that is trained; `None` for none.

    Raises:
        ValueError, TypeError: If the flags contradict each other, or the run's
            folder holds another run.
    """

    def __init__(
        self, name, flagfile, seed, judge, output, epochs=None, data_dir=None
    ):
        self.name, self.seed, self.judge = name, seed, judge
        self.flagfile = short(flagfile)
        self.label = f"{name}, seed {seed}"
        stem = folder_name(f"{name} seed {seed}")
        self.path = output / "runs" / stem
        self.surrogate = None
        self.evaluation = output / "evaluations" / stem
        self.record = output / "rows" / f"{stem}.json"
        self.script = f"{judge.dataset}.py"
        self.arguments = [
            f"--flagfile={flagfile}",
            f"--seed={seed}",
            f"--test_limit={judge.images}",
        ]
        self.network_file = self.path / "classifier.keras"
        self.elsewhere = [f"--data_dir={data_dir}"] if data_dir else []
        try:
            self._parse()
            self.arguments += _shortened(epochs)
            self._read_flags()
        except (OSError, ValueError, TypeError, flags.Error) as error:
            raise ValueError(f"{self.label}: {error}") from error
        arguments = map(short, self.arguments)
        self.command = f"python examples/{self.script} {shlex.join(arguments)}"

    def _parse(self):
        """Reads the run's flags, and nothing of another run's."""
        for module in (settings, devices):
            for flag in FLAGS.get_flags_for_module(module):
                flag.unparse()
        _, *words = FLAGS([self.script, *self.arguments])
        if words:
            raise ValueError(
                "A flag file must hold flags and comments only, a line each. "
                f"Received: {' '.join(words)}"
            )

    def _read_flags(self):
        """Checks the run's flags, as its process will."""
        self._parse()
        settings.check()
        loss, threat_model = settings.loss()
        plain = FLAGS.method == "plain"
        norm = type(self.judge.ball())
        if not plain and not isinstance(threat_model, norm):
            raise ValueError(
                f"--preset must be one of {self.judge.norm}, in which all are "
                f"judged. Received: {self.flagfile} with "
                f"--preset={FLAGS.preset}"
            )
        config = settings.config(self.judge.dataset)
        self.folder = run_folder.RunFolder(self.path, config)
        size = suites.TRAINING_IMAGES[self.judge.dataset]
        self.share = min(1.0, (FLAGS.train_limit or size) / size)
        self.epochs = FLAGS.epochs
        step = methods.passes(None if plain else loss)
        self.passes = step * self.epochs * self.share
        self.network = settings.builder(self.judge.dataset)
        if FLAGS.weights is not None:
            self.network(weights=FLAGS.weights)
        self.method, self.device = settings.title(), FLAGS.device

    def results(self):
        """What is known of a run that is done and judged, else `None`.

        What is damaged counts as not there, since it can be made anew.
        """
        try:
            known = run_folder.read_json(self.record)
            whole = not self.folder.different(known["flags"])
            # What the pictures are drawn from.
            self.curve(), self.certificates()
        except DAMAGE:
            return None
        return known if whole else None

    def is_trained(self):
        """Whether its network is there, whole."""
        return (
            run_folder.is_archive(self.network_file)
            and self.folder.report() is not None
        )

    def is_done(self, waiting=()):
        """Whether nothing is left to be done for its results.

        Args:
            waiting: `ComparedRun`s that will be done before.
        """
        known = self.results()
        if known is None or self.surrogate is None:
            return known is not None
        without = any(
            finding["check"] == "transfer" and finding["verdict"] == "not run"
            for finding in known["findings"]
        )
        there = self.surrogate in waiting or self.surrogate.is_trained()
        return not (without and there)

    def rows(self):
        """The lines of `metrics.csv`, as numbers; none while one is torn."""
        try:
            return [
                {name: float(row[name]) for name in run_folder.COLUMNS}
                for row in self.folder.rows()
            ]
        except DAMAGE:
            return []

    def require_device(self):
        """Checks that TensorFlow sees the device that the flags ask for.

        Raises:
            ValueError: If it does not.
        """
        try:
            devices.require(self.device, tf.config.list_physical_devices())
        except ValueError as error:
            raise ValueError(f"{self.label}: {error}") from error

    def require_alone(self):
        """Checks that nobody trains or judges this run.

        Who killed a comparison may have left the process that worked for it.

        Raises:
            BlockingIOError: If somebody does.
        """
        try:
            for folder in (self.path, self.evaluation, self.evaluation / "all"):
                if folder.exists():
                    with Lock(folder, "--output_dir"):
                        pass
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{self.label}, is being worked on, perhaps for a comparison "
                f"that was killed: {error}"
            ) from error

    def train(self, watch):
        """Trains, or goes on, unless that is done.

        Args:
            watch: Function that is called now and then with `rows()`.
        """
        if self.path.exists() and not run_folder.is_archive(self.network_file):
            # Which tells the run to evaluate, and to write the network, anew.
            (self.path / "results.json").unlink(missing_ok=True)
        if self.folder.report() is None:
            _call(
                self.script,
                [
                    *self.arguments,
                    *self.elsewhere,
                    "--notensorboard",
                    "--verbose=2",
                    f"--output_dir={self.path}",
                ],
                self.path.with_suffix(".log"),
                lambda: watch(self.rows()),
            )

    def evaluate(self):
        """Attacks the network, or goes on with it."""
        judge = self.judge
        common = [
            # In float32, whatever it was trained in.
            f"--model={_as_list(f'{self.name}={self.network_file}')}",
            f"--dataset={judge.dataset}",
            f"--norm={judge.norm}",
            f"--epsilon={judge.epsilon!r}",
            "--nopictures",
            *self.elsewhere,
        ]
        log = self.evaluation.with_suffix(".log")
        transfer = []
        if self.surrogate is not None and self.surrogate.is_trained():
            transfer = [f"--surrogate={self.surrogate.network_file}"]
        _call(
            "evaluate.py",
            [
                *common,
                f"--attacks={judge.pgd},{standings.AUTO_ATTACK}",
                f"--test_limit={judge.images}",
                f"--radii={','.join(map(str, judge.radii))}",
                f"--certify={judge.sigma}",
                f"--certify_limit={judge.certified_images}",
                f"--certify_samples={judge.certified_samples}",
                f"--output_dir={self.evaluation}",
                *transfer,
            ],
            log,
        )
        if judge.pgd_images > judge.images:
            _call(
                "evaluate.py",
                [
                    *common,
                    f"--attacks={judge.pgd}",
                    f"--test_limit={judge.pgd_images}",
                    "--nochecks",
                    f"--output_dir={self.evaluation / 'all'}",
                ],
                log,
            )

    def write(self):
        """Writes the row's figures, out of the files of all that was run."""
        trained = run_folder.read_json(self.path / "results.json")
        config = run_folder.read_json(self.path / "config.json")
        self.record.parent.mkdir(parents=True, exist_ok=True)
        run_folder.write_json(
            self.record,
            {
                **self.plan(),
                "training_seconds": trained["training_seconds"],
                "judging_seconds": self._judging_seconds(),
                "flags": config["flags"],
                "versions": config["versions"],
                "devices": config["devices"],
                "processor": config.get("processor"),
                **self._figures(),
            },
        )

    def _judging_seconds(self):
        """What attacks and certificates took, however often it was killed."""
        reports = map(
            run_folder.read_json, self.evaluation.rglob("report.json")
        )
        attacks = (row["seconds"] for found in reports for row in found["rows"])
        return sum(filter(None, attacks), self.certificates().seconds)

    def _figures(self):
        """What the evaluation's files say, as the tables need it."""
        judge, folder = self.judge, self.evaluation / self.name
        few = run_folder.read_json(folder / "report.json")
        every = few
        if judge.pgd_images > judge.images:
            every = self.evaluation / "all" / self.name / "report.json"
            every = run_folder.read_json(every)
        certificates = self.certificates()
        return {
            "clean": _accuracy(every, "clean"),
            judge.pgd: _accuracy(every, judge.pgd),
            f"{judge.pgd} on fewer": _accuracy(few, judge.pgd),
            standings.AUTO_ATTACK: _accuracy(few, standings.AUTO_ATTACK),
            "findings": few["findings"],
            "attacks": few["attacks"],
            "certified": {
                "rows": certificates.rows(),
                "none": certificates.interval(0)[1],
            },
            "atent_keras": few["version"],
        }

    def curve(self):
        """The `RobustnessReport` of the attack at several radii."""
        with np.load(self.evaluation / self.name / "radii/report.npz") as found:
            arrays = dict(found)
        results = {}
        for radius in self.judge.radii:
            name = f"{self.judge.pgd} at {radius:.4g}"
            ball = self.judge.ball(radius)
            results[name] = AttackResult(
                named_attacks.make([self.judge.pgd], ball).popitem()[1],
                arrays[f"{name}/succeeded"],
                arrays[f"{name}/norm"],
                seconds=0.0,
            )
        return RobustnessReport(arrays["correct"], results)

    def certificates(self):
        """The `CertificationReport`."""
        folder = self.evaluation / self.name / f"sigma_{self.judge.sigma:g}"
        settings = run_folder.read_json(folder / "certificates.json")
        with np.load(folder / "certificates.npz") as arrays:
            known = {**settings, **arrays}
        fields = dataclasses.fields(CertificationReport)
        return CertificationReport(
            **{field.name: known[field.name] for field in fields}
        )

    def plan(self):
        """What is known before anything is done."""
        return {
            "name": self.name,
            "seed": self.seed,
            "method": self.method,
            "flagfile": self.flagfile,
            "command": self.command,
            "epochs": self.epochs,
            "passes": self.passes,
            "share": self.share,
            "flags": self.folder.config,
        }


def flag_file(name):
    """The path of a flag file: one of ours by name, or anybody's."""
    folder = EXAMPLES / "flags"
    places = (folder / f"{name}.flags", pathlib.Path(name), _long(name))
    for path in places:
        if path.is_file():
            return path.resolve()
    known = sorted(file.stem for file in folder.glob("*.flags"))
    raise FileNotFoundError(
        "--flagfiles must be files that exist, or names of those in "
        f"{folder}: {', '.join(known)}. Received: {name}"
    )


def folder_name(name):
    """What a row or a run is called as a folder."""
    return name.lower().replace(" ", "_")


def short(path):
    """A path or an argument as it reads from the project's folder."""
    return str(path).replace(f"{EXAMPLES.parent}/", "")


def _long(path):
    """What `short` made short."""
    return EXAMPLES.parent / path


def _accuracy(report, attack):
    """An accuracy of a report, with its interval and number of images."""
    row = next(row for row in report["rows"] if row["attack"] == attack)
    kept = {key: row[key] for key in ("accuracy", "low", "high", "seconds")}
    return {"num_examples": report["num_examples"], **kept}


def _shortened(epochs):
    """Flags for fewer epochs, for which warm-ups would be too long."""
    if epochs is None:
        return []
    warm = settings.given(("awp_warmup_epochs", "epsilon_warmup_epochs"))
    return [f"--epochs={epochs}", *(f"--{name}=0" for name in warm)]


def _as_list(text):
    """A text, which may hold commas, as the only one of a list's flag."""
    return '"{}"'.format(text.replace('"', '""'))


def _call(script, arguments, log, watch=lambda: None):
    """Runs another script to its end, its output in a file.

    Raises:
        RuntimeError: If it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                time.sleep(POLL)
                watch()
        finally:  # Nothing goes on behind the back of who stopped this.
            process.terminate()
            process.wait()
    code = process.returncode
    if code:
        said = log.read_bytes()[start:].decode(errors="replace").split("\n")
        said = [line for line in said if line.strip()] or ["nothing"]
        end = f"with {code}" if code > 0 else f"by {signal.Signals(-code).name}"
        raise RuntimeError(
            f"{script} ended {end}. Its last words, in {log}: {said[-1]}"
        )
