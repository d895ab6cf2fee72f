"""What a profile of some values has to be, told slowly: fractions, counters, and a sketch that is fed each value."""

import math
import zlib
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import datasketches

LG_K = 12
GROUPS = 1_024


@dataclass(frozen=True)
class ExpectedNumbers:
    """Of the finite ones; mean and squares are exact."""

    buckets: dict[int, int]
    least: Any
    greatest: Any
    mean: Fraction | None
    squares: Fraction | None
    is_integral: bool
    nans: int
    positive: int
    negative: int
    sketch: bytes


def bucket(value: float) -> int:
    """The number of the bucket of a finite number, by its definition: 64 to each power of two, evenly wide."""
    if value == 0:
        return 0
    exact = abs(Fraction(value))
    exponent = max(math.frexp(value)[1] - 1, -1022)
    low = Fraction(2) ** exponent
    if exact < low:  # below the least normal number the buckets stay as wide as there
        number = math.floor(exact / low * 64) + 1
    else:
        number = (exponent + 1023) * 64 + math.floor((exact / low - 1) * 64) + 1
    return number if value > 0 else -number


def sketch_of(values: Sequence[Any]) -> bytes:
    """The distinct values, each given to the library by itself."""
    sketch = datasketches.update_theta_sketch(LG_K)
    for value in values:
        sketch.update(value)
    if sketch.is_empty():
        return b""
    sketch.trim()
    return bytes(sketch.compact(ordered=True).serialize())


def hashed(value: Any) -> Any:
    """A number as the library is given it: as a double if it is one, else as an integer of 64 bits with a sign."""
    if isinstance(value, float) or abs(value) < 2**53:
        return float(value)
    return value if value < 2**63 else value - 2**64


def numbers(values: Sequence[Any]) -> ExpectedNumbers:
    """What is known of numbers."""
    finite = [value for value in values if math.isfinite(value)]
    exact = [Fraction(value) for value in finite]
    mean = sum(exact) / len(exact) if exact else None
    return ExpectedNumbers(
        dict(Counter(bucket(float(value)) for value in finite)),
        min(finite, default=None),
        max(finite, default=None),
        mean,
        sum((each - mean) ** 2 for each in exact) if mean is not None else None,
        all(each.denominator == 1 for each in exact),
        sum(math.isnan(value) for value in values),
        sum(value == math.inf for value in values),
        sum(value == -math.inf for value in values),
        sketch_of([hashed(value) for value in finite]),
    )


def groups(counts: Counter[str]) -> list[int]:
    """How often each group of texts came."""
    found = [0] * GROUPS
    for text, count in counts.items():
        found[zlib.crc32(text.encode()) % GROUPS] += count
    return found


def counted(values: Sequence[Hashable]) -> Counter[Any]:
    """How often each value came."""
    return Counter(values)
