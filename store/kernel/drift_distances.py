"""How far two distributions lie apart; each distance is zero for equal ones and depends on no order.

PSI, Jensen-Shannon and chi-squared compare counts on cells (bins of numbers, or categories) that both share.
Kolmogorov-Smirnov and Wasserstein compare all buckets of two histograms: what they give is exact for samples that are
rounded to the middles of their buckets. Against the raw samples, Kolmogorov-Smirnov is lower by at most the share that
lies in one bucket, since it looks between buckets only, and Wasserstein differs by at most 0.8 % of the values.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from store.kernel.histograms import Counts, Edges, Histogram, middles

_EMPTY_ROWS = 0.5
"""Rows that an empty cell counts as in PSI, which would be infinite otherwise."""

Shares = npt.NDArray[np.float64]


def psi(reference: Counts, current: Counts) -> float:
    """Returns the population stability index: the sum of (c - r) ln(c / r) over the shares of all cells.

    A cell that is empty on one side counts there as half a row, so the index is finite; one that is empty on both
    sides takes no part. It is symmetric, and 0 only for equal shares.

    Source: Kullback and Leibler 1951 (their divergence J); the name is that of credit scoring.
    """
    is_used = (reference > 0) | (current > 0)
    before = np.maximum(reference[is_used], _EMPTY_ROWS) / reference.sum()
    after = np.maximum(current[is_used], _EMPTY_ROWS) / current.sum()
    return float(np.sum((after - before) * np.log(after / before)))


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Returns the Jensen-Shannon distance in base 2, the root of the divergence: 0 for equal shares, 1 for disjoint.

    Source: Lin 1991; Endres and Schindelin 2003 for the root, which is a metric.
    """
    before, after = reference / reference.sum(), current / current.sum()
    both = (before + after) / 2
    divergence = (_bits(before, both) + _bits(after, both)) / 2
    return float(np.sqrt(min(max(divergence, 0.0), 1.0)))


def _bits(shares: Shares, of: Shares) -> float:
    """Returns the Kullback-Leibler divergence in base 2."""
    some = shares > 0
    return float(np.sum(shares[some] * np.log2(shares[some] / of[some])))


@dataclass(frozen=True, slots=True, eq=False)
class Cumulative:
    """Two histograms of numbers, each with at least one, on the buckets that either has.

    Shapes: `before` and `after` are the cumulated shares of reference and current; `middles` of the buckets, ascending.

    Attributes:
        middles: divided by `scale`, so that no sum of them is infinite.
        rows: of the reference, of the current one.
    """

    middles: Edges
    scale: float
    before: Shares
    after: Shares
    rows: tuple[int, int]

    @classmethod
    def of(cls, reference: Histogram, current: Histogram, *, is_integral: bool) -> "Cumulative":
        """Returns both on shared buckets."""
        numbers = np.union1d(reference.numbers, current.numbers).astype(np.int32)
        values = middles(numbers, is_integral=is_integral)
        scale = float(np.max(np.abs(values))) or 1.0
        rows = (reference.total, current.total)
        before, after = (_cumulated(each, numbers) / each.total for each in (reference, current))
        return cls(values / scale, scale, before, after, rows)

    @property
    def pooled(self) -> Shares:
        """The cumulated shares of both together."""
        before, after = self.rows
        return (self.before * before + self.after * after) / (before + after)

    @property
    def gaps(self) -> Edges:
        """The distance from each middle to the next."""
        return np.diff(self.middles)

    def kolmogorov_smirnov(self) -> float:
        """Returns the greatest distance of the cumulated shares."""
        return float(np.max(np.abs(self.after - self.before)))

    def wasserstein(self) -> float:
        """Returns the least work that makes one of the other, the area between cumulated shares; in scaled units."""
        return float(np.sum(np.abs(self.after - self.before)[:-1] * self.gaps))

    def spread(self) -> float:
        """Returns the standard deviation of the reference's rounded values, in scaled units; 0 where all are one."""
        shares = np.diff(self.before, prepend=0.0)
        mean = float(np.sum(shares * self.middles))
        return float(np.sqrt(np.sum(shares * (self.middles - mean) ** 2))) if np.count_nonzero(shares) > 1 else 0.0


def _cumulated(histogram: Histogram, numbers: npt.NDArray[np.int32]) -> Counts:
    counts = np.zeros(len(numbers), np.int64)
    counts[np.searchsorted(numbers, histogram.numbers)] = histogram.counts
    return np.cumsum(counts)
