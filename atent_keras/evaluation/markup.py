"""HTML, of which every text is escaped and every element is closed."""

import html
import re

_WITHOUT_END = ("img", "line", "rect")
# Controls and halves of characters, which no HTML may hold.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Markup(str):
    """HTML as it stands, in which nothing is escaped any more."""


def escaped(text):
    """Returns what HTML shows as this text; `Markup` stays as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)))


def element(name, *children, **attributes):
    """Returns an element, as `Markup`.

    Args:
        name: String, the element's name.
        *children: What is in it, `Markup`, or strings, which are escaped.
        **attributes: Its attributes, with underscores for dashes, and one at
            the end of what Python has as a word of its own. `None` leaves one
            out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _WITHOUT_END:
        return Markup(f"<{name}{given} />")
    return Markup(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children):
    """Returns parts one after the other, as `Markup`."""
    return Markup("".join(map(escaped, children)))


def table(header, rows, **attributes):
    """Returns a table, the first cell of whose lines is their heading.

    It has room of its own to scroll in, where a page is narrower.

    Args:
        header: The cells of its first line, as children of an `element`.
        rows: Lists of as many cells.
        **attributes: Those of the table.
    """
    columns = (element("th", cell, scope="col") for cell in header)
    lines = (
        element(
            "tr",
            element("th", first, scope="row"),
            *(element("td", cell) for cell in others),
        )
        for first, *others in rows
    )
    found = element(
        "table",
        element("thead", element("tr", *columns)),
        element("tbody", *lines),
        **attributes,
    )
    return element("div", found, class_="scroll", tabindex=0)
