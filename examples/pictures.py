"""Pictures of adversarial images."""

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()


def draw_images(networks, attack, x, y, path, title, names=None, seed=0):
    """Draws clean images and each network's adversarial ones.

    Args:
        networks: Dictionary from names to networks.
        attack: An `atent_keras.attacks` attack.
        x: Images, `(n, height, width, channels)`.
        y: Integer labels, `(n,)`.
        path: Where the picture goes.
        title: String above it.
        names: Names of the classes. Defaults to `None`, their numbers.
        seed: Seed of the attack. Defaults to 0.
    """
    names = names or [str(i) for i in range(10)]
    rows = []
    for name, network in networks.items():
        x_adv = np.asarray(attack(network, x, y, seed=seed))
        rows += [(f"{name}\nclean", network, np.asarray(x))]
        rows += [(f"{name}\nattacked", network, x_adv)]
    figure, axes = pyplot.subplots(
        len(rows), len(x), figsize=(1.3 * len(x), 1.55 * len(rows) + 0.3)
    )
    for row, (label, network, images) in zip(axes, rows):
        answers = np.argmax(network.predict(images, verbose=0), axis=-1)
        row[0].set_ylabel(label)
        for axis, image, answer, truth in zip(row, images, answers, y):
            axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
            right = answer == truth
            axis.set_title(
                f"{names[answer]}: {'right' if right else 'wrong'}",
                # Orange that colour-blind eyes can tell from black.
                color="black" if right else "#D55E00",
                fontsize=10 if len(names[answer]) < 3 else 7,
            )
            axis.set(xticks=[], yticks=[])
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
