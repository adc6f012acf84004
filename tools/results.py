"""Writes docs/results.md, whose every figure comes from a comparison's files.

    python tools/results.py --add=digits_linf --suite=digits_linf
    python tools/results.py

The first takes what `examples/compare.py` left in a folder into docs/results,
under the suite's name, and writes the page; the second writes it alone. Rows
that are kept of another folder of the same comparison stay, unless they were
run anew: a suite may be run in parts, on several machines. Paths of a machine
are shortened to their last part.
"""

import itertools
import json
import math
import pathlib
import re
import shutil
import sys

from absl import app
from absl import flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import run_folder  # noqa: E402
import standings  # noqa: E402
import suites  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("add", None, "Folder of a comparison to be taken in.")
flags.DEFINE_string("suite", None, "With --add: what it is called.")
flags.DEFINE_string("docs", str(ROOT / "docs"), "Where the page is.")

OURS = "ATENT"
PICTURES = {
    "robust_accuracy": "Accuracy under {pgd} over the radius, of {rows}",
    "certified_accuracy": "Certified accuracy over the l_2 radius, of {rows}",
}
# What figures must share to stand in one table.
IDENTITY = ("judge", "epochs")
# Absolute paths, of which the last part is kept.
PATH = re.compile(r"(?<![\w./])/(?:[^/\s'\"`,;]+/)+([^/\s'\"`,;]+)")
INTRODUCTION = """\
# Results

Made by `python tools/results.py` of what `examples/compare.py` found, kept in
`docs/results`; no figure is typed by hand.
`examples/README.md` says how to repeat or to extend a
comparison (a row's command, run by itself, needs an `--output_dir` of its
own), [Evaluating honestly](evaluation.md) what the figures mean. Rows called
wide were trained in a larger ball than all are judged in, those called
shrinking in steps that shrink along the chain. Rows in italics are published
figures of other networks, which were not judged here, mostly of all test images
whatever the column says; AutoAttack's on MNIST are those of its authors,
[Croce & Hein 2020](https://arxiv.org/abs/2003.01690).
"""


def without_paths(content):
    """The content of a JSON file without the folders of its machine."""
    if isinstance(content, dict):
        kept = {*content} - {"data_dir", "output_dir"}
        return {
            key: without_paths(content[key]) for key in content if key in kept
        }
    if isinstance(content, list):
        return [without_paths(one) for one in content]
    if isinstance(content, str):
        return PATH.sub(r"\1", content)
    return content


def add(folder, suite, docs):
    """Takes in a comparison's figures and pictures.

    Raises:
        ValueError: If the folder holds no whole comparison of the suite.
    """
    if not re.fullmatch(r"\w+", suite or ""):
        raise ValueError(
            "--add needs a --suite, of letters, digits and _. Received: "
            f"--suite={suite}"
        )
    if not (folder / "results.json").is_file():
        raise ValueError(
            "--add must be the folder of a comparison. Received: "
            f"{folder}, which has no results.json"
        )
    results = run_folder.read_json(folder / "results.json")
    if results.get("suite") not in (suite, None):
        raise ValueError(
            "--suite must be that of the comparison. Received: "
            f"--suite={suite}, and {results['suite']} in {folder}"
        )
    if not any("clean" in row for row in results["rows"]):
        raise ValueError(
            f"--add must have a row that was run. Received: {folder}, with none"
        )
    known = suites.SUITES.get(suite)
    if known is not None and (
        results["epochs"]
        or results["judge"] != json.loads(json.dumps(known.judge._asdict()))
    ):
        raise ValueError(
            "--add must be judged as --suite is, after as many epochs as its "
            f"flag files say. Received: {folder}, with epochs "
            f"{results['epochs']} and the judge {results['judge']}"
        )
    results = without_paths(results)
    kept = docs / "results"
    file = kept / f"{suite}.json"
    earlier = run_folder.read_json(file) if file.exists() else {"rows": []}
    before = drawings(earlier, suite)
    if any(earlier.get(key) != results[key] for key in IDENTITY):
        earlier = {"rows": []}  # of which nothing can stand beside this
    stay = not_anew(earlier["rows"], results["rows"], file)
    left = {
        stem: runs
        for stem, runs in before.items()
        if any((name, runs["seed"]) in stay for name in runs["rows"])
    }
    more = (f"{suite}-{number}" for number in itertools.count(2))
    stem = next(s for s in itertools.chain([suite], more) if s not in left)
    results["pictures"] = {**left, stem: drawn(results)}
    everything = {key_of(row): row for row in results["rows"]}
    for key, row in stay.items():
        # With what is known of it by now, and was not when it was run.
        everything[key] = {**everything.get(key, {}), **row}
    results["rows"] = sorted(everything.values(), key=lambda row: row["seed"])
    kept.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        shutil.copyfile(folder / f"{name}.png", kept / f"{stem}_{name}.png")
    run_folder.write_json(file, results)
    for old in {*before} - {*results["pictures"]}:
        for name in PICTURES:
            (kept / f"{old}_{name}.png").unlink(missing_ok=True)


def key_of(row):
    return row["name"], row["seed"]


def not_anew(earlier, rows, file):
    """The rows that were run earlier and not in this folder, by their keys.

    Raises:
        ValueError: If the settings of one are others by now.
    """
    anew = {key_of(row) for row in rows if "clean" in row}
    stay = {
        key_of(row): row
        for row in earlier
        if "clean" in row and key_of(row) not in anew
    }
    now = {row["name"]: row["flags"] for row in rows if "flags" in row}
    for (name, seed), row in stay.items():
        theirs, ours = row["flags"], now.get(name, row["flags"])
        different = [
            f"{flag} {theirs.get(flag)} there, {ours.get(flag)} now"
            for flag in sorted({*theirs, *ours} - {"seed"})
            if theirs.get(flag) != ours.get(flag)
        ]
        if different:
            raise ValueError(
                "--add must have the settings of the rows that are kept, or "
                f"the file be deleted. Received: {file} with {name}, seed "
                f"{seed}, of {'; '.join(different)}"
            )
    return stay


def drawings(results, suite):
    """What is in each pair of pictures that is kept, by its files' stem."""
    if not results["rows"]:
        return {}
    return results.get("pictures", {suite: drawn(results)})


def drawn(results):
    """What is in the pictures of a folder: the runs with the first seed."""
    done = [row for row in results["rows"] if "clean" in row]
    first = min(row["seed"] for row in done)
    names = [row["name"] for row in done if row["seed"] == first]
    return {"seed": first, "rows": names}


def curves(results, suite):
    """The pictures of a comparison, with what is in each."""
    lines, shown = [], set()
    # Of a run that is in several, the last is that of the table.
    for stem, runs in [*drawings(results, suite).items()][::-1]:
        keys = {(name, runs["seed"]) for name in runs["rows"]}
        old = [name for name in runs["rows"] if (name, runs["seed"]) in shown]
        shown |= keys
        names = ", ".join(runs["rows"])
        said = f"The curves of {names}, of seed {runs['seed']}"
        if old:
            said += f" (of {', '.join(old)} those of an earlier training)"
        pictures = (
            f"![{text.format(pgd=results['judge']['pgd'], rows=names)}]"
            f"(results/{stem}_{picture}.png)"
            for picture, text in PICTURES.items()
        )
        lines = [f"{said}:\n", *pictures, "", *lines]
    return lines


def page(docs):
    """The text of docs/results.md, of the comparisons that it keeps."""
    files = sorted((docs / "results").glob("*.json"))
    parts = [section(f.stem, run_folder.read_json(f)) for f in files]
    known = {file.stem for file in files}
    waiting = [name for name in suites.SUITES if name not in known]
    return "\n".join([INTRODUCTION, *parts, *not_run(waiting)])


def not_run(names):
    """What the page says of suites of which nothing was run."""
    if not names:
        return []
    lines = (
        f"- `python examples/compare.py --suite={name}`: "
        f"{', '.join(suites.SUITES[name].rows)}"
        for name in names
    )
    return ["## Not run\n", *lines, ""]


def section(name, results):
    """What the page says of one comparison."""
    done = [row for row in results["rows"] if "clean" in row]
    parts = [
        f"## {name}\n",
        standings.as_markdown(results),
        *curves(results, name),
        *standing(results, done),
        f"Trained on {machines(done)}.\n",
        "<details>\n<summary>The command of each row</summary>\n",
        f"{standings.commands(results)}\n</details>\n",
    ]
    return "\n".join(parts)


def standing(results, done):
    """Where our method is better and where it is worse, in the figures."""
    by_name = {}
    for row in done:
        by_name.setdefault(row["name"], {})[row["seed"]] = row
    # The first of its rows, whatever was varied in it.
    name = next((name for name in by_name if name.startswith(OURS)), None)
    if name is None or len(by_name) == 1:
        return []
    ours = by_name.pop(name)
    lines = [f"### Where {name} is better, and where worse\n"]
    judge = results["judge"]
    for title, figure in {
        "Clean": lambda row: row["clean"],
        f"Under {judge['pgd']}": lambda row: row[judge["pgd"]],
        f"Under {standings.AUTO_ATTACK}": lambda row: row[
            standings.AUTO_ATTACK
        ],
        f"Certified at {judge['sigma']:g}": lambda row: standings.certified(
            row, judge["sigma"]
        ),
    }.items():
        found = {
            other: difference(
                {seed: figure(row) for seed, row in ours.items()},
                {seed: figure(row) for seed, row in rows.items()},
            )
            for other, rows in by_name.items()
        }
        found = sorted(found.items(), key=lambda pair: -pair[1][0])
        said = ", ".join(in_words(other, *one) for other, one in found)
        lines.append(f"- {title}, {name} is {said}.")
    lines.append(
        "\nPoints are of accuracy in %. In brackets stands how far a single "
        "pair of trainings may be from the truth by the choice of the images "
        "(95 %, Newcombe's interval of two independent samples; both networks "
        "see the same images, which makes it rather too wide, and nothing in "
        "it is of how trainings differ); where it holds 0, the figures do not "
        "tell the two apart. Of several seeds stand the least and the most of "
        "the differences seed by seed, which is no such interval: of three, "
        "all have one sign in a quarter of cases by chance, and the choice of "
        "the images is not in it.\n"
    )
    return lines


def difference(ours, theirs):
    """How much more accurate our networks are than others.

    Args:
        ours, theirs: Dictionaries from seeds to accuracies with `low` and
            `high`.

    Returns:
        Mean difference, and its least and largest value: by chance of one
        pair of networks, from one seed to the next of several.
    """
    seeds = sorted({*ours} & {*theirs})
    if len(seeds) > 1:
        pairs = [(ours[seed], theirs[seed]) for seed in seeds]
        found = [one["accuracy"] - other["accuracy"] for one, other in pairs]
        return sum(found) / len(found), min(found), max(found)
    # Trainings with the same seed, or with no seed in common.
    one = ours[seeds[0] if seeds else min(ours)]
    other = theirs[seeds[0] if seeds else min(theirs)]
    between = one["accuracy"] - other["accuracy"]
    below = math.hypot(
        one["accuracy"] - one["low"], other["high"] - other["accuracy"]
    )
    above = math.hypot(
        one["high"] - one["accuracy"], other["accuracy"] - other["low"]
    )
    return between, between - below, between + above


def in_words(name, mean, low, high):
    """A difference to another method, in points."""
    mean, low, high = (round(100 * value, 2) for value in (mean, low, high))
    brackets = f"({low:+.2f} to {high:+.2f})"
    if not mean:
        return f"level with {name} {brackets}"
    return (
        f"{abs(mean):.2f} {'above' if mean > 0 else 'below'} {name} {brackets}"
    )


def machines(done):
    """What the rows were trained on; if that differs, which on what."""
    found = {}
    for row in done:
        versions = row["versions"]
        if "atent_keras" not in versions:  # of runs that did not write it down
            judged = {"judged by atent_keras": row["atent_keras"]}
            versions = {**versions, **judged}
        parts = (
            row.get("processor"),
            *(one.strip("/").removeprefix("device:") for one in row["devices"]),
            *(f"{key} {text}" for key, text in versions.items()),
        )
        machine = ", ".join(filter(None, parts))
        found.setdefault(machine, []).append(row["name"])
    if len(found) == 1:
        return machine
    return "; ".join(
        f"{machine} ({', '.join(dict.fromkeys(names))})"
        for machine, names in found.items()
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    docs = pathlib.Path(FLAGS.docs)
    try:
        if FLAGS.suite and not FLAGS.add:
            raise ValueError(
                f"--suite belongs to --add. Received: --suite={FLAGS.suite}"
            )
        if FLAGS.add:
            add(pathlib.Path(FLAGS.add), FLAGS.suite, docs)
        run_folder.write_text(docs / "results.md", page(docs))
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"Written: {docs / 'results.md'}")


if __name__ == "__main__":
    app.run(main)
