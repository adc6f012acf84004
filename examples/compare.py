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

import pathlib
import signal
import sys

import matplotlib
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

import atent_keras as ak
import settings
import standings
import suites
from atent_keras.lock import Lock
from compared_run import ComparedRun
from compared_run import flag_file
from comparison_folder import ComparisonFolder
from progress import Progress

# Apart from `flags.FLAGS`, which hold each row's own, of the same names.
OWN = flags.FlagValues()
flags.DEFINE_string(
    "suite",
    None,
    f"A comparison, by name: {', '.join(suites.SUITES)}.",
    flag_values=OWN,
)
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
    None,
    list(standings.NORMS),
    "With --flagfiles: norm of the attacks' ball (default: linf).",
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
            "--dataset, --norm and --epsilon belong to --flagfiles; a suite "
            "has its own",
            {OWN.dataset, OWN.norm, OWN.epsilon} == {None},
            "dataset",
            "norm",
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
        require("--epsilon must be positive", OWN.epsilon > 0, "epsilon")
        norm = OWN.norm or "linf"
        if norm == "linf":
            settings.check_radius(OWN.epsilon)
        judge = suites.judge(OWN.dataset, norm, OWN.epsilon)
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


def require_data(judge):
    """Checks that the images are there, or come when they are asked for."""
    if judge.dataset != "digits":
        getattr(ak.datasets, judge.dataset)(
            "test", limit=1, data_dir=OWN.data_dir
        )


def work(waiting, everything, judge, folder):
    """Trains and judges what is not done yet, a run after the other."""
    progress = Progress(waiting)
    for run in everything:
        if run not in waiting and (known := run.results()) is not None:
            progress.add(run, known)
    for run in waiting:
        progress.begin(run)
        run.train(progress.watch)
        progress.judge()
        run.evaluate()
        run.write()
        results = run.results()
        progress.add(run, results)
        print(f"  {standings.line(results, judge)}", flush=True)
        folder.publish(everything)
    return folder.publish(everything)


def stop(number, _):
    """Ends the program, and by a finally the part that is going on."""
    raise SystemExit(128 + number)


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
    logging.set_verbosity(logging.WARNING)
    matplotlib.use("Agg")  # files are all it draws on
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with settings.plain_errors():
        # Whatever is wrong with any row shows before the first is begun.
        suite = chosen()
        judge = suite.judge
        output = pathlib.Path(OWN.output_dir or OWN.suite or "comparison")
        folder = ComparisonFolder(
            output.resolve(), OWN.suite, judge, OWN.epochs
        )
        settings.define(judge.dataset, **settings.DATASETS[judge.dataset])
        paths = {name: flag_file(file) for name, file in suite.rows.items()}
        rows, seeds = folder.joined(paths, suite.seeds)
        everything = [
            ComparedRun(
                name, path, seed, judge, folder.path, OWN.epochs, OWN.data_dir
            )
            for seed in seeds
            for name, path in rows.items()
        ]
        plain = {run.seed: run for run in everything if run.name == "plain"}
        asked = OWN.rows or suite.rows
        waiting = []
        for run in everything:
            # Not its own, since a network's own images prove nothing new.
            if run.name != "plain":
                run.surrogate = plain.get(run.seed)
            wanted = run.name in asked and run.seed in suite.seeds
            if wanted and not run.is_done(waiting):
                waiting.append(run)
        if waiting:
            require_data(judge)
            for run in waiting:
                run.require_device()
            folder.require_room(waiting)
        with Lock(folder.path, "--output_dir"):
            folder.require_unchanged()
            for run in waiting:
                run.require_alone()
            folder.keep(rows, seeds)
            try:
                text = work(waiting, everything, judge, folder)
            except RuntimeError as error:
                sys.exit(f"{error}. The same command goes on from there")
            except SystemExit:
                print("\nStopped. The same command goes on from there")
                raise
    print(f"\n{text}\nIn {folder.path}:")
    for path in sorted(folder.path.iterdir()):
        print(f"  {path.name}")


if __name__ == "__main__":
    # Its scripts need a GPU's memory, of which this process would keep most.
    tf.config.set_visible_devices([], "GPU")
    app.run(main, flags_parser=parse)
