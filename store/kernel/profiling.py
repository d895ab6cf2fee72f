"""Profiles in the making: numbers, texts and instants of one column are added batch by batch, in any order.

What comes out is the same in whatever batches values came and whichever of several sums took them, but for the rounding
of means and standard deviations, and for the most frequent values where there are too many different ones to count.
"""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import datasketches
import numpy as np
import numpy.typing as npt

from store.kernel.histograms import BUCKET_MAX, Histogram, bucket_of
from store.kernel.instants import Floats, Ints
from store.kernel.profiles import (
    DISTINCT_LG_K,
    Categories,
    Moments,
    Numbers,
    Spread,
    group_of,
)
from store.limits import CATEGORIES_MAX, CATEGORY_CHARACTERS_MAX, CATEGORY_GROUPS, TOP_MAX

_K: Final = 1 << DISTINCT_LG_K
_ALL_HASHES: Final = 2**63 - 1
_SLOT_BITS_FIRST: Final = 6
_TAKEN_MAX: Final = 2 * _K
"""Distinct values that are held before all but the least hashes are given up; each time the bar is about halved."""
_TOP_LG_K: Final = 12
"""Of the sketch of frequent texts: 3,072 counters, so that a count is short by one in 1,170 of all rows at most."""
_RARE: Final = 4_096
"""A text that is rarer than this in a batch is none of the most frequent, and would only push them out."""

_LOST_MAX: Final = 0.5
"""Of a sum of squares to a shift what may be due to the shift: then one bit of 53 is lost."""
_SPARE_BUCKETS: Final = 64
"""Buckets of one power of two."""
_ONE_KIND: Final = np.empty(0, np.uint8)
_EXACT_END: Final = 2**53
"""Integers below this in magnitude are doubles too, and counted as such: 1 and 1.0 are the same number."""

Kinds = npt.NDArray[np.uint8]

_loops: Any = None


def _compiled() -> Any:
    """Returns the compiled loops."""
    global _loops  # noqa: PLW0603 - a module that is imported late, which Python itself keeps once
    if _loops is None:
        from store.kernel import profiling_loops

        _loops = profiling_loops
    return _loops


# --- distinct values ----------------------------------------------------------------------------


class DistinctNumbers:
    """How many different numbers there are: those with the least hashes are kept."""

    def __init__(self) -> None:
        self.bits = _SLOT_BITS_FIRST
        self.table = np.zeros((1 << self.bits, 3), np.int64)
        self.state = np.array([0, 1 << (self.bits - 1), _ALL_HASHES, self.bits], np.int64)

    def add(self, values: Ints, kind: int, kinds: Kinds = _ONE_KIND) -> None:
        """Adds integers (kind 0), or doubles by their bits (kind 1); `kinds` has one for each if they differ."""
        done, loops = 0, _compiled()
        while (done := loops.add_distinct(values, kinds, kind, done, self.table, self.state)) < len(values):
            self._make_room()

    def _make_room(self) -> None:
        held = self.held()
        if len(held) >= _TAKEN_MAX:
            # One more than a sketch of K keeps, whose hash is its theta.
            self.state[2] = np.partition(held[:, 0], _K)[_K]
            held = held[held[:, 0] <= self.state[2]]
        else:
            self.bits += 1
            self.table = np.empty((1 << self.bits, 3), np.int64)
        self.table[:] = 0
        self.state[:] = 0, 1 << (self.bits - 1), self.state[2], self.bits
        self._take(held)

    def held(self) -> Ints:
        """Returns what is kept. Shape: hash, value and kind, a row for each."""
        return self.table[self.table[:, 0] > 0]

    def _take(self, held: Ints) -> None:
        self.add(np.ascontiguousarray(held[:, 1]), 0, held[:, 2].astype(np.uint8))

    def merge(self, other: "DistinctNumbers") -> None:
        """Adds the numbers of another."""
        self.state[2] = min(self.state[2], other.state[2])
        self._take(other.held())

    def sketch(self) -> bytes:
        """Returns them as a sketch of Apache DataSketches, b'' of none."""
        held = self.held()
        held = held[held[:, 0] <= self.state[2]]
        if not len(held):
            return b""
        sketch = datasketches.update_theta_sketch(DISTINCT_LG_K)
        for value in held[held[:, 2] == 0, 1].tolist():
            sketch.update(value)
        for value in np.ascontiguousarray(held[held[:, 2] == 1, 1]).view(np.float64).tolist():
            sketch.update(value)
        return _serialized(sketch)


def _serialized(sketch: Any) -> bytes:
    if sketch.is_empty():
        return b""
    sketch.trim()
    return bytes(sketch.compact(ordered=True).serialize())


# --- numbers ------------------------------------------------------------------------------------


class _Buckets:
    """Counts of numbers by bucket: between the least and the greatest magnitude there has been, for both signs."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, 0), np.int64)
        self.first = 1
        self.unusual = np.zeros(4, np.int64)

    def add(self, values: Floats) -> None:
        """Adds doubles, whatever they are."""
        bits, done, loops = values.view(np.int64), 0, _compiled()
        while (done := loops.count_buckets(bits, done, self.counts, self.first, self.unusual)) < len(bits):
            magnitude = abs(bucket_of(float(values[done])))
            self._make_room(magnitude, magnitude)

    def _make_room(self, low: int, high: int) -> None:
        """Makes room for buckets by the magnitudes of their numbers, and for as many as there are beside them."""
        width = self.counts.shape[1]
        if width:
            low, high = min(low, self.first), max(high, self.first + width - 1)
        spare = max(_SPARE_BUCKETS, width // 2)
        begin, end = max(1, low - spare), min(BUCKET_MAX, high + spare)
        wider = np.zeros((2, end - begin + 1), np.int64)
        if width:
            wider[:, self.first - begin : self.first - begin + width] = self.counts
        self.counts, self.first = wider, begin

    def merge(self, other: "_Buckets") -> None:
        """Adds the counts of another."""
        self.unusual += other.unusual
        width = other.counts.shape[1]
        if not width:
            return
        last = other.first + width - 1
        if other.first < self.first or last >= self.first + self.counts.shape[1]:
            self._make_room(other.first, last)
        begin = other.first - self.first
        self.counts[:, begin : begin + width] += other.counts

    def histogram(self) -> Histogram:
        """Returns the finite ones."""
        positive, negative = (np.flatnonzero(counts) for counts in self.counts)
        zeros = self.unusual[3:][self.unusual[3:] > 0]
        numbers = [-(negative + self.first)[::-1], np.zeros(len(zeros), np.int64), positive + self.first]
        counts = [self.counts[1][negative][::-1], zeros, self.counts[0][positive]]
        return Histogram(np.concatenate(numbers).astype(np.int32), np.concatenate(counts))


class NumberSum:
    """Numbers of one column."""

    def __init__(self, *, has_distinct: bool = True) -> None:
        self.buckets = _Buckets()
        self.spread = Spread(0, 0.0, 0.0)
        # Means of integers are kept as differences to one of them: near 2^63 a double has no digit behind the point.
        self.base: int | None = None
        self.least: float | None = None
        self.greatest: float | None = None
        self.is_integral = True
        self.distinct = DistinctNumbers() if has_distinct else None

    def add_floats(self, values: Floats) -> None:
        """Adds doubles, NaN and infinities among them."""
        if not len(values):
            return
        loops, values = _compiled(), np.ascontiguousarray(values, np.float64)
        self.buckets.add(values)
        shift = self.spread.mean if self.spread.number else _first_finite(values)
        finite, least, greatest, total, squares, is_integral = loops.sum_floats(values, shift)
        if finite:
            # Zero is one value, whatever its sign.
            self._take(least + 0.0, greatest + 0.0)
            self.is_integral &= is_integral
            self.spread = self.spread.merge(self._spread_of(values, Spread(finite, total / finite, squares), shift))
        if self.distinct is not None:
            there = values if finite == len(values) else values[np.isfinite(values)]
            # Both zeros become one.
            self.distinct.add((there + 0.0).view(np.int64), 1)

    @staticmethod
    def _spread_of(values: Floats, shifted: Spread, shift: float) -> Spread:
        """Returns the spread of doubles; `shifted` has the mean of their differences to a shift, and their squares."""
        mean = shift + shifted.mean
        lost = shifted.mean * shifted.mean * shifted.number
        # The shift is mostly near the mean, so that next to nothing cancels; where it is not, a second pass is exact.
        if math.isfinite(mean) and lost <= _LOST_MAX * shifted.squares < math.inf:
            return Spread(shifted.number, mean, shifted.squares - lost)
        if not math.isfinite(mean):
            # Sums of the greatest doubles are infinite; their parts of a mean are not.
            mean = math.fsum(values[np.isfinite(values)] / shifted.number)
        return Spread(shifted.number, mean, _compiled().square_floats(values, mean))

    def add_integers(self, values: npt.NDArray[Any]) -> None:
        """Adds integers of any width, with a sign or without."""
        if not len(values):
            return
        loops = _compiled()
        values = np.ascontiguousarray(values, np.uint64 if values.dtype == np.uint64 else np.int64)
        doubles = values.astype(np.float64)
        self.buckets.add(doubles)
        if self.base is None:
            self.base = int(values[0])
        base = values.dtype.type(self.base)
        least, greatest, total = loops.sum_integers(values, base)
        self._take(int(least), int(greatest))
        mean = total / len(values)
        self.spread = self.spread.merge(Spread(len(values), mean, loops.square_integers(values, base, mean)))
        if self.distinct is not None and least > -_EXACT_END and greatest < _EXACT_END:
            self.distinct.add(doubles.view(np.int64), 1)
        elif self.distinct is not None:
            is_exact = np.abs(doubles) < _EXACT_END
            mixed = np.where(is_exact, doubles.view(np.int64), values.view(np.int64))
            self.distinct.add(mixed, 0, is_exact.astype(np.uint8))

    def _take(self, least: float, greatest: float) -> None:
        self.least = least if self.least is None else min(self.least, least)
        self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)

    def merge(self, other: "NumberSum") -> None:
        """Adds the numbers of another."""
        self.buckets.merge(other.buckets)
        spread = other.spread
        if other.base is not None:
            self.base = other.base if self.base is None else self.base
            spread = Spread(spread.number, spread.mean + float(other.base - self.base), spread.squares)
        self.spread = self.spread.merge(spread)
        if other.least is not None and other.greatest is not None:
            self._take(other.least, other.greatest)
        self.is_integral &= other.is_integral
        if self.distinct is not None and other.distinct is not None:
            self.distinct.merge(other.distinct)

    def numbers(self) -> Numbers:
        """Returns all that was added."""
        nans, positive, negative = (int(count) for count in self.buckets.unusual[:3])
        return Numbers(
            self.buckets.histogram(),
            self.least,
            self.greatest,
            mean=self.spread.mean + (self.base or 0),
            squares=self.spread.squares,
            is_integral=self.is_integral,
            nans=nans,
            positive_infinities=positive,
            negative_infinities=negative,
        )

    def sketch(self) -> bytes:
        """Returns the distinct finite numbers as a sketch, b'' of none."""
        return b"" if self.distinct is None else self.distinct.sketch()


def _first_finite(values: Floats) -> float:
    if math.isfinite(values[0]):
        return float(values[0])
    places = np.flatnonzero(np.isfinite(values))
    return float(values[places[0]]) if len(places) else 0.0


# --- categories ---------------------------------------------------------------------------------


def category_of(value: str | bytes | bool) -> str:
    """Returns the category that a value is counted as: bytes as hexadecimal digits, truths as `true` and `false`.

    Of a long text the beginning is kept, and 16 digits that stand for all of it.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value.hex() if isinstance(value, bytes) else value
    if len(text) <= CATEGORY_CHARACTERS_MAX:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{text[: CATEGORY_CHARACTERS_MAX - len(digest) - 1]}…{digest}"


class Texts(NamedTuple):
    """Texts as Arrow has them: the UTF-8 bytes between offsets. Shape: one more offset than texts."""

    offsets: Ints
    content: npt.NDArray[np.uint8]

    def at(self, row: int) -> str:
        """Returns one of them."""
        return self.content[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()


@dataclass(slots=True)
class CategorySum:
    """Texts of one column: how often each came, or each group of them if there are too many."""

    counts: dict[str, int] | None = field(default_factory=dict)
    groups: Ints = field(default_factory=lambda: np.zeros(CATEGORY_GROUPS, np.int64))
    frequent: Any = None
    distinct: Any = field(default_factory=lambda: datasketches.update_theta_sketch(DISTINCT_LG_K))

    def add(self, texts: Texts, counts: Ints) -> None:
        """Adds texts that are different from each other, and how often each came."""
        self._add_distinct(texts)
        if self.counts is not None and len(counts) <= CATEGORIES_MAX:
            for row, count in enumerate(counts.tolist()):
                category = category_of(texts.at(row))
                self.counts[category] = self.counts.get(category, 0) + count
            if len(self.counts) > CATEGORIES_MAX:
                self.give_up()
            return
        self.give_up()
        self._add_groups(texts, counts)

    def _add_distinct(self, texts: Texts) -> None:
        hashes = np.empty(len(texts.offsets) - 1, np.int64)
        _compiled().hash_texts(texts.offsets, texts.content, hashes)
        # The sketch lowers its bar as it takes more in, so it is asked again and again.
        for begin in range(0, len(hashes), _K):
            wanted = np.flatnonzero(hashes[begin : begin + _K] < self.distinct.theta64)
            for row in (wanted + begin).tolist():
                # The library takes an empty text for none.
                self.distinct.update(texts.at(row) or 0)

    def give_up(self) -> None:
        """Counts groups from now on."""
        if self.counts is None:
            return
        self.frequent = datasketches.frequent_strings_sketch(_TOP_LG_K)
        counts, self.counts = self.counts, None
        for category, count in counts.items():
            self.groups[group_of(category)] += count
            self.frequent.update(category, count)

    def _add_groups(self, texts: Texts, counts: Ints) -> None:
        _compiled().add_groups(texts.offsets, texts.content, counts, CATEGORY_CHARACTERS_MAX, self.groups)
        lengths = np.diff(texts.offsets)
        for row in np.flatnonzero(lengths > CATEGORY_CHARACTERS_MAX).tolist():
            self.groups[group_of(category_of(texts.at(row)))] += counts[row]
        for row in np.flatnonzero(counts > counts.sum() // _RARE).tolist():
            self.frequent.update(category_of(texts.at(row)), int(counts[row]))

    def merge(self, other: "CategorySum") -> None:
        """Adds the texts of another."""
        union = datasketches.theta_union(DISTINCT_LG_K)
        union.update(self.distinct)
        union.update(other.distinct)
        self.distinct = union.get_result()
        if other.counts is not None and self.counts is not None:
            for category, count in other.counts.items():
                self.counts[category] = self.counts.get(category, 0) + count
            if len(self.counts) > CATEGORIES_MAX:
                self.give_up()
            return
        self.give_up()
        if other.counts is not None:
            other.give_up()
        self.groups += other.groups
        self.frequent.merge(other.frequent)

    def categories(self) -> Categories:
        """Returns all that was added."""
        if self.counts is not None:
            return Categories(dict(sorted(self.counts.items())))
        found = self.frequent.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES)
        least = {category: int(lower) for category, _, lower, _ in found if lower > 0}
        top = dict(sorted(least.items(), key=lambda each: (-each[1], each[0]))[:TOP_MAX])
        return Categories(None, self.groups, top)

    def sketch(self) -> bytes:
        """Returns the distinct texts as a sketch, b'' of none."""
        if self.distinct.is_empty():
            return b""
        # A union is a sketch that is trimmed.
        union = datasketches.theta_union(DISTINCT_LG_K)
        union.update(self.distinct)
        return bytes(union.get_result().serialize())


# --- instants -----------------------------------------------------------------------------------


class MomentSum:
    """Instants of one column, in microseconds since the epoch."""

    def __init__(self) -> None:
        self.moments: Moments | None = None
        self.distinct = DistinctNumbers()

    def add(self, instants_us: Ints) -> None:
        """Adds instants."""
        if not len(instants_us):
            return
        found = Moments(int(instants_us.min()), int(instants_us.max()))
        self.moments = found if self.moments is None else self.moments.merge(found)
        self.distinct.add(np.ascontiguousarray(instants_us), 0)

    def merge(self, other: "MomentSum") -> None:
        """Adds the instants of another."""
        if other.moments is not None:
            self.moments = other.moments if self.moments is None else self.moments.merge(other.moments)
        self.distinct.merge(other.distinct)

    def sketch(self) -> bytes:
        """Returns the distinct instants as a sketch, b'' of none."""
        return self.distinct.sketch()
