"""The notebooks, as far as can be seen without running them.

What runs them is the build of the documentation.
"""

import ast
import pathlib
import re

import pytest

import atent_keras

NOTEBOOKS = sorted(
    (pathlib.Path(__file__).parents[1] / "docs" / "notebooks").glob("*.py")
)

pytestmark = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS]
)


def names(tree):
    """Yields the dotted names that begin with `ak.`, each once as written."""
    for node in ast.walk(tree):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id == "ak":
            yield parts[::-1]


def test_names_exist(path):
    found = list(names(ast.parse(path.read_text(encoding="utf-8"))))
    assert found
    for parts in found:
        here = atent_keras
        for part in parts:
            here = getattr(here, part)


def test_links_lead_somewhere(path):
    links = re.findall(
        r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")
    )
    assert links
    for link in links:
        assert (path.parent / link).is_file(), link


def test_prose_is_apart_from_code(path):
    cells = re.split(r"(?m)^# %%", path.read_text(encoding="utf-8"))
    assert cells[0] == ""  # nothing before the first cell
    assert cells[1].startswith(" [markdown]\n# # ")
    for cell in cells[1:]:
        lines = cell.splitlines()
        prose = all(not line or line.startswith("#") for line in lines[1:])
        assert prose == lines[0].startswith(" [markdown]"), cell
