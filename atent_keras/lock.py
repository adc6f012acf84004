"""One process at a time in a folder."""

import contextlib
import datetime
import os
import pathlib
import socket
import warnings

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"  # the file's

_held: set["Lock"] = set()


class Lock:
    """Keeps a folder for one process, of which others are told.

    ```python
    with Lock(folder):
        ...
    ```

    A folder that is new and stays empty is taken away again.

    The operating system holds the lock and drops it when the process ends,
    however it ends: the file `.lock`, which says who is at work, locks nothing
    once nobody holds it. A fork does not share its parent's lock. Who only
    reads needs none, since files are whole at any time.

    Where the system or the file system has no locks, as on Windows and some
    network drives, a warning says so.

    Args:
        folder: Path of the folder; it is made if it is not there.
        argument: String, what errors call the folder. Defaults to
            `` "`folder`" ``.

    Raises (on entering):
        BlockingIOError: If another process holds it, or another thread.
        ValueError: If `folder` is a file, or within one, or has a folder in
            the place of the file.
        UserWarning: If there are no locks.
    """

    def __init__(self, folder, argument="`folder`"):
        self.folder = pathlib.Path(folder)
        self.argument = argument
        self.descriptor = None
        self.made = []

    @property
    def file(self):
        return self.folder / NAME

    def __enter__(self):
        require_folder(self.folder, self.argument)
        if self.file.is_dir() or _is_broken(self.file):
            raise ValueError(
                f"{self.argument} must have room for a file {NAME}. Received: "
                f"{self.file}, a folder or a link to nothing"
            )
        self.made = [
            path
            for path in (self.folder, *self.folder.parents)
            if not path.exists()
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        while fcntl is not None and self.descriptor is None:
            try:
                descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # Who made the folder took it along.
                self.folder.mkdir(parents=True, exist_ok=True)
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same(descriptor, self.file):
                    self.descriptor = descriptor
            except BlockingIOError as error:
                holder = os.read(descriptor, 1000).decode(errors="replace")
                raise BlockingIOError(
                    f"{self.argument} must not be in use by another process. "
                    f"Received: {self.folder}, in use by "
                    f"{holder or 'a process that has just started'}. Wait "
                    "until it has ended, or give another folder"
                ) from error
            except OSError:  # a file system without locks
                self.file.unlink(missing_ok=True)
                break
            finally:
                if self.descriptor is None:
                    os.close(descriptor)
        if self.descriptor is None:
            warnings.warn(
                f"Nothing keeps another process out of {self.folder}, since "
                "this system or its file system has no locks. Do not use the "
                "folder twice at once",
                stacklevel=2,
            )
            return self
        os.ftruncate(self.descriptor, 0)
        os.write(self.descriptor, _who().encode())
        _held.add(self)
        return self

    def __exit__(self, *error):
        if self in _held:
            # First the file, then the lock: who finds neither makes a new one.
            self.file.unlink(missing_ok=True)
            self._close()
            _held.discard(self)
        with contextlib.suppress(OSError):  # Where something was written.
            for path in self.made:
                path.rmdir()

    def _close(self):
        os.close(self.descriptor)
        self.descriptor = None


def require_folder(path, argument="`folder`"):
    """Checks that a path is free for a folder.

    Raises:
        ValueError: If it is a file, or within one.
    """
    for part in (path, *path.parents):
        if part.is_dir():
            return
        if part.exists():
            raise ValueError(
                f"{argument} must be a folder. Received: {part}, a file"
            )
        if _is_broken(part):
            raise ValueError(
                f"{argument} must be a folder. Received: {part}, a link to "
                "nothing"
            )


def _is_broken(path):
    """Whether a path is a link to what is not there."""
    return path.is_symlink() and not path.exists()


def _who():
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        f"process {os.getpid()} on {socket.gethostname()} since "
        f"{now:%Y-%m-%d %H:%M:%S} UTC"
    )


def _same(descriptor, path):
    """Whether the open file is still the one of that name.

    Who held the lock may have ended meanwhile, and taken the file along.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _let_go():
    """Closes what a fork has of its parent's locks, which stay the parent's."""
    for lock in _held:
        lock._close()
    _held.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)
