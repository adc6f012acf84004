"""The folder of a comparison: what it is of, and what came out."""

import json
import shutil

from matplotlib import pyplot

import run_folder
import standings
import suites
from atent_keras import lock
from atent_keras import plots
from compared_run import flag_file
from compared_run import folder_name
from compared_run import short

# What a run's folder takes: the weights in three networks and a SavedModel, and
# two checkpoints of them with an optimizer's moments and an average.
BYTES_PER_PARAMETER = 64
BYTES_PER_RUN = 4 * 2**20


class ComparisonFolder:
    """The files of a comparison.

    - `comparison.json`: what it is of, with the rows and seeds so far.
    - `runs/`, `evaluations/`: what the other scripts write of each run.
    - `rows/`: a run's figures.
    - `results.*` and pictures: what all of that comes to.

    Args:
        path: Path of the folder.
        suite: String, the suite's name; `None` for flag files.
        judge: `suites.Judge`.
        epochs: Integer, of every run; `None` for those of its flag file.

    Raises:
        ValueError: If the folder holds something else.
    """

    def __init__(self, path, suite, judge, epochs):
        self.path, self.suite, self.judge = path, suite, judge
        # What makes a comparison another: all but its rows and seeds.
        self.identity = {
            "suite": suite,
            "judge": json.loads(json.dumps(judge._asdict())),
            "epochs": epochs,
        }
        self.rows, self.seeds = {}, []
        self._check()

    def _check(self):
        """Reads what is there, and checks that it is this comparison's."""
        lock.require_folder(self.path, "--output_dir")
        file = self.path / "comparison.json"
        if not file.exists():
            drafts = {"comparison.json.tmp", lock.NAME}
            there = self.path.iterdir() if self.path.exists() else ()
            if {one.name for one in there} - drafts:
                raise ValueError(
                    "--output_dir must be a new or empty folder, or that of a "
                    f"comparison. Received: {self.path}, which has no "
                    "comparison.json"
                )
            return
        theirs = run_folder.read_json(file)
        try:
            self.rows = dict(theirs.get("rows", {}))
            self.seeds = list(theirs.get("seeds", ()))
            judge, mine = dict(theirs["judge"]), self.identity["judge"]
            pairs = [
                *(
                    (key, theirs[key], self.identity[key])
                    for key in ("suite", "epochs")
                ),
                *((key, judge.get(key), mine[key]) for key in mine),
            ]
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise run_folder.damaged(file, "say what is compared") from error
        different = [
            f"{name} {there} there, {now} now"
            for name, there, now in pairs
            if there != now
        ]
        if different:
            raise ValueError(
                "--output_dir must be a new folder, or that of the same "
                f"comparison. Received: {self.path} with "
                f"{'; '.join(different)}"
            )

    def require_unchanged(self):
        """Checks that no other command has changed it since it was read.

        Raises:
            BlockingIOError: If one has.
        """
        now = ComparisonFolder(
            self.path, self.suite, self.judge, self.identity["epochs"]
        )
        if (now.rows, now.seeds) != (self.rows, self.seeds):
            raise BlockingIOError(
                "--output_dir must not be in use by another command, which has "
                f"just added rows or seeds. Received: {self.path}; start again"
            )

    def joined(self, rows, seeds):
        """Rows and seeds, with those of earlier commands.

        Args:
            rows: Dictionary from names to paths of flag files.
            seeds: Integers.

        Returns:
            A dictionary and a list, as the arguments.

        Raises:
            ValueError: If a row's name is that of another flag file, or two
                of them would share a folder.
        """
        earlier = {name: flag_file(file) for name, file in self.rows.items()}
        for name, path in rows.items():
            if earlier.get(name, path) != path:
                raise ValueError(
                    "A row must keep its flag file. Received: "
                    f"{self.path} with {name} from {earlier[name]} there, "
                    f"{path} now"
                )
        everything = {**rows, **earlier}
        folders = {}
        for name in everything:
            folders.setdefault(folder_name(name), []).append(name)
        alike = next((a for a in folders.values() if len(a) > 1), None)
        if alike:
            raise ValueError(
                "Rows must have names that differ in more than case and "
                f"spaces. Received: {' and '.join(alike)}"
            )
        return everything, sorted({*seeds, *self.seeds})

    def keep(self, rows, seeds):
        """Writes down what is compared."""
        names = {name: short(path) for name, path in rows.items()}
        run_folder.write_json(
            self.path / "comparison.json",
            {**self.identity, "rows": names, "seeds": seeds},
        )

    def require_room(self, runs):
        """Checks that the disk has room for what is not there yet.

        Raises:
            OSError: If it has not.
        """
        needed = sum(
            BYTES_PER_RUN + BYTES_PER_PARAMETER * run.network().count_params()
            for run in runs
            if not run.path.exists()
        )
        places = (self.path, *self.path.parents)
        free = shutil.disk_usage(next(p for p in places if p.exists())).free
        if free < needed:
            raise OSError(
                f"--output_dir must have room for {needed / 2**20:,.0f} MiB of "
                f"networks. Received: {self.path}, with "
                f"{free / 2**20:,.0f} MiB free"
            )

    def publish(self, runs):
        """Writes tables and pictures of what is known; returns the table."""
        found = {run: run.results() for run in runs}
        suite = suites.SUITES.get(self.suite)
        results = {
            **self.identity,
            "published": suite.published if suite else {},
            "rows": [
                {**run.plan(), **(known or {})} for run, known in found.items()
            ],
        }
        run_folder.write_json(self.path / "results.json", results)
        text = standings.as_markdown(results)
        run_folder.write_text(
            self.path / "results.md", f"{text}\n{standings.commands(results)}"
        )
        run_folder.write_text(
            self.path / "results.csv", standings.as_csv(results)
        )
        done = [run for run, known in found.items() if known is not None]
        self._draw(done)
        return text

    def _draw(self, runs):
        """Draws the curves of the runs with the first seed."""
        if not runs:
            return
        first = min(run.seed for run in runs)
        runs = {run.name: run for run in runs if run.seed == first}
        curves = {name: run.curve() for name, run in runs.items()}
        certified = {name: run.certificates() for name, run in runs.items()}
        for name, figure in {
            "robust_accuracy": plots.robust_accuracy_curves(curves),
            "certified_accuracy": plots.certified_accuracy_curves(certified),
        }.items():
            figure.savefig(self.path / f"{name}.png", dpi=120)
            pyplot.close(figure)
