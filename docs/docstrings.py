"""What mkdocstrings has to be told of Keras's docstrings."""

import re
import textwrap

import griffe

EXAMPLE = re.compile(
    r"^Example:\n\n((?:(?:>>>|\.\.\.).*\n?|[^\n>].*\n)+)", re.M
)
REFERENCES = re.compile(r"^References:\n(?=- )", re.M)
# Results without a name, and sections of a class that tell of its call.
SECTION = re.compile(
    r"^(Returns|Yields|Call arguments|\w+ \((?:of|in) a call\)):\n"
    r"((?: {4}.*(?:\n|\Z)|\n)+)",
    re.M,
)
ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): ", re.M)


class KerasDocstrings(griffe.Extension):
    """Makes Markdown of what Keras's form has beside Google's.

    Keras indents neither examples nor references. Markdown takes `>>>` for a
    quotation three deep, and a list without a blank line before it for a part
    of its paragraph.
    """

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            text = obj.docstring.value
            text = EXAMPLE.sub(r"**Example**\n\n```pycon\n\1\n```\n", text)
            text = REFERENCES.sub("**References**\n\n", text)
            obj.docstring.value = SECTION.sub(_section, text)


def _section(found):
    """A title in bold; a list of what has names, else a paragraph."""
    title, text = found[1], textwrap.dedent(found[2])
    if not title.startswith(("Returns", "Yields")):
        text = ARGUMENT.sub(r"- **`\1`** – ", text)
    return f"**{title}:**\n\n{text}\n"
