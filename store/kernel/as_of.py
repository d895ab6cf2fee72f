"""The as-of search: for each entity row the newest row of its key, over a source that comes in chunks.

A row of a chunk becomes one 64-bit number, `code << bits | rank`: its key's code above its place in time. One sort of
these numbers groups rows by key and orders each key's rows by time, and a binary search of `code << bits | rank(t)`
finds the last row at or before t. Sorting plain integers is what processors do best, several times faster than any
join that moves rows. Entity rows are searched in the order of that number, so each search runs through memory forwards.

What one chunk answers is merged into what earlier chunks did by comparing (event, created, position), so chunks may
come in any order and each is read once: cost is linear in the source, memory is that of one chunk.

With the created cutoff a row can be seen from v = max(event, created) on. Rows stand by (code, v), and beside each the
greatest place by (event, created, position) so far. Places count through all keys in the order of their codes, so one
running maximum over the whole chunk restarts by itself at each key.

Source: design section 3.1 for the semantics, section 5 for the prefix maximum.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

NO_ROW = -1
"""The position of an entity row without an answer; the code of one with a null in its key or time."""

_NS_PER_US = 1_000

_CODE_BITS = 32
"""Bits of a code: there are no more keys than entity rows searched at once, far fewer than 4 G."""

_FEW_REPEATS = 16
"""Where fewer than one in so many rows shares its instant with another, looking at those alone is cheaper."""

_FEW_DESCENTS = 1_000
"""Runs up to which merging them is faster than sorting anew: two threads that read a file make a few, a folder of files
in no order of time one each."""

NO_TIME_US = np.iinfo(np.int64).min
"""Stands for a null created time: older than any."""


@dataclass(frozen=True, slots=True)
class Instants:
    """Instants as floor microseconds since the Unix epoch and, where nanoseconds play a part, those left (0..999)."""

    us: Ints
    ns: Ints | None = None

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.us)

    def taken(self, places: Ints | Truths | slice) -> "Instants":
        """Returns the instants at some places, in that order."""
        return Instants(self.us[places], None if self.ns is None else self.ns[places])

    def is_after(self, other: "Instants") -> Truths:
        """Returns for each pair whether the first is later."""
        later: Truths = self.us > other.us
        if self.ns is not None and other.ns is not None:
            later |= (self.us == other.us) & (self.ns > other.ns)
        return later

    def equals(self, other: "Instants") -> Truths:
        """Returns for each pair whether both are the same instant."""
        same: Truths = self.us == other.us
        if self.ns is not None and other.ns is not None:
            same &= self.ns == other.ns
        return same

    def or_later(self, other: "Instants") -> "Instants":
        """Returns of each pair the later one."""
        later = other.is_after(self)
        ns = None if self.ns is None or other.ns is None else np.where(later, other.ns, self.ns)
        return Instants(np.where(later, other.us, self.us), ns)

    def put(self, places: Ints, others: "Instants") -> None:
        """Replaces the instants at some places by others, in that order."""
        self.us[places] = others.us
        if self.ns is not None and others.ns is not None:
            self.ns[places] = others.ns

    @property
    def order(self) -> Ints | None:
        """Returns the places in order of time, equal instants in any order; None where they stand so already."""
        if self.ns is None:
            descents = np.count_nonzero(self.us[1:] < self.us[:-1])
            if descents == 0:
                return None
            # A merge sort takes sorted runs as they are, as sources mostly have them; what has none is sorted faster
            # by the other.
            return np.argsort(self.us, kind="stable" if descents < _FEW_DESCENTS else None)
        steps = np.diff(self.us)
        if not np.any((steps < 0) | ((steps == 0) & (np.diff(self.ns) < 0))):
            return None
        return np.lexsort((self.ns, self.us))


@dataclass(frozen=True, slots=True)
class SourceChunk:
    """Rows of a source, in any order, as arrays of one length.

    `codes` are the codes of their keys (0 and up), `event` their event times (no nulls), `created` their created
    times (`NO_TIME_US` for a null), None where the source has none; `positions` grow in source order.
    """

    codes: Ints
    event: Instants
    created: Instants | None
    positions: Ints


@dataclass(frozen=True, slots=True)
class Matches:
    """For each entity row the position (`NO_ROW` for none) and the event time of the row that answers it.

    `is_tied` says, unless there is a cutoff, where another row of the same key and event time was found: there created
    times decide, if the chunks had any.
    """

    positions: Ints
    event: Instants
    is_tied: Truths


@dataclass(frozen=True, slots=True)
class AskedRows:
    """Entity rows in the two orders in which they are searched; made once, it serves any number of searches.

    Shapes: `total` entity rows, of which those that something can match are live. `places` and `times` are of the live
    ones in order of time; `by_key` is their order by (code, time), as places in the order of time; `codes` are their
    codes in the order of `by_key`.
    """

    total: int
    places: Ints
    times: Instants
    by_key: Ints
    codes: Ints

    @classmethod
    def of(cls, codes: Ints, times: Instants) -> "AskedRows":
        """Returns entity rows to be searched.

        Args:
            codes: the code of each row's key, `NO_ROW` for one that nothing can match.
            times: their instants; those of a row with code `NO_ROW` play no part.
        """
        live = np.flatnonzero(codes != NO_ROW)
        by_time = times.taken(live).order
        places = live if by_time is None else live[by_time]
        codes_by_time = codes[places]
        bits = _bits(len(live))
        packed = (codes_by_time << bits) | np.arange(len(live))
        packed.sort()
        by_key = packed & ((1 << bits) - 1)
        return cls(len(codes), places, times.taken(places), by_key, codes_by_time[by_key])


class AsOfSearch:
    """The search for the rows that answer some entity rows; chunks are added, then `matches` tells the result.

    Args:
        ttl_us: rows older than this need not be found, though they may be; 0 for no limit.
        has_cutoff: whether a row counts only from its created time on (one without a created time: never).
    """

    def __init__(self, asked: AskedRows, *, ttl_us: int = 0, has_cutoff: bool = False) -> None:
        self._asked = asked
        self._ttl_us = ttl_us
        self._has_cutoff = has_cutoff
        count, has_ns = len(asked.codes), asked.times.ns is not None
        self._positions = np.full(count, NO_ROW)
        self._event = _nothing(count, has_ns)
        self._created = _nothing(count, has_ns)
        self._is_tied = np.zeros(count, dtype=bool)

    def add(self, chunk: SourceChunk) -> None:
        """Takes the rows of a chunk into account; instants must be in the same form as those of the entity rows."""
        if self._has_cutoff and chunk.created is not None:
            chunk = _with_created(chunk)
        if not len(chunk.codes):
            return
        first, last = self._reached_by(chunk)
        by_key, codes = self._asked.by_key, self._asked.codes
        asked = np.arange(len(codes))
        if last - first < len(asked):
            asked = np.flatnonzero((by_key >= first) & (by_key < last))
        if not len(asked):
            return
        by_event = _Sorted(chunk.codes, chunk.event)
        visible, best = by_event, None
        if self._has_cutoff and chunk.created is not None:
            visible = _Sorted(chunk.codes, chunk.event.or_later(chunk.created))
            best = _running_newest(visible, by_event.rows(chunk))
        counts = visible.count_until(self._asked.times.taken(slice(first, last)))[by_key[asked] - first]
        found = visible.find(codes[asked], counts)
        is_found = found != NO_ROW
        asked, found = asked[is_found], found[is_found]
        is_tied = np.zeros(len(found), dtype=bool)
        if best is not None:
            rows = best[found]
        elif by_event.has_ties:
            rows, is_tied = by_event.rows(chunk)[found], by_event.is_tied(found)
        else:
            rows = by_event.rows_at(found)
        self._merge(chunk, asked, rows, is_tied)

    def matches(self) -> Matches:
        """Returns what was found so far, in the order of the entity rows."""
        total = self._asked.total
        positions = np.full(total, NO_ROW)
        event = _nothing(total, self._event.ns is not None)
        is_tied = np.zeros(total, dtype=bool)
        places = self._asked.places[self._asked.by_key]
        positions[places] = self._positions
        event.put(places, self._event)
        is_tied[places] = self._is_tied
        return Matches(positions, event, is_tied)

    def _reached_by(self, chunk: SourceChunk) -> tuple[int, int]:
        """Returns which entity rows, in order of time, a chunk can answer: the first, and the one after the last."""
        times = self._asked.times
        first = int(np.searchsorted(times.us, chunk.event.us.min(), side="left"))
        if not self._ttl_us:
            return first, len(times)
        # One more for the nanoseconds that either side may have.
        end = min(int(chunk.event.us.max()) + self._ttl_us + 1, np.iinfo(np.int64).max)
        return first, int(np.searchsorted(times.us, end, side="right"))

    def _merge(self, chunk: SourceChunk, asked: Ints, rows: Ints, is_tied: Truths) -> None:
        """Takes the row found for each of the asked entity rows where it is newer than what was found before."""
        event, positions = chunk.event.taken(rows), chunk.positions[rows]
        old_event, old_positions = self._event.taken(asked), self._positions[asked]
        is_first = old_positions == NO_ROW
        is_same = event.equals(old_event) & ~is_first
        wins_tie = positions > old_positions
        created = None if chunk.created is None else chunk.created.taken(rows)
        if created is not None:
            old_created = self._created.taken(asked)
            wins_tie = created.is_after(old_created) | (created.equals(old_created) & wins_tie)
        is_better = is_first | event.is_after(old_event) | (is_same & wins_tie)
        better = asked[is_better]
        self._is_tied[better] = is_tied[is_better]
        self._is_tied[asked[is_same]] = True
        self._positions[better] = positions[is_better]
        self._event.put(better, event.taken(is_better))
        if created is not None:
            self._created.put(better, created.taken(is_better))


class _Sorted:
    """The rows of a chunk by (code, instant), ties of both in no particular order until `rows` puts them right."""

    def __init__(self, codes: Ints, instants: Instants) -> None:
        self._order = instants.order
        self._instants = instants if self._order is None else instants.taken(self._order)
        self._bits = _bits(len(codes))
        codes = codes if self._order is None else codes[self._order]
        is_new = _starts_moment(self._instants)
        has_ties = _may_have_ties(codes, is_new)
        self._packed = codes << self._bits
        self._packed |= np.arange(len(codes))
        self._packed.sort()
        self._groups = self._tied_groups(is_new) if has_ties else None

    @property
    def has_ties(self) -> bool:
        """Whether rows of one code share an instant."""
        return self._groups is not None

    def count_until(self, times: Instants) -> Ints:
        """Returns for each time, in order of time, how many rows are at or before it."""
        us, ns = self._instants.us, self._instants.ns
        if ns is None or times.ns is None:
            return np.searchsorted(us, times.us, side="right")
        # Rows within the microsecond of a time count as far as their nanoseconds allow: microseconds are numbered, so
        # that number and nanoseconds fit together into one integer.
        starts = np.searchsorted(us, times.us, side="left")
        nearest = np.minimum(starts, len(us) - 1)
        numbers = np.cumsum(us != np.roll(us, 1)) * _NS_PER_US
        counts = np.searchsorted(numbers + ns, numbers[nearest] + times.ns, side="right")
        return np.where(us[nearest] == times.us, counts, starts)

    def find(self, codes: Ints, counts: Ints) -> Ints:
        """Returns for each code the place of its last row among the first so many in time, `NO_ROW` without one."""
        places: Ints = np.searchsorted(self._packed, (codes << self._bits) | counts) - 1
        is_found = (places >= 0) & (self._packed[places] >> self._bits == codes)
        return np.where(is_found, places, NO_ROW)

    def is_tied(self, places: Ints) -> Truths:
        """Returns for the last place of each of some (code, instant) whether other rows share both."""
        if self._groups is None:
            return np.zeros(len(places), dtype=bool)
        shared: Truths = (places > 0) & (self._groups[places] == self._groups[places - 1])
        return shared

    def rows_at(self, places: Ints) -> Ints:
        """Returns the rows at some places, without regard to ties."""
        ranks = self._packed[places] & ((1 << self._bits) - 1)
        return ranks if self._order is None else self._order[ranks]

    def rows(self, chunk: SourceChunk) -> Ints:
        """Returns all rows by (code, instant, created, position)."""
        rows = self.rows_at(np.arange(len(self._packed)))
        if self._groups is not None:
            is_tied = np.zeros(len(rows), dtype=bool)
            is_tied[1:] = self._groups[1:] == self._groups[:-1]
            is_tied[:-1] |= is_tied[1:]
            places = np.flatnonzero(is_tied)
            tied = rows[places]
            keys = [chunk.positions[tied]]
            if chunk.created is not None:
                keys += [] if chunk.created.ns is None else [chunk.created.ns[tied]]
                keys.append(chunk.created.us[tied])
            rows[places] = tied[np.lexsort((*keys, self._groups[places]))]
        return rows

    def _tied_groups(self, is_new: Truths) -> Ints | None:
        """Returns for each place a number that tied rows share and that grows; None where no rows are tied."""
        moment = np.cumsum(is_new)[self._packed & ((1 << self._bits) - 1)]
        differs = np.ones(len(moment), dtype=bool)
        differs[1:] = moment[1:] != moment[:-1]
        differs[1:] |= self._packed[1:] >> self._bits != self._packed[:-1] >> self._bits
        return None if differs.all() else np.cumsum(differs)


def _starts_moment(instants: Instants) -> Truths:
    """Returns for each of some instants in order whether it differs from the one before."""
    is_new = np.ones(len(instants), dtype=bool)
    is_new[1:] = instants.us[1:] != instants.us[:-1]
    if instants.ns is not None:
        is_new[1:] |= instants.ns[1:] != instants.ns[:-1]
    return is_new


def _may_have_ties(codes: Ints, is_new: Truths) -> bool:
    """Whether rows in order of time may share code and instant; looks closer only where few share an instant."""
    repeats = np.flatnonzero(~is_new)
    if len(repeats) * _FEW_REPEATS > len(codes):
        return True
    shared = np.unique(np.concatenate([repeats - 1, repeats]))
    pairs = (np.cumsum(is_new[shared]) << _CODE_BITS) | codes[shared]
    return len(np.unique(pairs)) < len(pairs)


def _running_newest(visible: _Sorted, by_event: Ints) -> Ints:
    """Returns for each place of `visible` the newest row, by (event, created, position), among its key's so far."""
    standing = np.empty(len(by_event), dtype=np.int64)
    standing[by_event] = np.arange(len(by_event))
    return by_event[np.maximum.accumulate(standing[visible.rows_at(np.arange(len(by_event)))])]


def _with_created(chunk: SourceChunk) -> SourceChunk:
    """Returns the rows that have a created time."""
    assert chunk.created is not None
    kept = np.flatnonzero(chunk.created.us != NO_TIME_US)
    if len(kept) == len(chunk.codes):
        return chunk
    return SourceChunk(chunk.codes[kept], chunk.event.taken(kept), chunk.created.taken(kept), chunk.positions[kept])


def _nothing(count: int, has_ns: bool) -> Instants:
    return Instants(np.full(count, NO_TIME_US), np.zeros(count, dtype=np.int64) if has_ns else None)


def _bits(count: int) -> int:
    """Returns how many bits hold the numbers 0 to `count`, both included."""
    return max(1, count.bit_length())
