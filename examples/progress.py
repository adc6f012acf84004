"""How far a comparison is, and how long the rest is likely to take."""

import time

PAUSE = 10.0  # seconds between lines about a training


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
        self.said = -PAUSE

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
        self.shown = len(run.rows())
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
        a_pass, a_judgement = self._means()
        seconds = sum(run.passes for run in self.waiting) * a_pass
        seconds += len(self.waiting) * a_judgement
        return f"; all that is left: about {duration(seconds)}"

    def _means(self):
        return (sum(times) / len(times) for times in zip(*self.known))

    def judge(self):
        """Says that a training is done."""
        about = ""
        if self.known:
            _, a_judgement = self._means()
            about = f", about {duration(a_judgement)}"
        print(f"  trained; now the attacks{about}", flush=True)

    def watch(self, rows):
        """Says how a training goes, when another epoch is done."""
        if len(rows) <= self.shown:
            return
        now = time.monotonic()
        if len(rows) < self.run.epochs and now - self.said < PAUSE:
            return
        self.said, self.shown, last = now, len(rows), rows[-1]
        clean, robust = (
            100 * last[name] for name in ("val_accuracy", "val_robust_accuracy")
        )
        left = last["seconds"] * (self.run.epochs - self.shown)
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
