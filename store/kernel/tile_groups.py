"""States of many tiles at once, from columns: what `prepare` and `merge` make of one event after the other.

Sums stay exact: a float is an integer times a power of two, and these are added as 64-bit integers where all of them
fit, else as Python's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from store.kernel.algebra import ColumnLayout, Part, State, StateLayout, empty_part, exact_sum, packed_int
from store.kernel.instants import Ints, Truths
from store.kernel.sketches import DISTINCT_HASHES_MAX, buckets_of, hash_of, hashes_of_numbers

Values = npt.NDArray[Any]

_FLOAT_BITS = 53
_WORD_BITS = 62
"""Bits of a sum that surely fit an int64."""


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Events in columns, those of one tile next to each other.

    Attributes:
        tiles: the number of each event's tile, from 0 on, ascending without gaps.
        event_us: event times.
        created_us: created times, `NO_CREATED` for null ones.
        values: per input column int64, float64, bool, or objects that are text or bytes.
        is_valid: per input column whether an event has a value.
    """

    tiles: Ints
    event_us: Ints
    created_us: Ints
    values: Sequence[Values]
    is_valid: Sequence[Truths]


def states_of(layout: StateLayout, events: EventColumns) -> list[State]:
    """Returns the state of each tile, in the order of their numbers."""
    if not len(events.tiles):
        return []
    newest = np.maximum.reduceat(events.event_us, _starts(events.tiles))
    states: list[State] = [[int(us)] + [None] * (layout.width - 1) for us in newest.tolist()]
    for column, values, is_valid in zip(layout.columns, events.values, events.is_valid, strict=True):
        counted = is_valid
        if values.dtype == np.float64:
            counted = counted & ~np.isnan(values)
        _Column(column, events, values, np.flatnonzero(counted)).fill(states)
    return states


def _starts(groups: Ints) -> Ints:
    """Returns where each run of equal numbers begins."""
    is_first = np.ones(len(groups), dtype=bool)
    is_first[1:] = groups[1:] != groups[:-1]
    return np.flatnonzero(is_first)


class _Column:
    """One input column of some tiles, reduced to the events that have a value there."""

    def __init__(self, layout: ColumnLayout, events: EventColumns, values: Values, counted: Ints) -> None:
        self._layout = layout
        self._events = events
        self._counted = counted
        self._groups = events.tiles[counted]
        self._values = values[counted]
        if self._values.dtype == np.float64:
            self._values = self._values + 0.0
        self._starts = _starts(self._groups) if len(counted) else np.zeros(0, dtype=np.int64)
        self._counts = np.diff(np.append(self._starts, len(counted)))

    def fill(self, states: list[State]) -> None:
        """Sets the slots of this column in all states."""
        tiles = self._groups[self._starts].tolist()
        for part, place in self._layout.slots.items():
            for state in states:
                state[place] = empty_part(part)
            if tiles:
                for tile, slot in zip(tiles, _REDUCE[part](self), strict=True):
                    states[tile][place] = slot

    def counts(self) -> list[Any]:
        """Returns a slot of COUNT for each tile with a value, as the other methods do of their parts."""
        counts: list[Any] = self._counts.tolist()
        return counts

    def least(self) -> list[Any]:
        return self._reduced(np.minimum)

    def greatest(self) -> list[Any]:
        return self._reduced(np.maximum)

    def _reduced(self, function: np.ufunc) -> list[Any]:
        return function.reduceat(self._values, self._starts).tolist()  # type: ignore[no-any-return]

    def sums(self) -> list[Any]:
        if self._values.dtype != np.float64:
            return _packed_sums(self._integers(), self._starts, self._counts)
        is_infinite = np.isinf(self._values)
        sums = self._float_sums(1, np.where(is_infinite, 0.0, self._values))
        if not is_infinite.any():
            return sums
        positive = np.add.reduceat((self._values == np.inf).astype(np.int64), self._starts).tolist()
        negative = np.add.reduceat((self._values == -np.inf).astype(np.int64), self._starts).tolist()
        return [[*s, p, n] if p or n else s for s, p, n in zip(sums, positive, negative, strict=True)]

    def squares(self) -> list[Any]:
        if self._values.dtype != np.float64:
            integers = self._integers()
            is_small = len(integers) == 0 or int(np.abs(integers.astype(np.float64)).max()) < 2**31
            squared = integers**2 if is_small else integers.astype(object) ** 2
            return _packed_sums(squared, self._starts, self._counts)
        return self._float_sums(2, np.where(np.isinf(self._values), 0.0, self._values))

    def _integers(self) -> Values:
        return self._values.astype(np.int64) if self._values.dtype == np.bool_ else self._values

    def _float_sums(self, exponent: int, finite: Values) -> list[Any]:
        """Returns exact sums of the values, or of their squares, as slots."""
        mantissa, power = np.frexp(finite)
        whole = np.ldexp(mantissa, _FLOAT_BITS).astype(np.int64)
        power = power.astype(np.int64) - _FLOAT_BITS
        zeros = np.frexp((whole & -whole).astype(np.float64))[1].astype(np.int64) - 1
        zeros = np.where(whole == 0, 0, zeros)
        whole, power = whole >> zeros, np.where(whole == 0, 0, power + zeros)
        low = np.minimum.reduceat(np.where(whole == 0, 2**30, power), self._starts)
        low = np.where(low == 2**30, 0, low)
        shift = np.where(whole == 0, 0, power - np.repeat(low, self._counts))
        bits = np.frexp(np.abs(whole).astype(np.float64))[1] + shift
        room = int(bits.max()) * exponent + int(self._counts.max()).bit_length()
        if room <= _WORD_BITS:
            totals = np.add.reduceat((whole << shift) ** exponent, self._starts).tolist()
        else:
            shifted = np.array([w << s for w, s in zip(whole.tolist(), shift.tolist(), strict=True)], dtype=object)
            totals = np.add.reduceat(shifted**exponent, self._starts).tolist()
        return [exact_sum([(t, exponent * p)]) for t, p in zip(totals, low.tolist(), strict=True)]

    def first(self) -> list[Any]:
        order = np.lexsort((-self._ranks(), *self._times(), self._groups))
        return self._entries(order[self._starts])

    def last(self) -> list[Any]:
        order = np.lexsort((self._ranks(), *self._times(), self._groups))
        ends = self._starts + self._counts
        kept = np.minimum(self._counts, self._layout.kept_values)
        places = np.concatenate([np.arange(end - 1, end - 1 - n, -1) for end, n in zip(ends, kept, strict=True)])
        entries = iter(self._entries(order[places]))
        return [[next(entries) for _ in range(n)] for n in kept.tolist()]

    def _times(self) -> tuple[Ints, Ints]:
        return self._events.created_us[self._counted], self._events.event_us[self._counted]

    def _ranks(self) -> Ints:
        return np.unique(self._values, return_inverse=True)[1].astype(np.int64)

    def _entries(self, places: Ints) -> list[Any]:
        created, event = self._times()
        columns = event[places].tolist(), created[places].tolist(), self._values[places].tolist()
        return [list(entry) for entry in zip(*columns, strict=True)]

    def distinct(self) -> list[Any]:
        hashes = self._hashes()
        order = np.lexsort((hashes, self._groups))
        groups, ordered = self._groups[order], hashes[order]
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (ordered[1:] != ordered[:-1]) | (groups[1:] != groups[:-1])
        groups, ordered = groups[is_new], ordered[is_new].astype("<u8")
        bounds = np.append(_starts(groups), len(groups)).tolist()
        return [ordered[low : min(high, low + DISTINCT_HASHES_MAX)].tobytes() for low, high in pairwise(bounds)]

    def _hashes(self) -> npt.NDArray[np.uint64]:
        if self._values.dtype != object:
            return hashes_of_numbers(self._values)
        values, places = np.unique(self._values, return_inverse=True)
        return np.array([hash_of(value) for value in values.tolist()], dtype=np.uint64)[places]

    def buckets(self) -> list[Any]:
        numbers = buckets_of(self._values.astype(np.float64))
        order = np.lexsort((numbers, self._groups))
        groups, ordered = self._groups[order], numbers[order]
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (ordered[1:] != ordered[:-1]) | (groups[1:] != groups[:-1])
        places = np.flatnonzero(is_new)
        counts = np.diff(np.append(places, len(order))).tolist()
        pairs = iter(zip(ordered[places].tolist(), counts, strict=True))
        sizes = np.diff(np.append(_starts(groups[places]), len(places))).tolist()
        return [dict(next(pairs) for _ in range(size)) for size in sizes]


def _packed_sums(integers: Values, starts: Ints, counts: Ints) -> list[Any]:
    """Returns sums of integers as slots."""
    if integers.dtype != object:
        largest = max(abs(int(integers.max())), abs(int(integers.min()))).bit_length()
        if largest + int(counts.max()).bit_length() > _WORD_BITS:
            integers = integers.astype(object)
    return [packed_int(int(total)) for total in np.add.reduceat(integers, starts).tolist()]


_REDUCE: dict[Part, Callable[[_Column], list[Any]]] = {
    Part.COUNT: _Column.counts,
    Part.SUM: _Column.sums,
    Part.SQUARES: _Column.squares,
    Part.MIN: _Column.least,
    Part.MAX: _Column.greatest,
    Part.FIRST: _Column.first,
    Part.LAST: _Column.last,
    Part.DISTINCT: _Column.distinct,
    Part.BUCKETS: _Column.buckets,
}
