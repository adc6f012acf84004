"""What an evaluation found: accuracies, and every example behind them."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from atent_keras.evaluation import intervals
from atent_keras.evaluation import page
from atent_keras.evaluation import table
from atent_keras.evaluation.masking import Finding
from atent_keras.evaluation.results import write
from atent_keras.evaluation.results import write_arrays
from atent_keras.types import Path
from atent_keras.version import __version__

WORST_CASE = "worst case"  # the name of its line


class Report:
    """What all reports have: examples, intervals, files.

    A subclass has the attributes `correct`, booleans `(num_examples,)`,
    `confidence`, `num_ignored` and `precision`, a `NAME` for its files, and
    says what goes into them.
    """

    @property
    def num_examples(self) -> int:
        """Integer, the number of examples."""
        return len(self.correct)

    @property
    def left_out(self) -> str:
        """String, what there is to say of the examples that were left out."""
        return f", {self.num_ignored} ignored" if self.num_ignored else ""

    @property
    def in_precision(self) -> str:
        """String, what there is to say of the precision."""
        return f", {self.precision}" if self.precision else ""

    def interval(self, accuracy: float) -> tuple[float, float]:
        """Returns the confidence interval of one of this report's accuracies.

        It is that of Clopper and Pearson, exact for the accuracy on all
        images of which these are a random sample.

        Args:
            accuracy: Float, a share of the examples.

        Returns:
            Pair of floats in [0, 1].
        """
        successes = round(accuracy * self.num_examples)
        return intervals.clopper_pearson(
            successes, self.num_examples, self.confidence
        )

    def rows(self) -> list[dict[str, Any]]:
        """Returns the report's figures, a dictionary for each line."""
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all that is known of each example, as arrays by name."""
        raise NotImplementedError

    def to_markdown(self) -> str:
        """Returns the report in Markdown."""
        raise NotImplementedError

    def to_html(self) -> str:
        """Returns the report as a page, which needs no other file."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Returns the report as JSON, without the single examples."""
        raise NotImplementedError

    def to_csv(self) -> str:
        """Returns the report's figures as CSV, a line each."""
        return table.as_csv(self.rows())

    def save(self, folder: Path) -> None:
        """Writes `.json`, `.md`, `.csv` and `.html`, and examples as `.npz`.

        Args:
            folder: Where to; it is made if it is not there.

        Raises:
            OSError: If a file can't be written; what was there is kept.
        """
        arrays, *texts = self._files(folder)
        arrays.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(arrays, self.arrays())
        contents = (
            self.to_json() + "\n",
            self.to_markdown(),
            self.to_csv(),
            self.to_html(),
        )
        for path, content in zip(texts, contents, strict=True):
            write(path, content)

    @classmethod
    def require_room(cls, folder: Path) -> None:
        """Checks that nothing is where the files go but older ones.

        Raises:
            ValueError: If a folder is there.
        """
        for path in cls._files(folder):
            if path.is_dir():
                raise ValueError(
                    "`folder` must have room for the report's files. "
                    f"Received: {path}, a folder"
                )

    @classmethod
    def _files(cls, folder):
        return [
            pathlib.Path(folder) / f"{cls.NAME}.{suffix}"
            for suffix in ("npz", "json", "md", "csv", "html")
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class AttackResult:
    """What one attack did to each example.

    Attributes:
        attack: The attack.
        succeeded: Booleans `(num_examples,)`: whether the network classifies
            the image right, and the attacked one wrong.
        norm: Floats `(num_examples,)`, the perturbations' norms, in the norm
            of the attack's threat model and the images' units; 0 where the
            clean image is misclassified, and so not attacked.
        seconds: Float, the time that the attack took.
        not_run: Dictionary from the names of the attack's own parts that can't
            be run on such images to the reasons.
    """

    attack: Callable[..., Any]
    succeeded: np.ndarray
    norm: np.ndarray
    seconds: float
    not_run: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def setting(self) -> str:
        """String, the attack's settings, and what of it was not run."""
        missing = [f"{name}: {why}" for name, why in self.not_run.items()]
        return "; not run: ".join([repr(self.attack), *missing])


@dataclasses.dataclass(frozen=True, eq=False)
class RobustnessReport(Report):
    """Accuracies in [0, 1], each over all of the examples.

    An example counts as robust under an attack if the network is right about
    it both clean and attacked, and in the worst case if it withstands every
    attack. `print` shows a table; `save` writes `report.json`, `report.md`,
    `report.csv`, `report.html`, a page with pictures for any browser, and
    `report.npz`, which holds `correct` and, for each attack, `NAME/succeeded`
    and `NAME/norm`, of shape `(num_examples,)`.

    Attributes:
        correct: Booleans `(num_examples,)`, whether the network classifies
            the clean image right.
        results: Dictionary from the name of an attack to an `AttackResult`.
        findings: Tuple of `Finding`, of the checks for masked gradients.
        seed: Integer, the seed of the attacks.
        data: String, a digest of the images and labels.
        confidence: Float, the confidence of the intervals.
        num_ignored: Integer, the number of further examples, which were left
            out since the network's loss ignores their label.
        precision: String, in what the network computed: the dtype policies of
            its layers, such as `"float32"` or `"mixed_bfloat16"`, and whether
            a GPU rounded float32 to TF32: `"float32 with TF32"`.
        class_names: Tuple of strings, one for each class, or `None`.
        pictures: Dictionary of arrays, what the page shows of the first few
            examples: `x`, `y`, `answers` and `confidences`, and for each
            attack `NAME/x_adv`, `NAME/answers`, -1 where it was not attacked,
            and `NAME/confidences`. Empty where none were kept.
    """

    correct: np.ndarray
    results: dict[str, AttackResult]
    findings: tuple[Finding, ...] = ()
    seed: int = 0
    data: str = ""
    confidence: float = 0.95
    num_ignored: int = 0
    precision: str = ""
    class_names: tuple | None = None
    pictures: dict = dataclasses.field(default_factory=dict)

    NAME = "report"

    @property
    def attacks(self) -> dict[str, Any]:
        """Dictionary from the name of an attack to the attack."""
        return {name: one.attack for name, one in self.results.items()}

    @property
    def clean_accuracy(self) -> float:
        """Float, on the images as they are."""
        return float(self.correct.mean())

    @property
    def robust(self) -> dict[str, np.ndarray]:
        """Dictionary from the name of an attack to who withstands it."""
        return {
            name: self.correct & ~one.succeeded
            for name, one in self.results.items()
        }

    @property
    def robust_accuracy(self) -> dict[str, float]:
        """Dictionary from the name of an attack to the accuracy under it."""
        return {name: float(one.mean()) for name, one in self.robust.items()}

    @property
    def worst_case_accuracy(self) -> float:
        """Float, the share that withstands every attack."""
        every = np.logical_and.reduce([self.correct, *self.robust.values()])
        return float(every.mean())

    def rows(self) -> list[dict[str, Any]]:
        def row(name, accuracy, result=None):
            low, high = self.interval(accuracy)
            return {
                "attack": name,
                "accuracy": accuracy,
                "low": low,
                "high": high,
                "succeeded": int(result.succeeded.sum()) if result else None,
                "largest_norm": float(result.norm.max()) if result else None,
                "seconds": result.seconds if result else None,
                "setting": result.setting if result else None,
            }

        return [
            row("clean", self.clean_accuracy),
            *(
                row(name, self.robust_accuracy[name], result)
                for name, result in self.results.items()
            ),
            row(WORST_CASE, self.worst_case_accuracy),
        ]

    def __str__(self):
        rows = [
            [
                row["attack"],
                table.percent(row["accuracy"]),
                f"({table.between((row['low'], row['high']))})",
                f"{row['seconds']:.1f} s" if row["setting"] else "",
                row["setting"] or "",
            ]
            for row in self.rows()
        ]
        lines = [
            f"accuracy on {self.num_examples} examples{self.left_out} "
            f"({100 * self.confidence:g} % confidence), seed {self.seed}"
            f"{self.in_precision}",
            table.text(rows, left=(0, 4)),
        ]
        if self.findings:
            lines += ["signs of masked gradients", *map(str, self.findings)]
        return "\n".join(lines)

    def to_markdown(self) -> str:
        rows = [
            [
                row["attack"],
                table.percent(row["accuracy"]),
                table.between((row["low"], row["high"])),
                str(row["succeeded"]) if row["setting"] else "",
                f"{row['largest_norm']:.6g}" if row["setting"] else "",
                f"{row['seconds']:.1f}" if row["setting"] else "",
                f"`{row['setting']}`" if row["setting"] else "",
            ]
            for row in self.rows()
        ]
        header = [
            "attack",
            "accuracy",
            f"{100 * self.confidence:g} % interval",
            "fooled",
            "largest norm",
            "seconds",
            "setting",
        ]
        parts = [
            f"{self.num_examples} examples{self.left_out}, seed {self.seed}"
            f"{self.in_precision}, atent_keras {__version__}; intervals by "
            "Clopper and Pearson. A clean error counts as an error under every "
            "attack.\n",
            table.markdown(header, rows),
        ]
        if self.findings:
            parts.append(
                table.markdown(
                    ["sign of masked gradients", "", "evidence"],
                    [[f.check, f.verdict, f.evidence] for f in self.findings],
                )
            )
        return "\n".join(parts)

    def to_html(self) -> str:
        return page.of_report(self)

    def to_json(self) -> str:
        return json.dumps(
            {
                "num_examples": self.num_examples,
                "num_ignored": self.num_ignored,
                "clean_accuracy": self.clean_accuracy,
                "robust_accuracy": self.robust_accuracy,
                "worst_case_accuracy": self.worst_case_accuracy,
                "confidence": self.confidence,
                "rows": self.rows(),
                "findings": [
                    {
                        "check": finding.check,
                        "verdict": finding.verdict,
                        "evidence": finding.evidence,
                    }
                    for finding in self.findings
                ],
                "attacks": {
                    name: one.setting for name, one in self.results.items()
                },
                "seed": self.seed,
                "data": self.data,
                "precision": self.precision,
                "version": __version__,
            },
            indent=2,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        found = {"correct": self.correct}
        for name, result in self.results.items():
            found[f"{name}/succeeded"] = result.succeeded
            found[f"{name}/norm"] = result.norm
        return found
