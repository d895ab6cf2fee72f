"""Counts of finite numbers in buckets that all histograms share, so that any two add up and compare exactly.

A bucket is all doubles of one sign that agree in their exponent and the first six bits of their mantissa: 64 buckets
to each doubling of the value, each at most 1/64 of its lower edge wide, and zero a bucket of its own. So the number of
a bucket is a shift of the double's bits, its edges are doubles, each integer up to 128 has its own, and the value that
stands for a bucket, its middle, is within 0.8 % of all that is in it.

Source: the layout is that of HdrHistogram (Tene), over the whole range of IEEE 754 doubles.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

MANTISSA_BITS: Final = 6
SHIFT: Final = 52 - MANTISSA_BITS
"""By how much the bits of a double are shifted to make the number of its bucket."""

_INFINITY: Final = 0x7FF << 52
BUCKET_MAX: Final = _INFINITY >> SHIFT
"""The greatest number of a bucket, that of the greatest double; numbers run from its negative to it, zero's is 0."""

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Edges = npt.NDArray[np.float64]


def bucket_of(value: float) -> int:
    """Returns the number of the bucket of a finite value; numbers are in the order of the values."""
    if value == 0:
        return 0
    (bits,) = struct.unpack("<Q", struct.pack("<d", abs(value)))
    number: int = (bits >> SHIFT) + 1
    return number if value > 0 else -number


def buckets_of(values: Edges) -> Numbers:
    """Returns the numbers of the buckets of finite values, as `bucket_of` has them."""
    numbers = ((np.abs(values).view(np.uint64) >> np.uint64(SHIFT)) + np.uint64(1)).astype(np.int32)
    return np.where(values == 0, np.int32(0), np.where(values < 0, -numbers, numbers))


def _edge(magnitude: Numbers) -> Edges:
    """Returns the lower edges of buckets of positive values, by their numbers less one."""
    bits = magnitude.astype(np.uint64) << np.uint64(SHIFT)
    edges: Edges = np.minimum(bits, np.uint64(_INFINITY - 1)).view(np.float64)
    return edges


def low_edges(numbers: Numbers) -> Edges:
    """Returns the least value of each bucket, that of zero being 0; for negative ones it is left out of the bucket."""
    return np.where(numbers > 0, _edge(np.maximum(numbers - 1, 0)), -_edge(np.maximum(-numbers, 0))) + 0.0


def high_edges(numbers: Numbers) -> Edges:
    """Returns the greatest value of each bucket, that of zero being 0; for positive ones it is left out of the bucket.

    The greatest double is in the last bucket, whose edge it is.
    """
    return np.where(numbers > 0, _edge(np.maximum(numbers, 0)), -_edge(np.maximum(-numbers - 1, 0))) + 0.0


def middles(numbers: Numbers, *, is_integral: bool = False) -> Edges:
    """Returns the value that stands for each bucket: the middle of all that it can hold.

    Args:
        is_integral: only integers were counted, so that one which has a bucket to itself stands for it.
    """
    low, high = low_edges(numbers), high_edges(numbers)
    if is_integral:
        # The edge that is farther from zero is not in the bucket.
        low, high = (
            np.where(numbers < 0, np.floor(low) + 1, np.ceil(low)),
            np.where(numbers > 0, np.ceil(high) - 1, np.floor(high)),
        )
    # Halves first: the sum of two great doubles is infinite.
    middle = low / 2 + high / 2
    return np.trunc(middle) if is_integral else middle


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How many finite numbers lie in each bucket.

    Shapes: `numbers` (ascending, distinct) and `counts` (above zero) have one entry per bucket that is not empty.
    """

    numbers: Numbers
    counts: Counts

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Histogram)
            and np.array_equal(self.numbers, other.numbers)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(cls) -> "Histogram":
        """Returns the histogram of no numbers."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int64))

    @classmethod
    def of(cls, values: Edges) -> "Histogram":
        """Returns the histogram of finite numbers."""
        numbers, counts = np.unique(buckets_of(values), return_counts=True)
        return cls(numbers, counts.astype(np.int64))

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return int(self.counts.sum())

    def merge(self, other: "Histogram") -> "Histogram":
        """Returns the histogram of the numbers of both."""
        numbers, places = np.unique(np.concatenate([self.numbers, other.numbers]), return_inverse=True)
        counts = np.zeros(len(numbers), np.int64)
        np.add.at(counts, places, np.concatenate([self.counts, other.counts]))
        return Histogram(numbers, counts)

    def quantile(self, share: float, *, is_integral: bool = False) -> float | None:
        """Returns a number that `share` of all are not above, within 0.8 %: the middle of its bucket; None of none.

        The rank is the nearest one, as in SQL's `percentile_disc`: the least number whose rank is at least
        `share` of all.
        """
        total = self.total
        if not total:
            return None
        rank = max(1, int(np.ceil(share * total)))
        place = int(np.searchsorted(np.cumsum(self.counts), rank))
        return float(middles(self.numbers[place : place + 1], is_integral=is_integral)[0])
