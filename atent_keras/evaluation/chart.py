"""Accuracies as bars with their intervals, in HTML and SVG."""

from atent_keras.evaluation import table
from atent_keras.evaluation.markup import element

_GRID = range(0, 101, 25)  # percent


def bars(groups):
    """Returns a chart, as `Markup`.

    Args:
        groups: Dictionary from headings, which may be empty, to dictionaries
            from the names of bars to `(accuracy, low, high)`, shares.
    """
    parts = []
    for heading, accuracies in groups.items():
        if heading:
            parts.append(_name("h3", heading))
        lines = [_line(name, *shares) for name, shares in accuracies.items()]
        parts.append(element("ul", *lines))
    ticks = [element("span", str(percent)) for percent in _GRID]
    ticks = element("div", *ticks)
    scale = element("div", ticks, class_="scale", aria_hidden="true")
    return element("div", *parts, scale, class_="chart")


def _line(name, accuracy, low, high):
    value = table.percent(accuracy)
    label = f"{name}: {value}, interval {table.between((low, high))} %"
    return element(
        "li",
        _name("span", name),
        _bar(100 * accuracy, 100 * low, 100 * high, label),
        element("span", value, class_="value"),
    )


def _bar(accuracy, low, high, label):
    """Returns a bar over 100 units, as wide as there is room."""
    whiskers = ((low, high, 5, 5), (low, low, 3, 7), (high, high, 3, 7))
    return element(
        "svg",
        *(_stroke(x, x, 0, 10, "grid") for x in _GRID),
        element("rect", x=0, y=2, width=f"{accuracy:.2f}", height=6),
        *(_stroke(*places, "whisker") for places in whiskers),
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def _stroke(x1, x2, y1, y2, kind):
    return element(
        "line",
        x1=f"{x1:.2f}",
        x2=f"{x2:.2f}",
        y1=y1,
        y2=y2,
        class_=kind,
        # However wide the bar is drawn.
        vector_effect="non-scaling-stroke",
    )


def _name(kind, name):
    """Returns a name, which a page may cut, and has whole as a title."""
    return element(kind, name, class_="cut", title=name)
