"""What is known of each example, on the disk as soon as it is known."""

import contextlib
import errno
import io
import json
import os
import pathlib

import numpy as np

from atent_keras.archives import DAMAGES
from atent_keras.evaluation.description import differences
from atent_keras.evaluation.pictures import are_pictures
from atent_keras.evaluation.target import fingerprint
from atent_keras.lock import NAME as LOCK
from atent_keras.lock import Lock
from atent_keras.lock import require_folder

SETTINGS = "settings.json"
EXAMPLES = "examples.npz"
FINDINGS = "findings.json"
PICTURES = "pictures.npz"
PRECISION = "the model's precision"  # a setting, which reports name
# What is known, by the folder's name: of every batch, and by each attack (or
# by the certification).
_PARTS = {
    "progress": (("correct",), ("succeeded", "norm", "seconds")),
    "certificates_progress": (("correct", "classes", "radii"), ("seconds",)),
}
_ENDS = ("last", "digest")
_DTYPES = {
    **dict.fromkeys(("correct", "succeeded"), np.bool_),
    **dict.fromkeys(("norm", "radii", "seconds"), np.floating),
    **dict.fromkeys(("classes", "last"), np.integer),
    "digest": np.str_,
}
_DRAFT = ".draft"
_OUTPUTS = "the model's outputs"
_ROUNDING = 1e-3
# Where a disk or a quota is full, or a file may not grow.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Results:
    """Arrays that grow batch by batch, and the settings they belong to.

    - `settings.json`: model, data, seed and attacks.
    - `examples.npz`: arrays, by name, of all that is known of each example.
    - `findings.json`: what each check for masked gradients found; see `once`.
    - `pictures.npz`: the first few examples and their attacked images; see
      `Pictures`.

    Each file is written anew beside its place and then renamed, so that it is
    whole at any time, whatever happens while it is written.

    Args:
        folder: Where they go, new or that of an evaluation that is to go on.
            `None` keeps everything in memory.
        name: String, the name of their own folder within it: `"progress"` of
            an evaluation, `"certificates_progress"` of a certification.

    Raises:
        ValueError: If the folder holds other files, or damaged ones.
    """

    def __init__(self, folder=None, name="progress"):
        self.path = None if folder is None else pathlib.Path(folder) / name
        self.parts = _PARTS[name]
        self.settings, self.arrays, self.findings = {}, {}, {}
        self.pictures = {}
        if self.path is None:
            return
        require_folder(self.path)
        if not self.path.exists():
            return
        if (self.path / SETTINGS).exists():
            self.settings = self._json(SETTINGS, _are_settings)
            self.arrays = self._arrays(
                EXAMPLES, lambda found: _are_of_batches(found, *self.parts)
            )
            self.findings = self._json(FINDINGS, _are_findings)
            self.pictures = self._arrays(PICTURES, are_pictures)
        elif any(
            file.suffix != _DRAFT and file.name != LOCK
            for file in self.path.iterdir()
        ):
            raise ValueError(
                "`folder` must be new or empty, or that of an evaluation which "
                f"is to go on. Received: {self.path}, which has files but no "
                f"{SETTINGS}"
            )

    @classmethod
    @contextlib.contextmanager
    def alone(cls, folder=None, name="progress"):
        """Yields the results, their folder kept from other processes.

        Args:
            folder, name: As for the class.

        Raises:
            BlockingIOError: If another process is at work there.
        """
        if folder is None:
            yield cls()
            return
        with Lock(pathlib.Path(folder) / name):
            yield cls(folder, name)

    def require(self, **settings):
        """Checks settings against those that the results belong to.

        Args:
            **settings: Values for JSON. What is not known yet is kept.

        Raises:
            ValueError: If any differs, naming each, or if one is missing on
                which results rest.
        """
        # As JSON gives them back.
        settings = json.loads(json.dumps(settings))
        if any(map(self._rest_on, settings.keys() - self.settings.keys())):
            raise self._damaged(SETTINGS)
        different = [
            f"{part} is {_brief(there)} there, {_brief(now)} now"
            for name, value in settings.items()
            if name in self.settings
            for part, there, now in differences(
                name, self.settings[name], value
            )
            if part != _OUTPUTS or not _close(there, now)
        ]
        if different:
            raise ValueError(
                "`folder` must be new, or that of the same model, data and "
                f"settings. Received: {self.path}, where "
                f"{'; '.join(different)}"
            )
        self.settings = {**settings, **self.settings}

    def _rest_on(self, setting):
        """Whether some of what is known was found under a setting."""
        kind, _, attack = setting.partition(" ")
        if kind == "attack":
            return self.known(f"{attack}/succeeded") > 0
        return setting != "num_examples" and self.known("correct") > 0

    def require_model(self, model, shape, bounds):
        """Checks a network against the one that the results belong to.

        Args:
            model, shape, bounds: See `fingerprint`.

        Raises:
            ValueError: If it is another.
        """
        found = fingerprint(model, shape, bounds)
        nameless = found["outputs"] == "random" and "weights" not in found
        if nameless and self.known("correct"):
            raise ValueError(
                "`folder` must be new for a network that answers at random "
                "and has no weights by which it could be known again. "
                f"Received: {self.path}"
            )
        self.require(**{f"the model's {name}": found[name] for name in found})

    def require_batch(self, number, last, digest):
        """Checks a batch against the one of that number that is known.

        Args:
            number: Integer, the batch's place, from 0.
            last: Integer, the number of examples up to its end.
            digest: String, the fingerprint of all examples up to there.

        Raises:
            ValueError: If the data differ.
        """
        known = self.known("digest")
        total = self.settings.get("num_examples")
        if number < known:
            ends, digests = self.arrays["last"], self.arrays["digest"]
            same = ends[number] == last and digests[number] == digest
        else:
            same = total is None or last <= total
        if not same:
            raise ValueError(
                "`folder` must be new, or that of the same data in the same "
                f"order and batches. Received: {self.path}, where batch "
                f"{number}, up to example {last}, is another"
                + ("" if number < known else f": it ends with {total} examples")
            )

    def require_reach(self, num_batches):
        """Checks that data do not end before what is known of them does.

        Args:
            num_batches: Integer, or `None` where nobody can tell beforehand.

        Raises:
            ValueError: If they do.
        """
        known = self.known("digest")
        if num_batches is not None and num_batches < known:
            raise ValueError(
                "`folder` must be new, or that of the same data. Received: "
                f"{self.path}, with {known} batches there, {num_batches} now"
            )

    def finish(self, num_examples):
        """Marks the end of the data.

        Raises:
            ValueError: If they ended elsewhere before.
        """
        if self.known("correct") > num_examples:
            raise ValueError(
                "`folder` must be new, or that of the same data. Received: "
                f"{self.path}, with {self.known('correct')} examples there, "
                f"{num_examples} now"
            )
        self.require(num_examples=num_examples)
        self._write(SETTINGS, _text(self.settings))

    def known(self, name):
        """Returns for how many examples an array is known."""
        return len(self.arrays.get(name, ()))

    def append(self, **arrays):
        """Appends values to the arrays of these names, on the disk too."""
        for name, values in arrays.items():
            before = [self.arrays[name]] if name in self.arrays else []
            self.arrays[name] = np.concatenate([*before, np.asarray(values)])
        self._write(SETTINGS, _text(self.settings))
        self._write(EXAMPLES, self.arrays)

    def keep(self, **arrays):
        """Keeps arrays as pictures, in place of those of these names."""
        self.pictures.update(arrays)
        self._write(SETTINGS, _text(self.settings))
        self._write(PICTURES, self.pictures)

    def once(self, name, find):
        """Returns what `find()` gives, a value for JSON; asks only once."""
        if name not in self.findings:
            self.findings[name] = json.loads(json.dumps(find()))
            self._write(FINDINGS, _text(self.findings))
        return self.findings[name]

    def _json(self, name, fit):
        path = self.path / name
        if not path.exists():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError, IsADirectoryError) as error:
            raise self._damaged(name) from error
        if not isinstance(found, dict) or not fit(found):
            raise self._damaged(name)
        return found

    def _arrays(self, name, fit):
        path = self.path / name
        if not path.exists():
            return {}
        try:
            content = io.BytesIO(path.read_bytes())
            with np.load(content, allow_pickle=False) as file:
                found = dict(file)
        except DAMAGES as error:
            raise self._damaged(name) from error
        if not fit(found):
            raise self._damaged(name)
        return found

    def _damaged(self, name):
        remedy = "have what was in there done again"
        if name == PICTURES:
            remedy = "go on without the images that were in there"
        return ValueError(
            "`folder` must hold whole files. Received: "
            f"{self.path / name}, which is damaged; delete "
            f"{self.path if name == SETTINGS else 'it'} to {remedy}"
        )

    def _write(self, name, content):
        if self.path is not None:
            self.path.mkdir(parents=True, exist_ok=True)
            save = write_arrays if isinstance(content, dict) else write
            save(self.path / name, content)


def write(path, content):
    """Writes a file that is there either whole or not at all.

    Args:
        path: Where the file goes.
        content: String or bytes.

    Raises:
        OSError: If it can't be written; what was there before is kept.
    """
    if isinstance(content, str):
        content = content.encode("utf-8")
    # Each process has its own.
    draft = path.with_name(f"{path.name}.{os.getpid()}{_DRAFT}")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}. What was written before is kept: start again "
            "with the same folder once there is room, and it goes on from "
            "there",
            str(path),
        ) from error


def write_arrays(path, arrays):
    """Writes a dictionary of arrays as an `.npz` file, as `write` does."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write(path, file.getvalue())


def _are_settings(found):
    return isinstance(found.get("num_examples", 0), int)


def _are_findings(found):
    """Whether each is a verdict, or none, and its evidence."""
    return all(
        isinstance(finding, list)
        and len(finding) == 2
        and isinstance(finding[0], bool | None)
        and isinstance(finding[1], str)
        for finding in found.values()
    )


def _are_of_batches(arrays, every, by_attack):
    """Whether arrays are those of whole batches, all that there should be."""
    if not {*every, *_ENDS} <= arrays.keys():
        return False
    ends = [0, *arrays["last"].tolist()]
    if ends != sorted(set(ends)):
        return False
    attacks = {name.rpartition("/")[0] for name in arrays} - {""}
    lengths = dict.fromkeys(every, ends[-1])
    lengths |= dict.fromkeys(_ENDS, len(ends) - 1)
    for attack in attacks:
        known = len(arrays.get(f"{attack}/succeeded", arrays["correct"]))
        if known not in ends:
            return False
        lengths |= {f"{attack}/{part}": known for part in by_attack}
        lengths[f"{attack}/seconds"] = ends.index(known)
    return lengths.keys() == arrays.keys() and all(
        values.shape == (lengths[name],)
        and np.issubdtype(values.dtype, _DTYPES[name.rpartition("/")[2]])
        for name, values in arrays.items()
    )


def _text(content):
    return json.dumps(content, indent=2) + "\n"


def _close(one, other):
    """Whether a network's outputs are the same up to rounding."""
    if "random" in (one, other):
        return False
    try:
        one, other = np.array(one, float), np.array(other, float)
    except (TypeError, ValueError):  # no table of numbers
        return False
    return one.shape == other.shape and np.allclose(
        one,
        other,
        rtol=_ROUNDING,
        atol=_ROUNDING * np.max(np.abs(one), initial=0.0),
    )


def _brief(value):
    text = str(value)
    return text if len(text) <= 200 else f"{text[:120]}..."
