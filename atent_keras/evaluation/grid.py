"""The first few images of a report, clean and attacked, in HTML."""

import numpy as np

from atent_keras.evaluation.markup import element
from atent_keras.evaluation.markup import joined
from atent_keras.evaluation.markup import table
from atent_keras.evaluation.pictures import NOT_ATTACKED
from atent_keras.evaluation.pictures import are_images
from atent_keras.evaluation.pictures import source


def images(report):
    """Yields the first images, clean and attacked, or why there are none."""
    found, attacks = report.pictures, report.attacks
    bounds = next(iter(attacks.values())).threat_model.bounds
    x = found.get("x")
    if x is None:
        yield element(
            "p",
            "Not kept: these results were begun without images, as those of "
            "earlier versions were. An evaluation in a new folder has them.",
        )
    elif not are_images(x, bounds):
        yield element(
            "p",
            "The data are no images to look at: an example has the shape "
            f"{x.shape[1:]}.",
        )
    elif not len(x):
        yield element("p", f"Too large to be kept: of shape {x.shape[1:]}.")
    else:
        kept = [
            name
            for name in attacks
            if len(found.get(f"{name}/x_adv", ())) == len(x)
        ]
        yield _grid(report, kept, bounds)
        if missing := [name for name in attacks if name not in kept]:
            yield element("p", f"Not kept of {', '.join(missing)}.")


def _grid(report, names, bounds):
    found = report.pictures
    x, truth = found["x"], found["y"]
    if bounds is None:
        parts = [x, *(found[f"{name}/x_adv"] for name in names)]
        bounds = min(map(np.min, parts)), max(map(np.max, parts))

    def seen(prefix, images):
        """Returns cells of images, and of what the network says of them."""
        answers = zip(found[f"{prefix}answers"], found[f"{prefix}confidences"])
        for place, (image, (answer, share)) in enumerate(zip(images, answers)):
            if answer == NOT_ATTACKED:
                yield element("div", "not attacked")
                continue
            right = answer == truth[place] and np.isfinite(share)
            said = [
                _class(report, answer) if np.isfinite(share) else "no number",
                f"{'' if right else 'wrong, '}{100 * share:.0f} %",
            ]
            change = (image - x[place]).ravel().astype("float64")
            if prefix:
                said.append(f"l_inf {np.abs(change).max():.3g}")
                said.append(f"l_2 {np.linalg.norm(change):.3g}")
            name = f"{prefix.rstrip('/') or 'clean'}, image {place}"
            yield _picture(image, bounds, name, said, right)

    def changes(name):
        """Returns the heading and the cells of what an attack changed."""
        change = found[f"{name}/x_adv"] - x
        largest = float(np.abs(change).max())
        scale = f"black to white: ±{largest:.3g}"
        scale = element("div", scale, class_="quiet")
        yield joined([f"change by {name}", scale])
        for place, image in enumerate(change):
            if found[f"{name}/answers"][place] == NOT_ATTACKED:
                yield ""
                continue
            said = f"change by {name}, image {place}"
            yield _picture(image, (-largest, largest), said)

    rows = [["clean", *seen("", x)]]
    for name in names:
        rows.append([name, *seen(f"{name}/", found[f"{name}/x_adv"])])
        rows.append([*changes(name)])
    header = [_cut(f"truth: {_class(report, label)}") for label in truth]
    return table(["", *header], rows, class_="images")


def _class(report, number):
    names = report.class_names
    return names[number] if names else str(number)


def _cut(text):
    """Returns a line that a page may cut, and has whole as a title."""
    return element("div", text, class_="cut", title=text)


def _picture(image, bounds, name, captions=(), right=True):
    return element(
        "div",
        element("img", src=source(image, *bounds), alt=name),
        *map(_cut, captions),
        class_=None if right else "wrong",
    )
