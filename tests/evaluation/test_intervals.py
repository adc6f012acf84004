import numpy as np
import pytest
from scipy import stats

from atent_keras.evaluation.intervals import clopper_pearson
from atent_keras.evaluation.intervals import favours
from atent_keras.evaluation.intervals import lower_bound


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_clopper_pearson_in_closed_form_at_the_ends(confidence):
    tail = (1 - confidence) / 2
    low, high = clopper_pearson(0, 20, confidence)
    assert low == 0 and high == pytest.approx(1 - tail ** (1 / 20))
    low, high = clopper_pearson(20, 20, confidence)
    assert low == pytest.approx(tail ** (1 / 20)) and high == 1


def test_clopper_pearson_puts_half_of_the_error_on_each_side():
    low, high = clopper_pearson(7, 50, 0.95)
    assert stats.binom.sf(6, 50, low) == pytest.approx(0.025, rel=1e-6)
    assert stats.binom.cdf(7, 50, high) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.99])
def test_clopper_pearson_covers_the_share_as_often_as_it_says(share):
    counts = np.arange(41)
    inside = [
        low <= share <= high
        for low, high in (clopper_pearson(int(k), 40) for k in counts)
    ]
    assert stats.binom.pmf(counts, 40, share) @ inside >= 0.95


def test_lower_bound():
    assert lower_bound(0, 30, 0.99) == 0
    assert lower_bound(30, 30, 0.99) == pytest.approx(0.01 ** (1 / 30))
    bound = lower_bound(12, 30, 0.99)
    assert stats.binom.sf(11, 30, bound) == pytest.approx(0.01, rel=1e-6)


def test_favours_is_the_sign_test():
    assert favours(0, 0) == 1
    assert favours(5, 0) == pytest.approx(1 / 32)
    assert favours(3, 1) == pytest.approx(5 / 16)
    assert favours(1, 3) == pytest.approx(15 / 16)
