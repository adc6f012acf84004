"""What the pages of notebooks lack: checked links, and no warnings on them.

mkdocs-jupyter makes HTML of a notebook by itself, so that mkdocs neither turns
links to sources (`../attacks.md`) into links to pages, nor sees those that lead
nowhere. In a strict build, what is logged here as a warning is an error.
"""

import logging
import os
import posixpath
import re
import urllib.parse

# Under mkdocs's own name, so that a strict build counts the warnings.
LOGGER = logging.getLogger("mkdocs.hooks.notebook_pages")

# Of what TensorFlow finds missing on a machine without a GPU; kernels inherit
# it. What it prints all the same, it prints when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_LINK = re.compile(r'href="(?![a-z]+:|#|/)([^"#]+\.(?:md|py))(#[^"]*)?"')
_UNDESCRIBED = 'alt="No description has been provided for this image"'
_WARNED = re.compile(
    r'<div[^>]* data-mime-type="application/vnd\.jupyter\.stderr"'
)


def on_page_content(html, page, config, files):
    """Finishes a page that was made of a notebook."""
    source = page.file.src_uri
    if not source.endswith(".py"):
        return html
    if _WARNED.search(html):
        LOGGER.warning("Doc file '%s' warns while it runs.", source)

    def linked(match):
        path, anchor = urllib.parse.unquote(match[1]), match[2] or ""
        path = posixpath.join(posixpath.dirname(source), path)
        target = files.get_file_from_path(posixpath.normpath(path))
        if target is None:
            LOGGER.warning(
                "Doc file '%s' contains a link '%s', but the target is not "
                "found among documentation files.",
                source,
                match[1],
            )
            return match[0]
        return f'href="{target.url_relative_to(page.file)}{anchor}"'

    # The paragraph above a figure says what to see, which nbconvert can't know.
    html = html.replace(_UNDESCRIBED, 'alt="Figure, described above"')
    return _LINK.sub(linked, html)
