"""The windowed features of one group of keys, all of whose events are there.

Columns without nulls share one order of events, and features of one window and hop share what moves in and out of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from store.kernel.instants import Floats, Ints, Truths
from store.kernel.sketches import DISTINCT_HASHES_MAX, bucket_value, buckets_of, estimated_distinct
from store.kernel.window_events import Events, Form, InputColumn, hash_at
from store.kernel.windows import NUMERIC, WindowFeature

_SUMS = NUMERIC - {"approx_percentile"}
_NO_INTS = np.zeros(0, dtype=np.int64)
_NO_FLOATS = np.zeros(0)


@dataclass(frozen=True, slots=True)
class FeatureAnswers:
    """The values of one feature, one per live entity row in order of key and time.

    `values` are integers (of picked values those that stand for them) or floats; they mean nothing where not
    `is_valid`. Of lists, `values` has the lengths, and `listed` the elements by group.
    `beyond` has the places of integer sums that do not fit.
    """

    values: Ints | Floats
    is_valid: Truths
    listed: dict[int, Ints]
    beyond: list[int]

    @property
    def elements(self) -> Ints:
        """Returns the elements of all lists, one list after the other."""
        return np.concatenate([_NO_INTS, *(self.listed[group] for group in sorted(self.listed))])


@dataclass(frozen=True, slots=True)
class WindowAnswers:
    """The values of some features; before any event was seen, those of windows without one."""

    features: tuple[FeatureAnswers, ...]

    @classmethod
    def empty(cls, features: Sequence[WindowFeature], row_count: int) -> "WindowAnswers":
        """Returns counts of 0, and nulls else."""
        return cls(tuple(_empty(feature, row_count) for feature in features))


def _empty(feature: WindowFeature, row_count: int) -> FeatureAnswers:
    name = feature.function.name
    is_float = name in NUMERIC and not (name == "sum" and feature.type_name == "INT64")
    values: Ints | Floats = np.zeros(row_count) if is_float else np.zeros(row_count, dtype=np.int64)
    return FeatureAnswers(values, np.full(row_count, name == "count"), {}, [])


@dataclass(frozen=True, slots=True)
class AskedGroup:
    """The entity rows of a group of keys, in order of key and time.

    Attributes:
        first_place: of its first entity row among those of all groups.
        starts: where the rows of each of its codes start.
        sight: the times in the unit in which events tell from when on they can be seen.
    """

    number: int
    first_code: int
    first_place: int
    starts: Ints
    times_us: Ints
    sight: Ints


@dataclass(frozen=True, slots=True)
class _Moves:
    """What `move_events` found for one window and hop."""

    comes: Ints
    comes_ends: Ints
    goes: Ints
    goes_ends: Ints
    tails: Ints
    counts: Ints


@dataclass
class _Ordered:
    """Events in order of code, event time, created time: all, or those that count in one column.

    `order` has their places among the events of the group. With `runs`, those of one code, event and created time are
    in order of one column's values.
    """

    asked: AskedGroup
    events: Events
    order: Ints
    starts: Ints
    runs: Ints = field(default_factory=lambda: _NO_INTS)
    known_moves: dict[tuple[int, int], _Moves] = field(default_factory=dict)

    @cached_property
    def event_us(self) -> Ints:
        return self.events.event_us[self.order]

    @cached_property
    def visible(self) -> Ints:
        return self.event_us if self.events.visible is None else self.events.visible[self.order]

    @cached_property
    def created_us(self) -> Ints:
        return _NO_INTS if self.events.created_us is None else self.events.created_us[self.order]

    @cached_property
    def by_sight(self) -> Ints:
        from store.kernel import window_moves

        order = np.arange(len(self.order))
        if self.events.visible is not None:
            window_moves.order_by_sight(self.starts, self.visible, order)
        return order

    def moves(self, feature: WindowFeature) -> _Moves:
        """Returns which events come into the windows of a feature and which go."""
        from store.kernel import window_moves

        key = feature.window_us, feature.hop_us
        if key not in self.known_moves:
            rows, count = len(self.asked.times_us), len(self.order)
            made = _Moves(*(np.empty(size, dtype=np.int64) for size in (count, rows, count, rows, rows, rows)))
            window_moves.move_events(
                self.starts,
                self.event_us,
                self.visible,
                self.by_sight,
                self.asked.starts,
                self.asked.times_us,
                self.asked.sight,
                feature.window_us,
                feature.hop_us,
                made.comes,
                made.comes_ends,
                made.goes,
                made.goes_ends,
                made.tails,
                made.counts,
                np.zeros(count, dtype=bool),
            )
            self.known_moves[key] = made
        return self.known_moves[key]


class _Column:
    """One input column of a group: its values in order, and the features that ask for it."""

    def __init__(self, column: InputColumn, place: int, whole: _Ordered, features: Sequence[WindowFeature]) -> None:
        self.column = column
        self.features = [feature for feature in features if feature.column == column.name]
        names = {feature.function.name for feature in self.features}
        self.ordered = _counted(whole, place)
        if names & {"first", "last"}:
            self.ordered = _by_value(self.ordered, column, place)
        self.raw = whole.events.values[place][self.ordered.order]

    @cached_property
    def keys(self) -> Ints:
        """Returns integers in the order of the values."""
        return self.column.order(self.raw)

    @cached_property
    def buckets(self) -> Ints:
        """Returns the numbers of the buckets of the values."""
        return buckets_of(self.column.numbers(self.raw))

    @cached_property
    def hashes(self) -> Ints:
        """Returns integers in the order of the hashes of the values."""
        return self.column.hashed(self.raw)


def answer_group(
    asked: AskedGroup,
    events: Events,
    features: Sequence[WindowFeature],
    columns: Sequence[InputColumn],
    answers: WindowAnswers,
) -> None:
    """Writes the features of a group's entity rows into their places among the answers."""
    whole = _whole(asked, events)
    read = {column.name: _Column(column, place, whole, features) for place, column in enumerate(columns)}
    sums: dict[tuple[str, int, int], _Sums] = {}
    for feature, found in zip(features, answers.features, strict=True):
        column, name = read[feature.column], feature.function.name
        moves = column.ordered.moves(feature)
        place = slice(asked.first_place, asked.first_place + len(asked.times_us))
        values, is_valid = found.values[place], found.is_valid[place]
        if name in _SUMS:
            key = feature.column, feature.window_us, feature.hop_us
            if key not in sums:
                sums[key] = _sums(column, moves, asked, key)
            _write_sums(sums[key], feature, moves, found, asked.first_place)
        elif name == "count":
            values[:] = moves.counts
        elif name == "count_distinct":
            values[:] = _distinct(column, moves, asked)
            is_valid[:] = moves.counts > 0
        elif name == "approx_percentile":
            values[:] = _percentiles(column, moves, asked, feature.function.parameter)
            is_valid[:] = moves.counts > 0
        elif feature.function.parameter:
            lengths, found.listed[asked.number] = _lists(column, moves, asked, feature.function.kept_values)
            values[:] = lengths
            is_valid[:] = moves.counts > 0
        else:
            picked = _picked(column, moves, asked, name)
            is_valid[:] = picked >= 0
            values[is_valid] = column.raw[picked[is_valid]]


def _whole(asked: AskedGroup, events: Events) -> _Ordered:
    from store.kernel import window_moves

    starts, order = np.zeros(len(asked.starts), dtype=np.int64), np.empty(len(events.codes), dtype=np.int64)
    created = _NO_INTS if events.created_us is None else events.created_us
    window_moves.group_events(events.codes, asked.first_code, events.event_us, created, starts, order)
    return _Ordered(asked, events, order, starts)


def _counted(whole: _Ordered, place: int) -> _Ordered:
    """Returns the events that count in a column."""
    is_counted = whole.events.is_counted[place]
    if is_counted is None or is_counted.all():
        return whole
    is_kept = is_counted[whole.order]
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(is_kept)])
    return _Ordered(whole.asked, whole.events, whole.order[is_kept], before[whole.starts])


def _by_value(ordered: _Ordered, column: InputColumn, place: int) -> _Ordered:
    """Returns events with those of one time in the order of a column's values."""
    from store.kernel import window_moves

    runs, order = np.empty_like(ordered.order), np.empty_like(ordered.order)
    window_moves.number_runs(ordered.starts, ordered.event_us, ordered.created_us, runs)
    keys = column.order(ordered.events.values[place][ordered.order])
    window_moves.order_ties(runs, keys, order)
    return _Ordered(ordered.asked, ordered.events, ordered.order[order], ordered.starts, runs)


@dataclass(frozen=True, slots=True)
class _Sums:
    """What `slide_sums` found; what was not wanted is empty."""

    totals: Ints
    sums: Floats
    means: Floats
    variances: Floats
    is_beyond: Truths


def _sums(column: _Column, moves: _Moves, asked: AskedGroup, key: tuple[str, int, int]) -> _Sums:
    from store.kernel import window_sums

    names = {f.function.name for f in column.features if (f.column, f.window_us, f.hop_us) == key}
    rows = len(asked.times_us)
    form = {Form.FLOAT: window_sums.FLOAT, Form.UNSIGNED: window_sums.UNSIGNED}.get(
        column.column.form, window_sums.SIGNED
    )
    lowest = highest = 1
    if form == window_sums.FLOAT:
        powers = np.array([window_sums.EXPONENT, 0])
        window_sums.find_powers(column.raw, powers)
        lowest, highest = (int(power) for power in powers) if powers[1] else (1, 1)
    span = highest - lowest
    wants_squares = bool(names & {"std", "var"})
    has_totals = form != window_sums.FLOAT and "sum" in names
    found = _Sums(
        np.zeros(rows if has_totals else 0, dtype=np.int64),
        np.zeros(rows if "sum" in names else 0),
        np.zeros(rows if "mean" in names else 0),
        np.zeros(rows if wants_squares else 0),
        np.zeros(rows, dtype=bool),
    )
    window_sums.slide_sums(
        asked.starts,
        moves.comes,
        moves.comes_ends,
        moves.goes,
        moves.goes_ends,
        moves.counts,
        column.raw,
        form,
        lowest,
        window_sums.digits_of(span),
        window_sums.square_digits_of(span) if wants_squares else 0,
        found.totals,
        found.sums,
        found.means,
        found.variances,
        found.is_beyond,
    )
    return found


def _write_sums(sums: _Sums, feature: WindowFeature, moves: _Moves, found: FeatureAnswers, first_place: int) -> None:
    place = slice(first_place, first_place + len(moves.counts))
    name = feature.function.name
    found.is_valid[place] = moves.counts > (1 if name in ("std", "var") else 0)
    if name == "sum":
        found.values[place] = sums.totals if found.values.dtype == np.int64 else sums.sums
        found.beyond.extend(int(row) + first_place for row in np.flatnonzero(sums.is_beyond))
    elif name == "mean":
        found.values[place] = sums.means
    else:
        found.values[place] = np.sqrt(sums.variances) if name == "std" else sums.variances


def _picked(column: _Column, moves: _Moves, asked: AskedGroup, name: str) -> Ints:
    """Returns the events that are extremes or ends of windows, a negative number for none."""
    from store.kernel import window_picks

    picked = np.empty(len(asked.times_us), dtype=np.int64)
    starts = column.ordered.starts
    if name in ("min", "max"):
        flip = -1 if name == "min" else 0
        window_picks.slide_extremes(
            starts, asked.starts, moves.comes, moves.comes_ends, moves.tails, column.keys, flip, picked
        )
        return picked
    firsts, lasts = (picked, _NO_INTS) if name == "first" else (_NO_INTS, picked)
    window_picks.slide_ends(
        starts,
        asked.starts,
        moves.comes,
        moves.comes_ends,
        moves.tails,
        moves.counts,
        column.ordered.runs,
        firsts,
        lasts,
    )
    return picked


def _lists(column: _Column, moves: _Moves, asked: AskedGroup, kept: int) -> tuple[Ints, Ints]:
    """Returns the lengths of lists of newest values, and their elements."""
    from store.kernel import window_picks

    lengths = np.minimum(moves.counts, kept)
    ends = np.empty_like(lengths)
    listed = np.empty(int(lengths.sum()), dtype=np.int64)
    window_picks.slide_lists(
        column.ordered.starts, asked.starts, moves.comes, moves.comes_ends, moves.tails, kept, ends, listed
    )
    return lengths, column.raw[listed]


def _ranked(
    column: _Column, moves: _Moves, asked: AskedGroup, values: Ints, rank: tuple[int, int]
) -> tuple[Ints, Ints]:
    from store.kernel import window_picks

    found, distinct = (np.zeros(len(asked.times_us), dtype=np.int64) for _ in range(2))
    window_picks.slide_ranks(
        column.ordered.starts,
        asked.starts,
        moves.comes,
        moves.comes_ends,
        moves.goes,
        moves.goes_ends,
        moves.counts,
        values,
        *rank,
        found,
        distinct,
    )
    return found, distinct


def _percentiles(column: _Column, moves: _Moves, asked: AskedGroup, percent: str) -> Floats:
    share = Fraction(percent) / 100
    found, _ = _ranked(column, moves, asked, column.buckets, (share.numerator, share.denominator))
    numbers, places = np.unique(found, return_inverse=True)
    return np.array([bucket_value(number) for number in numbers.tolist()])[places]


def _distinct(column: _Column, moves: _Moves, asked: AskedGroup) -> Ints:
    found, distinct = _ranked(column, moves, asked, column.hashes, (0, 0))
    for row in np.flatnonzero(distinct >= DISTINCT_HASHES_MAX):
        distinct[row] = estimated_distinct(hash_at(int(found[row])))
    return distinct
