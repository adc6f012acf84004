"""What the pages of notebooks lack: checked links, and no warnings on them.

mkdocs-jupyter makes HTML of a notebook by itself, so that mkdocs neither turns
links to sources (`../attacks.md`) into links to pages, nor sees those that lead
nowhere. In a strict build, what is logged here as a warning is an error.
"""

import logging
import os
import posixpath
import urllib.parse

import bs4

# Under mkdocs's own name, so that a strict build counts the warnings.
LOGGER = logging.getLogger("mkdocs.hooks.notebook_pages")

# Of what TensorFlow finds missing on a machine without a GPU; kernels inherit
# it. What it prints all the same, it prints when it is imported.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def on_page_content(html, page, config, files):
    """Finishes a page that was made of a notebook."""
    source = page.file.src_uri
    if not source.endswith(".py"):
        return html
    soup = bs4.BeautifulSoup(html, "html.parser")
    # mkdocs-jupyter removes outputs by tag before there are any.
    for output in soup.select(".celltag_remove_output .jp-Cell-outputWrapper"):
        output.decompose()
    for tags in soup.select(".celltoolbar"):
        tags.decompose()
    if soup.select("[data-mime-type='application/vnd.jupyter.stderr']"):
        LOGGER.warning("Doc file '%s' warns while it runs.", source)
    # The paragraph above a figure says what to see, which nbconvert can't know.
    for image in soup.select(".jp-RenderedImage img"):
        image["alt"] = "Figure, described above"
    for link in soup.select(".jp-RenderedMarkdown a[href]"):
        link["href"] = _page(link["href"], page, files)
    return str(soup)


def _page(link, page, files):
    """Returns a link to the page that is made of a source."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or not parts.path:
        return link
    folder = posixpath.dirname(page.file.src_uri)
    path = posixpath.normpath(posixpath.join(folder, parts.path))
    target = files.get_file_from_path(path)
    if target is None:
        LOGGER.warning(
            "Doc file '%s' contains a link '%s', but the target '%s' is not "
            "found among documentation files.",
            page.file.src_uri,
            link,
            path,
        )
        return link
    url = target.url_relative_to(page.file)
    return urllib.parse.urlunsplit(("", "", url, "", parts.fragment))
