"""The pages must tell of what is there: names, messages, code."""

import ast
import importlib
import inspect
import pathlib
import re

import pytest

import atent_keras as ak

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROOMS = (
    "architectures",
    "attacks",
    "callbacks",
    "config",
    "datasets",
    "evaluation",
    "losses",
    "plots",
    "presets",
    "threat_models",
)
# Of a module without `__all__`: what the pages leave out, being for within.
INTERNAL = {
    "atent_keras.presets": {"require", "resolve"},
    "atent_keras.threat_models": {
        "is_finite",
        "per_example",
        "require_number",
    },
}
QUOTED = r"^### (`+)(.+)\1$"  # a message with backticks has two around it
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def public_names(module):
    """The functions and classes of a module, those that are for users."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__
            and not name.startswith("_")
        ]
    return set(names) - INTERNAL.get(module.__name__, set())


def resolved(path):
    """What a dotted name stands for."""
    value = ak
    for name in path.split(".")[1:]:
        value = getattr(value, name)
    return value


def documented():
    """The dotted names that the reference has an entry for."""
    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    return re.findall(r"^::: (\S+)$", text, re.M)


def test_the_reference_has_every_public_name_once():
    entries = [resolved(path) for path in documented()]
    assert len({id(entry) for entry in entries}) == len(entries)
    expected = {}
    for room in (None, *ROOMS):
        path = "atent_keras" if room is None else f"atent_keras.{room}"
        module = importlib.import_module(path)
        for name in public_names(module) - {"__version__", *ROOMS}:
            expected[f"{path}.{name}"] = getattr(module, name)
    expected["atent_keras.presets"] = ak.presets
    known = {id(entry) for entry in entries}
    assert not [
        name for name, value in expected.items() if id(value) not in known
    ]
    public = {id(value) for value in expected.values()}
    assert not [
        path for path in documented() if id(resolved(path)) not in public
    ]


def messages():
    """All string literals of the sources, their variable parts cut out."""
    for folder in ("atent_keras", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(
                    node.value, str
                ):
                    yield node.value


def test_every_quoted_message_is_one_of_the_package():
    text = (DOCS / "troubleshooting.md").read_text()
    quoted = [heading[1].strip() for heading in re.findall(QUOTED, text, re.M)]
    assert len(quoted) > 50
    known = "\0".join(messages())
    assert not [message for message in quoted if message not in known]


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_compiles_and_names_what_there_is(page):
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute):
                path = ast.unparse(node)
                if re.fullmatch(r"ak(\.\w+)+", path):
                    resolved(path)
            if isinstance(node, ast.Call):
                _require_arguments(node)


def _require_arguments(call):
    """Checks the keywords of a call of the package's own."""
    path = ast.unparse(call.func)
    if not re.fullmatch(r"ak(\.\w+)+", path):
        return
    signature = inspect.signature(resolved(path))
    kinds = {p.kind for p in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        given = {keyword.arg for keyword in call.keywords} - {None}
        assert given <= set(signature.parameters), path
