"""The tables of a comparison, from the figures of its rows."""

from atent_keras.evaluation import table

AUTO_ATTACK = "AutoAttack"
NORMS = {"linf": "l_inf", "l2": "l_2"}


def as_markdown(results):
    """Returns a comparison's table, with what has to be known about it.

    Args:
        results: Dictionary, the content of `results.json`.
    """
    judge = results["judge"]
    columns = ["clean", judge["pgd"], AUTO_ATTACK]
    done = [row for row in results["rows"] if "clean" in row]
    counts = [judge["pgd_images"], judge["pgd_images"], judge["images"]]
    if done:
        counts = [done[0][column]["num_examples"] for column in columns]
    header = [
        "network",
        "seeds",
        *(f"{name} ({n:,})" for name, n in zip(columns, counts)),
        f"certified at {judge['sigma']:g}",
        "signs of masking",
        "passes",
        "minutes",
    ]
    lines = []
    for name in dict.fromkeys(row["name"] for row in results["rows"]):
        rows = [row for row in done if row["name"] == name]
        plan = next(row for row in results["rows"] if row["name"] == name)
        passes = f"{plan['passes']:,.0f}"
        # Of results that are kept from before it was known, all.
        if (share := plan.get("share", 1)) < 1:
            passes += f" (on {100 * share:.0f} % of the images)"
        if not rows:
            lines.append([name, "not run", *[""] * 5, passes, ""])
            continue
        seconds = [row["training_seconds"] for row in rows]
        lines.append(
            [
                name,
                ", ".join(str(row["seed"]) for row in rows),
                *(
                    _accuracy([row[column] for row in rows])
                    for column in columns
                ),
                _accuracy([certified(row, judge["sigma"]) for row in rows]),
                _signs(rows),
                passes,
                f"{sum(seconds) / len(seconds) / 60:.1f}",
            ]
        )
    for source, claims in results["published"].items():
        cells = (f"{claims[c]:.2f}" if c in claims else "" for c in columns)
        lines.append([f"*{source}*", "", *cells, "", "", "", ""])
    return f"{_caption(results, done)}\n\n{table.markdown(header, lines)}"


def commands(results):
    """Returns what repeats each row, in Markdown."""
    rows = [
        [
            f"{row['name']}, seed {row['seed']}",
            "" if "clean" in row else "not run",
            f"`{row['command']}`",
        ]
        for row in results["rows"]
    ]
    return table.markdown(["network", "", "trained by"], rows)


def as_csv(results):
    """Returns all figures as CSV, a line for each row that was run."""
    judge = results["judge"]
    lines = []
    for row in results["rows"]:
        if "clean" not in row:
            continue
        kept = ("name", "seed", "method", "passes", "training_seconds")
        line = {key: row[key] for key in kept}
        for name in ("clean", judge["pgd"], AUTO_ATTACK):
            for key in ("accuracy", "low", "high", "num_examples"):
                line[f"{name} {key}"] = row[name][key]
        line[f"certified at {judge['sigma']:g}"] = certified(
            row, judge["sigma"]
        )["accuracy"]
        lines.append({**line, "command": row["command"]})
    return table.as_csv(lines) if lines else ""


def line(row, judge):
    """Returns a row's figures in one line, for whoever is watching."""
    return ", ".join(
        f"{name} {_accuracy([row[name]])} %"
        for name in ("clean", judge.pgd, AUTO_ATTACK)
    )


def _accuracy(found):
    """One accuracy with its interval; of several seeds mean and extremes."""
    if len(found) == 1:
        interval = found[0]["low"], found[0]["high"]
        return f"{100 * found[0]['accuracy']:.2f} ({table.between(interval)})"
    accuracies = [one["accuracy"] for one in found]
    mean = sum(accuracies) / len(accuracies)
    extremes = min(accuracies), max(accuracies)
    return f"{100 * mean:.2f} ({table.between(extremes)})"


def certified(row, radius):
    """The certified accuracy at a radius; none beyond the last one."""
    for one in row["certified"]["rows"]:
        if abs(one["radius"] - radius) < 1e-9:
            return one
    return {"accuracy": 0.0, "low": 0.0, "high": row["certified"]["none"]}


def _signs(rows):
    """The checks for masked gradients that fired, in any of the rows.

    And those that were not run, of which silence says nothing.
    """

    def those(verdict):
        checks = (
            finding["check"]
            for row in rows
            for finding in row["findings"]
            if finding["verdict"] == verdict
        )
        return ", ".join(dict.fromkeys(checks))

    fired, missing = those("fired") or "none", those("not run")
    return f"{fired} (not run: {missing})" if missing else fired


def _caption(results, done):
    judge = results["judge"]
    seeds = {name: [] for name in (row["name"] for row in done)}
    for row in done:
        seeds[row["name"]].append(row["seed"])
    counts = {len(several) > 1 for several in seeds.values()}
    brackets = "95 % intervals"
    if True in counts:
        brackets = "the least and the most of the seeds, after their mean"
        if False in counts:
            brackets += ", and of a single seed 95 % intervals"
    limits = ""
    if results["epochs"]:
        limits = f", a quick look of {results['epochs']} epochs"
    return (
        f"{judge['dataset']}, {NORMS[judge['norm']]}, radius "
        f"{judge['epsilon']:.4g}{limits}. Seeds are those of the "
        "training; that of the attacks is 0. Accuracies in % of the first test "
        "images, whose number stands above; in "
        f"brackets {brackets}. A step of {judge['pgd']} is as long as in the "
        "literature where that has one (in l_inf 0.01 on MNIST, 2/255 on "
        "CIFAR-10), else 2.5 radii divided by the number of steps. "
        f"Certified is in l_2, smoothed with sigma {judge['sigma']:g}, of "
        f"{judge['certified_images']} images with "
        f"{judge['certified_samples']:,} samples. A pass is one forward, one "
        "back to the images, or one gradient by the weights, over all "
        "training images; minutes are those of training, with the validation "
        "and its attack after each epoch, of which rows with more epochs have "
        "more"
        + (
            "; in italics what is published of other networks."
            if results["published"]
            else "."
        )
    )
