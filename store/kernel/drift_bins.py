"""Bins on which two distributions are compared: of about equal mass in one of them, with edges that both share.

A bin is a run of a histogram's buckets, so that counts on it are exact for any histogram. A value that is heavy, with
a bin's share or more by itself, is a bin of its own, and so is zero from a hundredth on: columns of few values,
constant ones, and ones that are mostly zero are compared value by value. Where a heavy value stands alone, what lies
beside it is a bin too, even if nothing lies there: a constant that becomes another one has moved. The outer bins are
open.
"""

from dataclasses import dataclass

import numpy as np

from store.kernel.histograms import BUCKET_MAX, Counts, Edges, Histogram, Numbers, high_edges, low_edges

_ZERO_SHARE = 100
"""Zero is a bin of its own if one in so many values is zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Runs of buckets that hold every finite number.

    Shapes: `starts` has the number of the first bucket of each bin, ascending, beginning with that of the least double.
    """

    starts: Numbers

    @classmethod
    def of_equal_mass(cls, histogram: Histogram, bins: int) -> "Bins":
        """Returns about so many bins that hold about equal shares of a histogram.

        A bucket lies in the bin in which the middle one of its values, by rank, would lie if shares were equal.
        """
        numbers, counts, total = histogram.numbers, histogram.counts, histogram.total
        if not total:
            return cls(np.array([-BUCKET_MAX], np.int32))
        is_heavy = (counts * bins >= total) | ((numbers == 0) & (counts * _ZERO_SHARE >= total))
        places = (2 * np.cumsum(counts) - counts) * bins // (2 * total)
        # Between two heavy values, or beside one, the border is the heavy value's own.
        is_border = (np.diff(places) > 0) & ~is_heavy[:-1] & ~is_heavy[1:]
        heavy = numbers[is_heavy]
        starts = np.unique(np.concatenate([[-BUCKET_MAX], numbers[1:][is_border], heavy, heavy + 1]))
        return cls(starts[starts <= BUCKET_MAX].astype(np.int32))

    def counts(self, histogram: Histogram) -> Counts:
        """Returns how many numbers of a histogram lie in each bin."""
        places = np.searchsorted(self.starts, histogram.numbers, side="right") - 1
        counts = np.zeros(len(self.starts), np.int64)
        np.add.at(counts, places, histogram.counts)
        return counts

    @property
    def edges(self) -> tuple[Edges, Edges]:
        """The least and the greatest number that each bin can hold."""
        lasts = np.append(self.starts[1:] - 1, np.int32(BUCKET_MAX)).astype(np.int32)
        return low_edges(self.starts), high_edges(lasts)
