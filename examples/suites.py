"""The comparisons that `compare.py` knows by name."""

from typing import NamedTuple

import atent_keras as ak

# Images that a run of the command lines trains on; the rest validates.
TRAINING_IMAGES = {"digits": 1_097, "mnist": 55_000, "cifar10": 45_000}


class Judge(NamedTuple):
    """How every network of a comparison is judged, in the same way.

    Attributes:
        dataset: `"digits"`, `"mnist"` or `"cifar10"`.
        norm: `"linf"` or `"l2"`.
        epsilon: Float, the radius of the attacks, in pixels of [0, 1].
        pgd: String, the attack of the literature.
        pgd_images: Integer, how many test images it attacks, at most.
        images: Integer, how many of them all the rest sees, the first ones:
            AutoAttack, the checks for masked gradients, and the curve.
        radii: Floats, those of the curve.
        sigma: Float, the noise of the certified accuracy.
        certified_images: Integer, how many images are certified.
        certified_samples: Integer, noisy images for each of them.
    """

    dataset: str
    norm: str
    epsilon: float
    pgd: str = "PGD-40"
    pgd_images: int = 10_000
    images: int = 500
    radii: tuple = ()
    sigma: float = 0.25
    certified_images: int = 100
    certified_samples: int = 1_000

    def ball(self, radius=None):
        """The threat model, or one of another radius."""
        return _NORMS[self.norm](self.epsilon if radius is None else radius)

    def limited(self, images):
        """The same judge of the first so many images only."""
        return self._replace(
            pgd_images=images,
            images=images,
            certified_images=min(images, self.certified_images),
        )


_NORMS = {"linf": ak.threat_models.Linf, "l2": ak.threat_models.L2}


def judge(dataset, norm, epsilon):
    """The judge of runs that belong to no suite."""
    return Judge(
        dataset,
        norm,
        epsilon,
        **{
            "digits": {"pgd_images": 500},
            "mnist": {},
            "cifar10": {"pgd": "PGD-20", "sigma": 0.12},
        }[dataset],
        radii=tuple(
            float(f"{epsilon * share:.4g}")
            for share in SHARES
            # From 1 on, an l_inf ball would be all of the pixels' range.
            if norm != "linf" or epsilon * share < 1
        ),
    )


SHARES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of the radius, along the curve


class Suite(NamedTuple):
    """Networks to be trained, and their judge.

    Attributes:
        judge: `Judge`.
        rows: Dictionary from the name of a row to that of its flag file. The
            network of the row `"plain"` is the surrogate of the checks for
            masked gradients.
        seeds: Integers: each row is trained once with each.
        published: Dictionary from a source to what it claims, in percent, as
            pairs of a figure's name and value: to stand beside.
    """

    judge: Judge
    rows: dict
    seeds: tuple = (0,)
    published: dict = {}


_ATENT = "ATENT (Jagatap et al. 2022)"
_TRADES = "TRADES (Zhang et al. 2019)"
_MMA = "MMA (Ding et al. 2020)"
_LETHESEC = "ResNet-18 (trained by LetheSec)"
_MADRY = "PGD training (Madry et al. 2018)"

SUITES = {
    "digits_linf": Suite(
        judge("digits", "linf", 0.15),
        {
            "plain": "digits_plain",
            "Fast-AT": "digits_linf_fast",
            "PGD training": "digits_linf_pgd",
            "TRADES": "digits_linf_trades",
            "MART": "digits_linf_mart",
            "ATENT": "digits_linf",
            "TRADES with AWP": "digits_linf_trades_awp",
            "ATENT with AWP": "digits_linf_awp",
        },
        seeds=(0, 1, 2),
    ),
    "mnist_linf": Suite(
        judge("mnist", "linf", 0.3),
        {
            "plain": "mnist_plain_cpu",
            "ATENT": "mnist_linf_cpu",
            "PGD training": "mnist_linf_pgd_cpu",
            "TRADES": "mnist_linf_trades_cpu",
            "ATENT wide": "mnist_linf_wide_cpu",
            "ATENT wide shrinking": "mnist_linf_shrinking_cpu",
            "PGD training wide shrinking": "mnist_linf_pgd_shrinking_cpu",
            "MART": "mnist_linf_mart_cpu",
            "ATENT with AWP": "mnist_linf_awp_cpu",
            "TRADES with AWP": "mnist_linf_trades_awp_cpu",
            "Fast-AT": "mnist_linf_fast_cpu",
            "ATENT 80 steps": "mnist_linf",
        },
        published={
            _ATENT: {"clean": 99.45, "PGD-40": 96.40},
            _TRADES: {"clean": 99.48, "AutoAttack": 92.81},
            _MMA: {"clean": 98.95, "AutoAttack": 91.40},
            _MADRY: {"clean": 98.53, "AutoAttack": 88.50},
        },
    ),
    "mnist_l2": Suite(
        judge("mnist", "l2", 2.0),
        {
            "plain": "mnist_l2_plain_cpu",
            "ATENT": "mnist_l2_cpu",
            "PGD training": "mnist_l2_pgd_cpu",
            "TRADES": "mnist_l2_trades_cpu",
            "MART": "mnist_l2_mart_cpu",
            "ATENT with AWP": "mnist_l2_awp_cpu",
            "ATENT 40 steps": "mnist_l2",
        },
        published={
            _ATENT: {"clean": 98.66, "PGD-40": 79.30},
            f"{_MMA}, as {_ATENT} quotes it": {"PGD-40": 73.02},
        },
    ),
    "cifar10_linf_small": Suite(
        judge("cifar10", "linf", 8 / 255),
        {
            "plain": "cifar10_plain",
            "ATENT": "cifar10_linf_small",
            "PGD training": "cifar10_linf_pgd_small",
            "TRADES": "cifar10_linf_trades_small",
            "MART": "cifar10_linf_mart_small",
            "ATENT with AWP": "cifar10_linf_awp_small",
            "Fast-AT": "cifar10_linf_fast_small",
        },
    ),
    "cifar10_linf": Suite(
        judge("cifar10", "linf", 8 / 255),
        {
            "plain": "cifar10_plain_gpu",
            "ATENT": "cifar10_linf_gpu",
            "PGD training": "cifar10_linf_pgd_gpu",
            "TRADES": "cifar10_linf_trades_gpu",
            "MART": "cifar10_linf_mart_gpu",
            "ATENT with AWP": "cifar10_linf_awp_gpu",
            "ATENT WRN-34-10": "cifar10_linf",
        },
        published={
            f"{_ATENT}, WRN-34-10, at 0.031": {"clean": 85.67, "PGD-20": 57.28},
            f"PGD training, {_LETHESEC}": {"clean": 82.57, "PGD-20": 51.28},
            f"TRADES, {_LETHESEC}": {"clean": 80.86, "PGD-20": 51.23},
            f"MART, {_LETHESEC}": {"clean": 78.59, "PGD-20": 54.87},
        },
    ),
    "cifar10_l2": Suite(
        judge("cifar10", "l2", 0.435),
        {
            "plain": "cifar10_plain_gpu",
            "ATENT": "cifar10_l2_gpu",
            "PGD training": "cifar10_l2_pgd_gpu",
            "TRADES": "cifar10_l2_trades_gpu",
            "MART": "cifar10_l2_mart_gpu",
            "ATENT with AWP": "cifar10_l2_awp_gpu",
            "ATENT ResNet-20": "cifar10_l2",
        },
        published={
            f"{_ATENT}, ResNet-18, 64.55 under a weaker PGD": {"clean": 72.10},
        },
    ),
}
