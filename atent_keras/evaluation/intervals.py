"""What a share of so many examples says about all the others."""

from scipy import stats


def clopper_pearson(successes, trials, confidence=0.95):
    """Returns the exact binomial confidence interval of a share.

    Args:
        successes: Integer, at most `trials`.
        trials: Integer, at least 1.
        confidence: Float in (0, 1), how often such an interval holds the true
            share. Defaults to 0.95.

    Returns:
        Pair of floats in [0, 1].

    References:
    - Clopper & Pearson, "The use of confidence or fiducial limits illustrated
      in the case of the binomial", Biometrika 1934.
    """
    found = stats.binomtest(successes, trials)
    low, high = found.proportion_ci(confidence, method="exact")
    return float(low), float(high)


def lower_bound(successes, trials, confidence):
    """Returns the one-sided Clopper-Pearson lower bound of a share."""
    found = stats.binomtest(successes, trials, alternative="greater")
    return float(found.proportion_ci(confidence, method="exact").low)


def favours(one, other):
    """Returns how likely chance alone gives `one` so many more than `other`.

    The exact sign test: of the examples on which two attacks differ, each has
    as many as the other if neither is better (McNemar's test).

    Args:
        one: Integer, the number of examples that only the one fooled.
        other: Integer, the number of those that only the other fooled.
    """
    if not one + other:
        return 1.0
    return float(
        stats.binomtest(one, one + other, alternative="greater").pvalue
    )
