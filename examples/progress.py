"""How far a comparison is, and how long the rest is likely to take."""


class Progress:
    """Says what is being done, and how long the rest is likely to take.

    That is known once a run is trained and judged: a pass over the data costs
    about the same in all of them, and so does a judgement.

    Args:
        runs: `ComparedRun`s that are not done yet, in their order.
    """

    def __init__(self, runs):
        self.waiting, self.count = list(runs), len(runs)
        self.known = []  # pairs of seconds a pass and of a judgement

    def add(self, run, results):
        """Takes note of what a run took."""
        if run in self.waiting:
            self.waiting.remove(run)
        self.known.append(
            (
                results["training_seconds"] / run.passes,
                results["judging_seconds"],
            )
        )

    def begin(self, run):
        self.shown = len(run.folder.rows())
        self.run = run
        place = self.count - len(self.waiting) + 1
        print(
            f"\n[{place}/{self.count}] {run.label}: {run.epochs} epochs, "
            f"{run.passes:,.0f} passes{self._all()}\n  {run.command}",
            flush=True,
        )

    def _all(self):
        """How long everything that waits is likely to take."""
        if not self.known:
            return ""
        passes, judgements = map(sum, zip(*self.known))
        seconds = sum(run.passes for run in self.waiting) * passes
        seconds += len(self.waiting) * judgements
        return (
            f"; all that is left: about {duration(seconds / len(self.known))}"
        )

    def watch(self, rows):
        """Says how a training goes, when another epoch is done."""
        if len(rows) <= self.shown:
            return
        self.shown, last = len(rows), rows[-1]
        clean, robust = (
            100 * float(last[name])
            for name in ("val_accuracy", "val_robust_accuracy")
        )
        left = float(last["seconds"]) * (self.run.epochs - self.shown)
        print(
            f"  epoch {self.shown}/{self.run.epochs}: of the validation "
            f"images {clean:.1f} % clean, {robust:.1f} % under PGD; training: "
            f"about {duration(left)} left",
            flush=True,
        )


def duration(seconds):
    """Returns a time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
