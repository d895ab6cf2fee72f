"""The two approximations, each a function of the values alone, in whatever order and groups they come.

Distinct values are counted by the smallest of their hashes: up to `DISTINCT_HASHES_MAX` of them the count is exact,
beyond it is estimated from how far apart they lie. Percentiles are read from counts per bucket, whose edges grow by
the 35th root of two, so that a bucket's middle is within 1 % of all that is in it.

Both are written for arrays and for single values; the two agree to the bit, as neither takes a logarithm.

Source: Bar-Yossef et al., "Counting distinct elements in a data stream" (2002), the k minimum values of a theta
sketch; Masson et al., "DDSketch" (2019). SplitMix64: Steele et al. (2014).
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt

DISTINCT_HASHES_MAX: Final = 8_192
"""Hashes that are kept: the estimate beyond them has a standard error of 1.1 %."""

_HASH_SPACE: Final = 2**64
_MASK: Final = _HASH_SPACE - 1
_STEPS: Final = 35
"""Buckets per octave: 2^(1/35) is 1.02000, so a bucket's middle is 0.99 % off its edges."""

_ZERO_BUCKET: Final = 0
_BUCKET_SHIFT: Final = 40_000
"""Makes the numbers of all buckets of positive values positive: the least double is 2^-1074."""

INFINITY_BUCKET: Final = 2 * _BUCKET_SHIFT


def _root_of_two(step: int) -> float:
    """Returns 2^(step/35), rounded down, by integers alone, so that it is the same number everywhere."""
    low, high = 2**52, 2**53
    target = 2 ** (step + 52 * _STEPS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**_STEPS <= target else (low, middle)
    return math.ldexp(low, -52)


_EDGES: Final = [_root_of_two(step) for step in range(_STEPS)]
_UPPER_EDGES: Final = [*_EDGES[1:], 2.0]
_MIDDLES: Final = [2 * low * high / (low + high) for low, high in zip(_EDGES, _UPPER_EDGES, strict=True)]
_EDGE_ARRAY: Final = np.array(_EDGES)


def bucket_of(value: float) -> int:
    """Returns the number of the bucket of a value that is no NaN; numbers are in the order of the values."""
    if value == 0:
        return _ZERO_BUCKET
    if math.isinf(value):
        return INFINITY_BUCKET if value > 0 else -INFINITY_BUCKET
    mantissa, exponent = math.frexp(abs(value))
    number = (exponent - 1) * _STEPS + bisect_right(_EDGES, 2 * mantissa) - 1 + _BUCKET_SHIFT
    return number if value > 0 else -number


def buckets_of(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns the numbers of the buckets of values without a NaN, as `bucket_of` has them."""
    finite = np.where(np.isinf(values), 1.0, values)
    mantissa, exponent = np.frexp(np.abs(finite))
    steps = np.searchsorted(_EDGE_ARRAY, 2 * mantissa, side="right") - 1
    numbers = (exponent.astype(np.int64) - 1) * _STEPS + steps + _BUCKET_SHIFT
    numbers = np.where(np.isinf(values), INFINITY_BUCKET, np.where(values == 0, _ZERO_BUCKET, numbers))
    signed: npt.NDArray[np.int64] = np.where(values < 0, -numbers, numbers)
    return signed


def bucket_value(number: int) -> float:
    """Returns the value that stands for a bucket: within 1 % of all that is in it."""
    if number == _ZERO_BUCKET:
        return 0.0
    if abs(number) == INFINITY_BUCKET:
        return math.inf if number > 0 else -math.inf
    octave, step = divmod(abs(number) - _BUCKET_SHIFT, _STEPS)
    try:
        value = math.ldexp(_MIDDLES[step], octave)
    except OverflowError:
        value = math.ldexp(_EDGES[step], octave)
    return value if number > 0 else -value


def rank_of(percent: str, count: int) -> int:
    """Returns the rank of a percentile among `count` values, counted from 1: the nearest one (as `quantile_disc`)."""
    return max(1, math.ceil(Fraction(percent) * count / 100))


def percentile(buckets: Mapping[int, int], percent: str) -> float:
    """Returns a percentile from the counts of at least one bucket, within 1 %."""
    remaining = rank_of(percent, sum(buckets.values()))
    number = 0
    for number in sorted(buckets):
        remaining -= buckets[number]
        if remaining <= 0:
            break
    return bucket_value(number)


def hash_of(value: Any) -> int:
    """Returns a 64-bit hash of a value: integers, truths and floats by their bits, text and bytes by content."""
    if isinstance(value, int):
        return _mixed(int(value) & _MASK)
    if isinstance(value, float):
        return _mixed(int(np.float64(value + 0.0).view(np.uint64)))
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "big")


def hashes_of_numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Returns the hashes of an array of int64 or float64, as `hash_of` has them; the array has no NaN."""
    bits = (values + 0.0).view(np.uint64) if values.dtype == np.float64 else values.astype(np.int64).view(np.uint64)
    with np.errstate(over="ignore"):
        mixed = bits + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return result


def _mixed(bits: int) -> int:
    mixed = (bits + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def smallest(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Returns the distinct ones of some hashes in ascending order, as many as are kept."""
    return np.unique(hashes)[:DISTINCT_HASHES_MAX]


def distinct_count(hashes: npt.NDArray[np.uint64]) -> int:
    """Returns how many distinct values there are, from the smallest of their hashes as `smallest` gives them."""
    if len(hashes) < DISTINCT_HASHES_MAX:
        return len(hashes)
    return estimated_distinct(int(hashes[-1]))


def estimated_distinct(largest_kept: int) -> int:
    """Returns how many distinct values there are, from the greatest of as many hashes as are kept."""
    # The largest of k kept hashes lies, on average, at the k-th part of the distinct ones' space.
    return round((DISTINCT_HASHES_MAX - 1) * _HASH_SPACE / (largest_kept + 1))
