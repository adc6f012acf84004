"""Tables of figures: as text, as Markdown, as CSV."""

import csv
import io


def text(rows, left=(0,)):
    """Returns rows of strings, aligned.

    Args:
        rows: Lists of strings of one length, the header among them.
        left: Indices of the columns that are aligned to the left.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def markdown(header, rows):
    """Returns a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def as_csv(rows):
    """Returns dictionaries with the same keys as CSV, the keys first."""
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def percent(share):
    return f"{100 * share:.2f} %"


def between(interval):
    """Returns an interval of shares as a string, in percent."""
    low, high = interval
    return f"{100 * low:.2f} to {100 * high:.2f}"
