"""What is released: the files of wheel and sdist, and their metadata."""

import email
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import atent_keras as ak

ROOT = pathlib.Path(__file__).parents[1]


def run(*command, cwd=ROOT):
    return subprocess.run(
        command, cwd=cwd, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def tracked():
    """The project's own files, which a folder at work has others beside."""
    if not (ROOT / ".git").exists():
        pytest.skip("only a checkout says which files are the project's own")
    names = run("git", "ls-files", "-co", "--exclude-standard").split("\n")
    return {name for name in names if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def dist(tracked, tmp_path_factory):
    """Wheel and sdist, built of a copy: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("project")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    # By way of the sdist, as it is done where nothing is told: what the wheel
    # has, the sdist had.
    run(sys.executable, "-m", "build", "--no-isolation", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as file:
        yield file


def test_the_wheel_has_the_package_and_nothing_else(wheel, tracked):
    info = f"atent_keras-{ak.__version__}.dist-info/"
    files = set(wheel.namelist())
    assert f"{info}licenses/LICENSE" in files
    assert "atent_keras/py.typed" in files
    package = {name for name in tracked if name.startswith("atent_keras/")}
    assert {name for name in files if not name.startswith(info)} == package


def test_the_sdist_has_what_building_and_testing_takes(dist, tracked):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as file:
        names = [pathlib.PurePath(name) for name in file.getnames()]
    files = {"/".join(name.parts[1:]) for name in names}
    # What begins with a dot is for those who change the project.
    wanted = {name for name in tracked if not name.startswith(".")}
    assert wanted - files == set()
    generated = {"PKG-INFO", "setup.cfg"}
    folders = {str(parent) for name in wanted for parent in _parents(name)}
    extra = files - wanted - folders - generated - {""}
    assert {name for name in extra if "egg-info" not in name} == set()


def _parents(name):
    return pathlib.PurePosixPath(name).parents


def test_the_metadata(wheel, dist):
    name = f"atent_keras-{ak.__version__}.dist-info/METADATA"
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Version"] == ak.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    # Files that an index does not show are named instead of linked to.
    text = metadata.get_payload()
    assert "Methods (docs/methods.md)" in text
    assert "](docs/" not in text and "](examples/" not in text
    files = [str(path) for path in dist.iterdir()]
    run(sys.executable, "-m", "twine", "check", "--strict", *files)


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {ak.__version__}\n" in text
