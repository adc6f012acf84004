import errno
import os
import signal
import subprocess
import sys

import pytest

from atent_keras import lock
from atent_keras.lock import Lock

# Without the package, which takes seconds to import.
HOLD = """
import os, runpy, sys, time
with runpy.run_path(sys.argv[1])["Lock"](sys.argv[2]):
    child = os.fork() if sys.argv[3] == "fork" else 0
    # The child itself, which then has let go of what it inherited.
    print(os.getpid(), flush=True) if not child else None
    time.sleep(600)
"""


@pytest.fixture(params=["alone", "fork"])
def holder(request, tmp_path):
    """A process that holds `tmp_path`, and the number of its last child."""
    arguments = [lock.__file__, str(tmp_path), request.param]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        child = int(process.stdout.readline())
        yield process
        for number in {process.pid, child}:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                pass


def test_a_second_process_is_told_of_the_first_until_that_is_killed(
    holder, tmp_path
):
    """The first one's forks may live on."""
    for _ in range(2):
        with pytest.raises(
            BlockingIOError,
            match="`folder` must not be in use by another process. Received: "
            f"{tmp_path}, in use by process {holder.pid} on .* since 20.* UTC",
        ):
            Lock(tmp_path).__enter__()
    holder.kill()
    holder.wait()
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]
    with Lock(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    assert not [*tmp_path.iterdir()]


def test_a_lock_is_of_one_folder_and_for_one_use(tmp_path):
    with pytest.raises(KeyError), Lock(tmp_path / "new" / "one"):
        with Lock(tmp_path / "new"), pytest.raises(BlockingIOError):
            Lock(tmp_path / "new" / "one", "--output_dir").__enter__()
        raise KeyError
    # What is empty again was never there.
    assert not [*tmp_path.iterdir()]
    with Lock(tmp_path / "new" / "one"):
        (tmp_path / "new" / "file").write_text("")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_file_that_its_owner_took_along_is_no_lock(tmp_path, monkeypatch):
    """The owner ends between the other's opening and locking of the file."""
    first, flock, opened = Lock(tmp_path), lock.fcntl.flock, []

    def late(descriptor, operation):
        opened.append(descriptor)
        if len(opened) == 1:
            first.__exit__()
        flock(descriptor, operation)

    with first:
        monkeypatch.setattr(lock.fcntl, "flock", late)
        with Lock(tmp_path) as second:
            assert len(opened) == 2 and (tmp_path / ".lock").exists()
            monkeypatch.undo()
            with pytest.raises(BlockingIOError):
                Lock(tmp_path).__enter__()
        assert second.descriptor is None


def test_where_a_folder_can_not_be(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="--to must be .*link, a link to noth"):
        Lock(tmp_path / "link", "--to").__enter__()
    (tmp_path / "one" / ".lock").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / ".lock").symlink_to(tmp_path / "nowhere" / "file")
    for name in ("one", "two"):
        with pytest.raises(ValueError, match="--to .* a file .lock. Received"):
            Lock(tmp_path / name, "--to").__enter__()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ValueError, match="--to must be a folder.*a file"):
            Lock(path, "--to").__enter__()


@pytest.mark.parametrize("missing", ["module", "locks"])
def test_without_locks_a_warning_says_so(missing, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if missing == "module":
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match=f"out of {tmp_path}, since"):
        with Lock(tmp_path):
            assert not [*tmp_path.iterdir()]
