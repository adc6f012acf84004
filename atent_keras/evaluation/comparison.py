"""Several models in one table."""

import json
from collections.abc import Mapping
from typing import Any

from atent_keras.evaluation import page
from atent_keras.evaluation import table
from atent_keras.evaluation.description import describe
from atent_keras.evaluation.description import differences
from atent_keras.evaluation.report import RobustnessReport


class RobustnessComparison:
    """Reports of several models on the same data, side by side.

    `print` shows a line for each model: accuracies in percent, with their
    confidence intervals. The intervals are of each accuracy alone; that two of
    them overlap does not say that two models, seen on the same images, can't
    be told apart.

    Args:
        reports: Dictionary from names to `RobustnessReport`.

    Raises:
        ValueError, TypeError: If there is no report, or they are not of the
            same data, attacks, seed and confidence.

    Example:

    >>> reports = {
    ...     name: atent_keras.evaluate_robustness(model, data, attacks)
    ...     for name, model in models.items()
    ... }
    >>> print(atent_keras.RobustnessComparison(reports))
    """

    def __init__(self, reports: Mapping[str, RobustnessReport]) -> None:
        if (
            not isinstance(reports, dict)
            or not reports
            or not all(
                isinstance(report, RobustnessReport)
                for report in reports.values()
            )
        ):
            raise TypeError(
                "`reports` must be a dictionary from names to at least one "
                f"RobustnessReport. Received: reports={reports!r}"
            )
        first, *others = map(_setting, reports.values())
        for name, other in zip(list(reports)[1:], others):
            different = [
                f"{part.strip()} {here} and {there}"
                for part, here, there in differences("", first, other)
            ]
            if different:
                raise ValueError(
                    "`reports` must be of the same data, attacks, seed and "
                    f"confidence. Received: for {next(iter(reports))!r} and "
                    f"{name!r} {'; '.join(different)}"
                )
        self.reports = dict(reports)

    def rows(self) -> list[dict[str, Any]]:
        """Returns a dictionary for each accuracy of each model."""
        return [
            {"model": name, **row}
            for name, report in self.reports.items()
            for row in report.rows()
        ]

    def _cells(self):
        found = {
            name: {row["attack"]: row for row in report.rows()}
            for name, report in self.reports.items()
        }
        # By name, since each report has its attacks in an order of its own.
        attacks = list(next(iter(found.values())))
        rows = [
            [
                name,
                *(
                    f"{100 * row['accuracy']:.2f} "
                    f"({table.between((row['low'], row['high']))})"
                    for row in map(by_name.get, attacks)
                ),
            ]
            for name, by_name in found.items()
        ]
        return ["model", *attacks], rows

    def __str__(self):
        header, rows = self._cells()
        return f"{self._caption()}\n{table.text([header, *rows])}"

    def _caption(self):
        report = next(iter(self.reports.values()))
        precisions = {one.in_precision for one in self.reports.values()}
        if len(precisions) > 1:
            precisions = (
                f"{one.in_precision} ({name})"
                for name, one in self.reports.items()
            )
        return (
            f"accuracy in % on {report.num_examples} examples "
            f"({100 * report.confidence:g} % confidence), seed {report.seed}"
            f"{''.join(precisions)}"
        )

    def to_markdown(self) -> str:
        """Returns the table in Markdown."""
        return f"{self._caption()}\n\n{table.markdown(*self._cells())}"

    def to_html(self) -> str:
        """Returns the comparison as a page, which needs no other file."""
        return page.of_comparison(self)

    def to_csv(self) -> str:
        """Returns all accuracies as CSV, a line each."""
        return table.as_csv(self.rows())

    def to_json(self) -> str:
        """Returns all reports as JSON, by name."""
        return json.dumps(
            {
                name: json.loads(report.to_json())
                for name, report in self.reports.items()
            },
            indent=2,
        )


def _setting(report):
    attacks = {name: describe(one) for name, one in report.attacks.items()}
    return {
        "data": report.data,
        "attacks": attacks,
        "seed": report.seed,
        "confidence": report.confidence,
    }
