"""Reports as pages: one file each, which a browser opens without a network."""

import pathlib
import platform
import string

import keras
import tensorflow as tf

from atent_keras.evaluation import chart
from atent_keras.evaluation import grid
from atent_keras.evaluation import table
from atent_keras.evaluation.markup import element
from atent_keras.evaluation.markup import escaped
from atent_keras.evaluation.markup import joined
from atent_keras.evaluation.markup import table as lines
from atent_keras.threat_models import L2
from atent_keras.threat_models import Linf
from atent_keras.version import __version__

_TEMPLATE = pathlib.Path(__file__).with_name("page.html")
_COUNTING = (
    "Intervals are those of Clopper and Pearson. A clean error counts as an "
    "error under every attack, and is not attacked."
)
_FIRING = (
    "A check that fired saw the sign that it looks for. That proves no fault, "
    "and silence proves nothing: it says where to look."
)


def of_report(report):
    """Returns a `RobustnessReport` as a page."""
    return _page(
        f"Robustness on {report.num_examples:,} examples",
        element(
            "p",
            f"Of these, {table.percent(report.clean_accuracy)} are classified "
            "right as they are, and "
            f"{table.percent(report.worst_case_accuracy)} under every attack"
            f"{report.left_out}.",
        ),
        element("h2", f"Accuracy in %, {_intervals(report)}"),
        chart.bars({"": _shares(report)}),
        _figures(report),
        element("p", _COUNTING),
        element("h2", "Signs of masked gradients"),
        _findings(report),
        element("h2", "Images"),
        *grid.images(report),
        element("h2", "Settings"),
        _settings(report),
    )


def of_comparison(comparison):
    """Returns a `RobustnessComparison` as a page."""
    reports = comparison.reports
    shares = {name: _shares(report) for name, report in reports.items()}
    report = next(iter(reports.values()))
    attacks = [row["attack"] for row in report.rows()]
    return _page(
        f"Robustness of {len(reports)} networks on {report.num_examples:,} "
        "examples",
        element("h2", f"Accuracy in %, {_intervals(report)}"),
        chart.bars(
            {
                attack: {name: shares[name][attack] for name in reports}
                for attack in attacks
            }
        ),
        lines(
            ["network", *attacks],
            [
                [name, *(_with_interval(found[attack]) for attack in attacks)]
                for name, found in shares.items()
            ],
            class_="figures",
        ),
        element(
            "p",
            f"{_COUNTING} They are of each accuracy alone: that two of them "
            "overlap does not say that two networks, seen on the same images, "
            "can't be told apart.",
        ),
        element("h2", "Signs of masked gradients"),
        *_verdicts(reports),
        element("h2", "Settings"),
        _settings(report, reports),
    )


def of_certificates(report, caption):
    """Returns a `CertificationReport` as a page, with what it says of it."""
    rows = {
        f"{row['radius']:.4g}": (row["accuracy"], row["low"], row["high"])
        for row in report.rows()
    }
    return _page(
        f"Certified accuracy on {report.num_examples:,} examples",
        element("p", f"{caption[0].upper()}{caption[1:]}."),
        element("h2", f"Accuracy in % by l_2 radius, {_intervals(report)}"),
        chart.bars({"": rows}),
        lines(
            ["l_2 radius", "accuracy", "interval"],
            [
                [radius, table.percent(accuracy), table.between(interval)]
                for radius, (accuracy, *interval) in rows.items()
            ],
            class_="figures",
        ),
        element("h2", "Settings"),
        lines(
            ["setting", "value"],
            [
                ["seconds", f"{report.seconds:.1f}"],
                ["digest of the data", report.data],
                ["versions", _versions()],
            ],
            class_="settings",
        ),
    )


def _page(title, *parts):
    template = string.Template(_TEMPLATE.read_text(encoding="utf-8"))
    body = joined([element("h1", title), *parts])
    return template.substitute(title=escaped(title), body=body)


def _intervals(report):
    return f"with {100 * report.confidence:g} % intervals"


def _shares(report):
    return {
        row["attack"]: (row["accuracy"], row["low"], row["high"])
        for row in report.rows()
    }


def _with_interval(shares):
    accuracy, *interval = shares
    return joined(
        [
            element("div", table.percent(accuracy)),
            element("div", table.between(interval), class_="quiet"),
        ]
    )


def _figures(report):
    def cells(row):
        found = [
            row["attack"],
            table.percent(row["accuracy"]),
            table.between((row["low"], row["high"])),
        ]
        if row["attack"] not in report.results:
            return [*found, *[""] * 5]
        result = report.results[row["attack"]]
        attacked = result.norm[report.correct]
        return [
            *found,
            f"{row['succeeded']:,}",
            _norm(result.attack.threat_model),
            f"{attacked.mean():.4g}" if len(attacked) else "none attacked",
            f"{row['largest_norm']:.4g}" if len(attacked) else "",
            f"{row['seconds']:,.1f}",
        ]

    header = (
        *("attack", "accuracy", "interval", "fooled"),
        *("norm", "mean", "largest", "seconds"),
    )
    return lines(header, map(cells, report.rows()), class_="figures")


def _norm(threat_model):
    names = {Linf: "l_inf", L2: "l_2"}
    return names.get(type(threat_model), type(threat_model).__name__)


def _findings(report):
    if not report.findings:
        return element("p", "Not looked for: the evaluation had no checks.")
    found = lines(
        ["check", "verdict", "evidence"],
        [[one.check, _verdict(one), one.evidence] for one in report.findings],
        class_="evidence",
    )
    return joined([found, element("p", _FIRING)])


def _verdict(finding):
    return element(
        "span", finding.verdict, class_=finding.verdict.replace(" ", "-")
    )


def _verdicts(reports):
    """Yields what the checks say of several networks."""
    found = {
        name: {one.check: _verdict(one) for one in report.findings}
        for name, report in reports.items()
    }
    checks = dict.fromkeys(check for one in found.values() for check in one)
    if not checks:
        yield element("p", "Not looked for: no evaluation had checks.")
        return
    yield lines(
        ["network", *checks],
        [
            [name, *(one.get(check, "not looked for") for check in checks)]
            for name, one in found.items()
        ],
    )
    evidence = "Each network's own report has the evidence."
    yield element("p", f"{_FIRING} {evidence}")


def _settings(report, others=None):
    """Returns what the figures depend on, in lines.

    Args:
        report: The report, or the first of several.
        others: Dictionary of all of several reports, by name.
    """
    attacks = report.results.items()
    models = dict.fromkeys(repr(one.attack.threat_model) for _, one in attacks)
    precisions = {
        f"precision of {name}": one.precision
        for name, one in (others or {}).items()
    }
    if len({*precisions.values()}) < 2:  # it is the same of all
        precisions = {"precision": report.precision}
    rows = [
        *((f"attack {name}", _code(one.setting)) for name, one in attacks),
        ("threat model", _code(", ".join(models))),
        ("seed", str(report.seed)),
        *((name, one or "unknown") for name, one in precisions.items()),
        ("ignored examples", f"{report.num_ignored:,}"),
        ("digest of the data", _code(report.data)),
        ("versions", _versions()),
    ]
    return lines(["setting", "value"], rows, class_="settings")


def _code(text):
    return element("code", text)


def _versions():
    return (
        f"atent_keras {__version__}, Keras {keras.__version__}, TensorFlow "
        f"{tf.__version__}, Python {platform.python_version()}"
    )
