"""What mkdocstrings has to be told of Keras's docstrings."""

import re

import griffe

EXAMPLE = re.compile(
    r"^Example:\n\n((?:(?:>>>|\.\.\.).*\n?|[^\n>].*\n)+)", re.M
)
REFERENCES = re.compile(r"^References:\n(?=- )", re.M)


class KerasDocstrings(griffe.Extension):
    """Makes examples and references of Keras's form Markdown's.

    Keras indents neither; Markdown takes `>>>` for a quotation three deep, and
    a list without a blank line before it for a part of its paragraph.
    """

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            text = obj.docstring.value
            text = EXAMPLE.sub(r"**Example**\n\n```pycon\n\1\n```\n", text)
            obj.docstring.value = REFERENCES.sub("**References**\n\n", text)
