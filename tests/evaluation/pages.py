"""What tests of pages share: a reader, and the figures of a report."""

import html.parser

WITHOUT_END = ("img", "link", "meta")


class Page(html.parser.HTMLParser):
    """A page that was read, as lists of its elements.

    Each is a triple of its name, its attributes and the text in it. An element
    that is not closed, or not in its turn, is an error.
    """

    def __init__(self, content):
        super().__init__()
        self.elements, self._open, self.text = [], [], ""
        self.feed(content)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs), []))
        if tag not in WITHOUT_END:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        self.text += data
        for *_, parts in self._open:
            parts.append(data)

    def all(self, tag, **attributes):
        """Returns attributes and text of all elements of a kind."""
        return [
            (found, "".join(parts))
            for name, found, parts in self.elements
            if name == tag and attributes.items() <= found.items()
        ]
