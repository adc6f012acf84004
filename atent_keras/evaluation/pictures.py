"""The first few examples of an evaluation, and what attacks made of them."""

import base64

import numpy as np
import tensorflow as tf

from atent_keras import margins

# As many as a page takes: fewer of large images, and none of larger ones.
_MOST, _VALUES = 8, 2**19
_SAID = "answers", "confidences"
NOT_ATTACKED = -1  # an answer that nobody gave


class Pictures:
    """Keeps the first few examples, with the network's answers.

    These are arrays `x`, `y`, `answers` and `confidences`, and for each attack
    `NAME/x_adv`, `NAME/answers` and `NAME/confidences`; an answer is -1 where
    the image was not attacked.

    Args:
        results: `Results`, where they are kept. Of a run that goes on, what is
            not there is not made up for.
        target: The network, a `Target`.
    """

    def __init__(self, results, target):
        self.results, self.target = results, target

    def keep(self, first, x, y, outputs):
        """Keeps the first few of a batch.

        Args:
            first: Integer, the place of the batch's first example.
            x, y: Images and labels, as tensors.
            outputs: What the network gives for them, `(batch, classes)`.
        """
        most = min(_MOST, _VALUES // max(x.shape[1:].num_elements(), 1))
        few = slice(max(most - first, 0))
        if not first:  # What is there from before is of no use.
            self.results.pictures.clear()
            self.results.keep(x=x.numpy()[:0])
        known = self.results.pictures.get("x", ())
        # Of images of several sizes, those of the size that comes first.
        if few.stop and len(known) >= first and known.shape[1:] == x.shape[1:]:
            x, y, outputs = x[few], y[few], outputs[few]
            classes = margins.class_labels(y, outputs.shape[-1])
            self._write(first, x=x, y=classes, **self._answers(x, y, outputs))

    def keep_attacked(self, name, first, correct, y, attempt):
        """Keeps what an attack made of the first few of a batch.

        Args:
            name: String, the attack's name.
            first: Integer, the place of the batch's first example.
            correct: Which of the batch were attacked, booleans `(batch,)`.
            y: The labels of those that were, as a tensor.
            attempt: An `Attempt` on those.
        """
        x = self.results.pictures.get("x", ())[first : first + len(correct)]
        if not len(x):
            return
        rows = np.flatnonzero(correct[: len(x)])
        found = {
            "x_adv": np.array(x),
            "answers": np.full(len(x), NOT_ATTACKED),
            "confidences": np.zeros(len(x)),
        }
        if len(rows):
            few = slice(len(rows))
            x_adv, outputs = attempt.x_adv[few], attempt.outputs[few]
            found["x_adv"][rows] = x_adv
            for part, values in self._answers(x_adv, y[few], outputs).items():
                found[part][rows] = values
        self._write(first, **{f"{name}/{part}": found[part] for part in found})

    def _answers(self, x, y, outputs):
        shares = self.target.probabilities(x, y, outputs).numpy()
        answers = np.argmax(shares, axis=1)
        return {
            "answers": answers,
            "confidences": shares[range(len(answers)), answers],
        }

    def _write(self, first, **arrays):
        known = self.results.pictures
        self.results.keep(
            **{
                name: np.concatenate([known[name][:first], values])
                if name in known
                else np.asarray(values)
                for name, values in arrays.items()
            }
        )


def are_pictures(arrays):
    """Whether arrays are such as `Pictures` keeps."""
    x = arrays.get("x", np.zeros((0,)))
    expected = {"x": x.shape} if arrays else {}
    if x.shape[:1] != (0,):
        expected |= dict.fromkeys(("y", *_SAID), x.shape[:1])
    for name in {name.rpartition("/")[0] for name in arrays} - {""}:
        few = np.shape(arrays.get(f"{name}/x_adv", ()))[:1]
        expected[f"{name}/x_adv"] = (*few, *x.shape[1:])
        expected |= dict.fromkeys((f"{name}/{part}" for part in _SAID), few)
        if few > x.shape[:1]:
            return False
    return expected == {name: part.shape for name, part in arrays.items()} and (
        all(np.issubdtype(part.dtype, np.number) for part in arrays.values())
    )


def are_images(x, bounds):
    """Whether arrays `(batch, ...)` can be shown as images.

    Without bounds, arrays of rank 3 are as likely signals as grey images.

    Args:
        x: The array.
        bounds: Pair of floats, or `None`.
    """
    if x.ndim == 3:
        return bounds is not None
    return x.ndim == 4 and x.shape[3] in (1, 3)


def source(image, lower, upper):
    """Returns an image as a data URI, from black to white.

    Args:
        image: Floats `(height, width)`, or with 1 or 3 channels.
        lower, upper: Floats, what is black and what is white.
    """
    shares = np.clip((image - lower) / ((upper - lower) or 1), 0, 1)
    pixels = np.round(255 * shares).astype("uint8")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    png = tf.io.encode_png(pixels).numpy()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
