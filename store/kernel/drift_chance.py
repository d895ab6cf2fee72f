"""How likely chance alone makes two samples of one distribution differ as much as these do.

Every function returns a p-value that errs on the side of silence: among thousands of comparisons a p of a millionth
must mean a millionth, also in small samples, in samples of very unequal sizes, and with heavy tails, where the usual
normal approximations are wrong by orders of magnitude. None depends on the order of rows. `holm` then holds all
comparisons of a run to one false-alarm rate.

Rows must be independent. Where they are not, as in hourly readings, so many together are worth one: that is `alike`, by
which every function divides what it counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from store.kernel.drift_distances import Cumulative
from store.kernel.histograms import Counts
from store.limits import DRIFT_EXPECTED_MIN

_TERMS_SPAN = 12.0
"""Deviations beyond which terms of a hypergeometric tail no longer add to it."""

_STANDING_OUT = 20
"""Categories that are tested one by one."""


def size(reference: float, current: float) -> float:
    """Returns the effective size of two samples: 1 / (1/n + 1/m); what both are worth as two of twice that size."""
    return reference * current / (reference + current)


@dataclass(frozen=True, slots=True)
class Homogeneity:
    """A test whether two rows of counts come from one distribution.

    Attributes:
        statistic: Pearson's chi-squared.
        degrees: of freedom, the cells that were compared less one.
        p: of the lesser of Pearson's statistic and that of the likelihood ratio.
    """

    statistic: float
    degrees: int
    p: float


def homogeneity(reference: Counts, current: Counts, alike: float = 1.0) -> Homogeneity | None:
    """Returns the chi-squared test of two rows of counts; None where fewer than two cells can be told apart.

    Cells in which either sample would be expected to have fewer than `DRIFT_EXPECTED_MIN` rows are taken together.
    Where counts are small, Pearson's statistic is too high for a cell that has too many, and the likelihood ratio's for
    one that has too few; the lesser of both is right in either tail.

    Source: Pearson 1900; Wilks 1938; Cochran 1954 for the expected counts.
    """
    before, after = _pooled_cells(reference, current, alike)
    if len(before) < 2:
        return None
    expected_before = (before + after) * (before.sum() / (before.sum() + after.sum()))
    expected_after = (before + after) - expected_before
    pearson = np.sum((before - expected_before) ** 2 / expected_before) + np.sum(
        (after - expected_after) ** 2 / expected_after
    )
    likelihood = 2 * (
        np.sum(special.rel_entr(before, expected_before)) + np.sum(special.rel_entr(after, expected_after))
    )
    degrees = len(before) - 1
    least = max(min(float(pearson), float(likelihood)), 0.0)
    return Homogeneity(float(pearson), degrees, float(special.chdtrc(degrees, least / alike)))


def _pooled_cells(
    reference: Counts, current: Counts, alike: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns the cells with small ones taken together; which are small is asked of both samples as one."""
    pooled = reference + current
    order = np.argsort(pooled, kind="stable")
    order = order[pooled[order] > 0]
    share = min(reference.sum(), current.sum()) / max(pooled.sum(), 1) / alike
    expected = np.cumsum(pooled[order]) * share
    # The smallest cells go together until they are enough: all that are too small, and one more if these are too few.
    small = int(np.count_nonzero(pooled[order] * share < DRIFT_EXPECTED_MIN))
    if small:
        small = max(small, int(np.searchsorted(expected, DRIFT_EXPECTED_MIN)) + 1)
    groups = [
        np.concatenate([[np.sum(each[order[:small]])] if small else [], each[order[small:]]])
        for each in (reference, current)
    ]
    return groups[0].astype(np.float64), groups[1].astype(np.float64)


def kolmogorov(distance: float, rows: tuple[int, int], alike: float = 1.0) -> float:
    """Returns the p-value of a Kolmogorov-Smirnov distance, by its limit; values that tie only make it smaller.

    Source: Kolmogorov 1933, Smirnov 1939; Massart 1990 for its being a bound in finite samples.
    """
    return float(special.kolmogorov(np.sqrt(size(*rows) / alike) * distance))


def transport(both: Cumulative, alike: float = 1.0) -> float:
    """Returns the p-value of a Wasserstein distance.

    The distance is the greatest difference in mean over all functions of slope 1 at most. Its mean under no drift is at
    most the area of sqrt(F (1 - F) / size), its variance at most that of the values over the size (the covariances of a
    Brownian bridge are positive, so the straight line is the function that varies most), and one row moves it by at
    most the range over the lesser sample. F, variance and range are those of both samples together.

    Source: Bousquet 2002, theorem 2.3 (his form of Bernstein's inequality for suprema).
    """
    mean, variance, step = _transport_noise(both, size(*both.rows) / alike)
    step *= alike
    return _bernstein(both.wasserstein() - mean, variance + 2 * step * mean, step)


def _transport_noise(both: Cumulative, at: float) -> tuple[float, float, float]:
    pooled, gaps = both.pooled[:-1], both.gaps
    mean = float(np.sum(gaps * np.sqrt(np.clip(pooled * (1 - pooled), 0, None) / at)))
    shares = np.diff(both.pooled, prepend=0.0)
    centre = float(np.sum(shares * both.middles))
    variance = float(np.sum(shares * (both.middles - centre) ** 2))
    return mean, variance / at, float(both.middles[-1] - both.middles[0]) / min(both.rows)


def transport_noise(both: Cumulative) -> float:
    """Returns what a Wasserstein distance of two samples is by chance, at most, at an effective size of 1."""
    mean, variance, _ = _transport_noise(both, 1.0)
    return mean + float(np.sqrt(variance))


def mean_shift(shift: float, variance: float, value_range: float, rows: tuple[int, int], alike: float = 1.0) -> float:
    """Returns the p-value of a difference of two means, whichever is greater.

    Args:
        variance: of both samples together, as is `value_range`, the distance from the least to the greatest value.

    Source: Bernstein 1946. Student's and Welch's tests are far off where one sample is small and has an outlier.
    """
    return min(1.0, 2 * _bernstein(abs(shift), variance * alike / size(*rows), value_range * alike / min(rows)))


def _bernstein(excess: float, variance: float, step: float) -> float:
    if excess <= 0:
        return 1.0
    return float(np.exp(-(excess**2) / (2 * (variance + step * excess / 3))))


def rates(reference: tuple[int, int], current: tuple[int, int], alike: float = 1.0) -> float:
    """Returns the p-value of two rates, whichever is greater: Fisher's exact test, twice its lesser tail.

    Args:
        reference, current: hits, and rows.

    Source: Fisher 1934.
    """
    (before, of_before), (after, of_after) = (
        (round(each[0] / alike), max(round(each[1] / alike), 1)) for each in (reference, current)
    )
    hits, rows = before + after, of_before + of_after
    if not 0 < hits < rows:
        return 1.0
    # The tail that begins at what was found, away from what was expected: of the hits here or of the hits there.
    if after * of_before >= before * of_after:
        tail = _upper_tail(after, of_after, hits, rows)
    else:
        tail = _upper_tail(before, of_before, hits, rows)
    return min(1.0, 2 * tail)


def _upper_tail(found: int, draws: int, hits: int, rows: int) -> float:
    """Returns the chance of at least so many hits among draws without replacement."""
    share = hits / rows
    deviation = np.sqrt(draws * share * (1 - share) * (rows - draws) / max(rows - 1, 1))
    last = min(draws, hits, int(max(found, draws * share) + _TERMS_SPAN * deviation) + 40)
    number = np.arange(found, last + 1, dtype=np.float64)
    logs = (
        special.gammaln(hits + 1)
        - special.gammaln(number + 1)
        - special.gammaln(hits - number + 1)
        + special.gammaln(rows - hits + 1)
        - special.gammaln(draws - number + 1)
        - special.gammaln(rows - hits - draws + number + 1)
        - special.gammaln(rows + 1)
        + special.gammaln(draws + 1)
        + special.gammaln(rows - draws + 1)
    )
    return min(1.0, float(np.sum(np.exp(logs))))


def one_category(reference: Counts, current: Counts, alike: float = 1.0) -> float:
    """Returns a p-value of the category whose rate has moved most: Fisher's exact test, times how many there are.

    A category of which a large reference has a few rows is too rare for a chi-squared test of a small sample, even when
    it becomes the only one. The test is asked of the categories that stand out, which errs on the side of silence.

    Source: Bonferroni 1936.
    """
    rows = (int(reference.sum()), int(current.sum()))
    pooled = reference + current
    expected = np.maximum(pooled * (rows[1] / sum(rows)), 1e-300)
    standing_out = np.argsort(-np.abs(current - expected) / np.sqrt(expected), kind="stable")[:_STANDING_OUT]
    least = min(
        rates((int(reference[each]), rows[0]), (int(current[each]), rows[1]), alike) for each in standing_out.tolist()
    )
    return min(1.0, least * int(np.count_nonzero(pooled)))


def unseen(reference: Counts, current: Counts, alike: float = 1.0) -> float:
    """Returns a p-value of so many current rows being of categories that the reference lacks, given all counts.

    Of c rows of a category, all are current ones with a chance of at most (m / (n + m)) ** c, and such events hinder
    each other; so Chernoff's bound holds for their sum. In columns with many rare values some are always new.

    Source: Chernoff 1952; Joag-Dev and Proschan 1983 for permutations.
    """
    counts, number = np.unique((reference + current)[(reference + current) > 0], return_counts=True)
    found = float(np.sum(current[reference == 0])) / alike
    if not found:
        return 1.0
    counts = counts / alike
    logs = counts * np.log(current.sum() / (reference.sum() + current.sum()))
    # The bound holds at every tilt: the best one lies where the chance of the rows found is no longer small.
    tilts = np.linspace(0.0, 2.0, 201)[1:, None] * -logs[0] / counts[0]
    bounds = np.sum(number * np.logaddexp(np.log1p(-np.exp(logs)), logs + tilts * counts), axis=1) - tilts[:, 0] * found
    return float(np.exp(min(0.0, float(np.min(bounds)))))


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Returns p-values that are right for all comparisons together: below a rate, all are at that rate.

    Under no drift anywhere, a run has any of them at or below a rate with at most that probability, however the
    comparisons depend on each other, as distances of one feature do. That is what an alarm is to be trusted by; the
    false discovery rate of Benjamini and Hochberg would let more false alarms through as true ones come.

    Source: Holm 1979.
    """
    ordered = sorted(chances.items(), key=lambda each: each[1])
    adjusted: dict[str, float] = {}
    least = 0.0
    for place, (name, chance) in enumerate(ordered):
        least = max(least, min(1.0, chance * (len(ordered) - place)))
        adjusted[name] = least
    return adjusted
