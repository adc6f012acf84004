"""The trained networks that come with the package, and their figures."""

import collections.abc
import dataclasses
import json
import pathlib

from atent_keras import threat_models
from atent_keras.evaluation import table

FOLDER = pathlib.Path(__file__).parent / "pretrained"
INDEX = "index.json"
THREAT_MODELS = {"linf": threat_models.Linf, "l2": threat_models.L2}
CLEAN = "clean"  # the name of the accuracy without an attack


def weights() -> "Catalogue":
    """Returns the trained networks that come with the package.

    `print` shows a table of them: what each was trained on, how, and its
    accuracies, clean and attacked.

    Returns:
        A `Catalogue`, a mapping from names to `Pretrained`.

    Example:

    >>> print(atent_keras.architectures.weights())
    >>> entry = atent_keras.architectures.weights()["digits_linf_atent"]
    >>> attack = atent_keras.attacks.PGD(entry.threat_model, num_steps=40)
    """
    return Catalogue.read(FOLDER)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """An accuracy, as an evaluation measured it.

    Attributes:
        accuracy: Float in [0, 1].
        num_examples: Integer, on how many of the first test images.
        setting: String, the attack's settings; empty without an attack.
    """

    accuracy: float
    num_examples: int
    setting: str = ""

    def __str__(self):
        return f"{table.percent(self.accuracy)} of {self.num_examples:,}"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A trained network that comes with the package.

    Attributes:
        name: String, what `weights` of the network's builder takes.
        architecture: String, the builder's name.
        arguments: Dictionary of the builder's arguments on which the weights
            depend.
        dataset: String, the function of `atent_keras.datasets` that gives the
            images.
        norm: String, `"linf"` or `"l2"`, the norm of the ball.
        epsilon: Float, the ball's radius, of images in [0, 1]. The accuracies
            are those in this ball; a training may have used another.
        method: String, what the network was trained by.
        command: String, the command that trained it.
        accuracies: Dictionary from `"clean"` and the names of attacks to
            `Accuracy`, of the weights before they were rounded to float16.
        first_images: Dictionary of what the rounded weights get right of the
            first test images: `num_examples`, and numbers of images by
            `"clean"` and `"PGD-40"`, with the default step and seed 0.
        sha256: String, the file's checksum.
        folder: Path of the folder with the file.
    """

    name: str
    architecture: str
    arguments: dict
    dataset: str
    norm: str
    epsilon: float
    method: str
    command: str
    accuracies: dict
    first_images: dict
    sha256: str
    folder: pathlib.Path = dataclasses.field(default=FOLDER, repr=False)

    def __post_init__(self):
        # As the builders have them, from JSON's lists and dictionaries.
        arguments = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.arguments.items()
        }
        accuracies = {
            name: one if isinstance(one, Accuracy) else Accuracy(**one)
            for name, one in self.accuracies.items()
        }
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "accuracies", accuracies)

    @property
    def path(self):
        """Path of the file with the weights."""
        return self.folder / f"{self.name}.npz"

    @property
    def threat_model(self):
        """The threat model of the accuracies."""
        return THREAT_MODELS[self.norm](self.epsilon)

    @property
    def call(self):
        """String, the builder's call that these weights fit."""
        arguments = (f"{name}={v!r}" for name, v in self.arguments.items())
        return f"{self.architecture}({', '.join(arguments)})"

    def to_dict(self):
        """Returns what the index holds, under the network's name."""
        found = dataclasses.asdict(self)
        del found["name"], found["folder"]
        return found


class Catalogue(collections.abc.Mapping):
    """Trained networks, a mapping from their names to `Pretrained`.

    Args:
        entries: Iterable of `Pretrained`.
    """

    def __init__(self, entries):
        self._entries = {entry.name: entry for entry in entries}

    @classmethod
    def read(cls, folder):
        """Returns the catalogue of a folder with an index.

        Args:
            folder: Path.

        Raises:
            ValueError: If there is no index, or a damaged one.
        """
        path = folder / INDEX
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                Pretrained(name, **entry, folder=folder)
                for name, entry in index.items()
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                "The index of the trained networks must be whole; reinstall "
                f"the package. Received: {path}: {error}"
            ) from error

    def to_json(self):
        """Returns the index of these networks."""
        index = {name: one.to_dict() for name, one in sorted(self.items())}
        return json.dumps(index, indent=2) + "\n"

    def of(self, architecture):
        """Returns the names of an architecture's trained networks."""
        return [
            name
            for name, entry in self.items()
            if entry.architecture == architecture
        ]

    def __getitem__(self, name):
        if name not in self._entries:
            raise KeyError(
                f"{name!r} is not one of the trained networks: "
                f"{', '.join(map(repr, self))}"
            )
        return self._entries[name]

    def __contains__(self, name):
        return name in self._entries

    def __iter__(self):
        return iter(self._entries)

    def __len__(self):
        return len(self._entries)

    def __str__(self):
        # Each attack once, in the order in which they come up.
        measured = dict.fromkeys(
            name for entry in self.values() for name in entry.accuracies
        )
        header = ["name", "architecture", "data set", "norm", "epsilon"]
        rows = [[*header, "method", *measured]]
        for name, entry in self.items():
            accuracies = (entry.accuracies.get(one, "") for one in measured)
            rows.append(
                [
                    name,
                    entry.architecture,
                    entry.dataset,
                    entry.norm,
                    f"{entry.epsilon:.4g}",
                    entry.method,
                    *map(str, accuracies),
                ]
            )
        return table.text(rows, left=(0, 1, 2, 3, 5))

    # What an interactive session shows of it.
    __repr__ = __str__
