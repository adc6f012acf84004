"""Trains networks by several methods, and judges all of them alike.

    python examples/compare.py --suite=digits_linf
    python examples/compare.py --suite=mnist_linf --rows="ATENT,PGD training"
    python examples/compare.py --flagfiles=mine.flags,mnist_linf_cpu \\
        --dataset=mnist --epsilon=0.3

Each row is a run of `digits.py`, `mnist.py` or `cifar10.py` by a command that
the results state, and every network has to stand the same attacks of
`evaluate.py`. What is done is on the disk at once: the same command goes on
after a kill, and one for more rows or seeds runs only those.
"""

import json
import pathlib
import shutil
import signal
import sys
import time

import matplotlib
from absl import app
from absl import flags
from matplotlib import pyplot

import run_folder
import settings
import standings
import suites
from atent_keras import plots
from atent_keras.lock import Lock
from compared_run import EXAMPLES
from compared_run import ComparedRun
from progress import Progress

# Apart from `flags.FLAGS`, which hold each row's own, of the same names.
OWN = flags.FlagValues()
flags.DEFINE_string("suite", None, "A comparison, by name.", flag_values=OWN)
flags.DEFINE_list(
    "flagfiles",
    [],
    "Instead of a suite: flag files of training runs, or names of those in "
    "examples/flags, a row each.",
    flag_values=OWN,
)
flags.DEFINE_enum(
    "dataset",
    None,
    list(suites.TRAINING_IMAGES),
    "With --flagfiles: what all are trained on.",
    flag_values=OWN,
)
flags.DEFINE_enum(
    "norm",
    "linf",
    list(standings.NORMS),
    "With --flagfiles: norm of the attacks' ball.",
    flag_values=OWN,
)
flags.DEFINE(
    settings.NumberParser(),
    "epsilon",
    None,
    "With --flagfiles: its radius, in pixels of [0, 1]: 8/255.",
    flag_values=OWN,
    serializer=flags.ArgumentSerializer(),
)
flags.DEFINE_list(
    "rows", [], "These rows only, by name (default: all).", flag_values=OWN
)
flags.DEFINE_list(
    "seeds",
    [],
    "Seeds: each row is trained once with each (default: the suite's own).",
    flag_values=OWN,
)
flags.DEFINE_integer(
    "epochs",
    None,
    "For a quick look: train every row for so many epochs.",
    lower_bound=1,
    flag_values=OWN,
)
flags.DEFINE_integer(
    "images",
    None,
    "For a quick or a closer look: attack the first so many test images.",
    lower_bound=1,
    flag_values=OWN,
)
flags.DEFINE_string(
    "data_dir", None, "Folder of TensorFlow Datasets.", flag_values=OWN
)
flags.DEFINE_string(
    "output_dir",
    None,
    "Where the files go (default: the suite's name, or `comparison`).",
    flag_values=OWN,
)
flags.DEFINE_bool("help", False, "Show this help.", flag_values=OWN)

# What a run's folder takes: the weights in two networks and a SavedModel, and
# two checkpoints of them with an optimizer's moments and an average.
BYTES_PER_PARAMETER = 64
BYTES_PER_RUN = 4 * 2**20


def chosen():
    """The suite that the flags ask for: one of ours, or one of flag files."""

    def require(rule, holds, *names):
        if not holds:
            given = (f"--{name}={OWN[name].value}" for name in names)
            raise ValueError(f"{rule}. Received: {', '.join(given)}")

    require(
        f"Either --suite must be given, one of {', '.join(suites.SUITES)}, or "
        "--flagfiles",
        (OWN.suite in suites.SUITES) != bool(OWN.flagfiles)
        and bool(OWN.suite) != bool(OWN.flagfiles),
        "suite",
        "flagfiles",
    )
    if OWN.suite:
        require(
            "--dataset and --epsilon belong to --flagfiles; a suite has its "
            "own",
            OWN.dataset is None and OWN.epsilon is None,
            "dataset",
            "epsilon",
        )
        suite = suites.SUITES[OWN.suite]
    else:
        require(
            "--flagfiles need --dataset and --epsilon, by which all are judged",
            OWN.dataset is not None and OWN.epsilon is not None,
            "dataset",
            "epsilon",
        )
        if OWN.norm == "linf":
            settings.check_radius(OWN.epsilon)
        judge = suites.judge(OWN.dataset, OWN.norm, OWN.epsilon)
        rows = {pathlib.Path(file).stem: file for file in OWN.flagfiles}
        require(
            "--flagfiles must have different names",
            len(rows) == len(OWN.flagfiles),
            "flagfiles",
        )
        suite = suites.Suite(judge, rows)
    require(
        f"--rows must be among {', '.join(suite.rows)}",
        {*OWN.rows} <= {*suite.rows},
        "rows",
    )
    require(
        "--seeds must be different integers, at least 0",
        all(seed.isdecimal() for seed in OWN.seeds)
        and len({*map(int, OWN.seeds)}) == len(OWN.seeds),
        "seeds",
    )
    if OWN.images:
        suite = suite._replace(judge=suite.judge.limited(OWN.images))
    if OWN.seeds:
        suite = suite._replace(seeds=tuple(map(int, OWN.seeds)))
    return suite


def flag_file(name):
    """The path of a flag file: one of ours by name, or anybody's."""
    folder = EXAMPLES / "flags"
    for path in (folder / f"{name}.flags", pathlib.Path(name)):
        if path.is_file():
            return path.resolve()
    known = sorted(file.stem for file in folder.glob("*.flags"))
    raise FileNotFoundError(
        "--flagfiles must be files that exist, or names of those in "
        f"{folder}: {', '.join(known)}. Received: {name}"
    )


def require_own(output, identity):
    """Checks that a folder is free, or that of this comparison."""
    file = output / "comparison.json"
    if not file.exists():
        return
    theirs = run_folder.read_json(file)
    different = [
        f"{name} {theirs.get(name)} there, {mine} now"
        for name, mine in identity.items()
        if theirs.get(name) != mine
    ]
    if different:
        raise ValueError(
            "--output_dir must be a new folder, or that of the same "
            f"comparison. Received: {output} with {'; '.join(different)}"
        )


def require_room(runs, output):
    """Checks that the disk has room for what is not there yet."""
    needed = sum(
        BYTES_PER_RUN + BYTES_PER_PARAMETER * run.network().count_params()
        for run in runs
        if not run.path.exists()
    )
    there = next(path for path in (output, *output.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(
            f"--output_dir must have room for {needed / 2**20:,.0f} MiB of "
            f"networks. Received: {output}, with {free / 2**20:,.0f} MiB free"
        )


def work(suite, runs, everything, output):
    """Trains and judges what is not done yet, a run after the other."""
    plain = {run.seed: run for run in everything if run.name == "plain"}
    waiting = [run for run in runs if run.results() is None]
    progress = Progress(waiting)
    for run in everything:
        if (known := run.results()) is not None:
            progress.add(run, known)
    for run in waiting:
        progress.begin(run)
        run.train(progress.watch)
        print("  trained; now the attacks", flush=True)
        start = time.time()
        # Not its own, since a network's own images prove nothing new.
        surrogate = plain.get(run.seed) if run.name != "plain" else None
        run.evaluate(surrogate)
        run.write(time.time() - start)
        results = run.results()
        progress.add(run, results)
        print(f"  {standings.line(results, suite.judge)}", flush=True)
        publish(suite, everything, output)
    return publish(suite, everything, output)


def publish(suite, runs, output):
    """Writes tables and pictures of what is known; returns the table."""
    found = {run: run.results() for run in runs}
    results = {
        **identity_of(suite),
        "published": suite.published,
        "rows": [
            {**run.plan(), **(known or {})} for run, known in found.items()
        ],
    }
    run_folder.write_json(output / "results.json", results)
    text = standings.as_markdown(results)
    run_folder.write_text(
        output / "results.md", f"{text}\n{standings.commands(results)}"
    )
    run_folder.write_text(output / "results.csv", standings.as_csv(results))
    draw(
        {
            run.name: run
            for run, known in found.items()
            if known is not None and run.seed == suite.seeds[0]
        },
        output,
    )
    return text


def draw(runs, output):
    """Draws the curves of the runs with the first seed."""
    if not runs:
        return
    curves = {name: run.curve() for name, run in runs.items()}
    certified = {name: run.certificates() for name, run in runs.items()}
    for name, figure in {
        "robust_accuracy": plots.robust_accuracy_curves(curves),
        "certified_accuracy": plots.certified_accuracy_curves(certified),
    }.items():
        figure.savefig(output / f"{name}.png", dpi=120)
        pyplot.close(figure)


def identity_of(suite):
    """What makes a comparison another: all but its rows and seeds."""
    return {
        "suite": OWN.suite,
        "judge": json.loads(json.dumps(suite.judge._asdict())),
        "epochs": OWN.epochs,
    }


def parse(argv):
    """Reads the flags; those of the rows are still to come."""
    flags.FLAGS(argv[:1])
    try:
        return OWN(argv)
    except flags.Error as error:
        sys.exit(f"{error}\nPass --help to see all flags.")


def main(argv):
    if OWN.help:
        print(f"{__doc__}{OWN.get_help()}")
        return
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    matplotlib.use("Agg")  # files are all it draws on
    # The finally of whatever is going on then ends the process that does it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with settings.plain_errors():
        # Whatever is wrong with any row shows before the first is begun.
        suite = chosen()
        judge = suite.judge
        output = pathlib.Path(OWN.output_dir or OWN.suite or "comparison")
        output = output.resolve()
        require_own(output, identity_of(suite))
        settings.define(judge.dataset, **settings.DATASETS[judge.dataset])
        everything = [
            ComparedRun(
                name,
                flag_file(file),
                seed,
                judge,
                output,
                OWN.epochs,
                OWN.data_dir,
            )
            for seed in suite.seeds
            for name, file in suite.rows.items()
        ]
        runs = [
            run for run in everything if run.name in (OWN.rows or suite.rows)
        ]
        require_room(runs, output)
        with Lock(output, "--output_dir"):
            run_folder.write_json(
                output / "comparison.json", identity_of(suite)
            )
            try:
                text = work(suite, runs, everything, output)
            except RuntimeError as error:
                sys.exit(f"{error}. The same command goes on from there")
    print(f"\n{text}\nIn {output}:")
    for path in sorted(output.iterdir()):
        print(f"  {path.name}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
