"""Tiles: what is kept online of the events of a windowed view, for one entity key.

A tile holds the state of the events of one hop. Each event lies in exactly one tile. A young tile is as long as the
shortest hop; once no window of that hop reaches back to it any more, it becomes part of a tile of the next longer hop,
and what no window reaches is dropped. So a window of 30 days beside one of an hour costs some 60 tiles and not 8,640,
and an event changes one tile.

Events from beyond the writer's clock (a push may be up to a minute ahead) are kept one by one until their time has
come, so that the head of a window is exact at every instant.

An entry is MessagePack, `[start, level, line, state...]`: microseconds, which of the view's hops (`SINGLE` for an event
kept by itself, at its event time), and the line after which its events arrived (see `Seam`). What a materialization
made for a key is one text: a version byte and an array of entries. What the stream makes is a hash of entries
(`store.kernel.stream_tiles`).
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from store.errors import StoredRowError
from store.kernel.algebra import (
    ColumnLayout,
    Part,
    State,
    StateLayout,
    SumOverflow,
    finalized,
    merge,
    merged_prefixes,
    parts_of,
)
from store.kernel.windows import WindowFeature, floor_to, hops_of, reach_us

VERSION: Final = 1
_HEAD: Final = bytes((VERSION,))

SINGLE: Final = -1
"""The level of an event that is kept by itself."""

ONLINE_ONLY: Final = -1
"""The line of events that never land, so that no materialization holds them."""

GRACE_US: Final = 60_000_000
"""Tiles become longer, and go, this much later than they could: readers' clocks may be behind the writer's."""

START, LEVEL, LINE, STATE = 0, 1, 2, 3
"""Places in an entry."""

_start_of = itemgetter(START)

Entry = list[Any]
TileKey = tuple[int, int, int]
"""Start, level and line of an entry."""

encode_entry = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_SHORT_ARRAY_MAX: Final = 0xFFFF


class Seam(NamedTuple):
    """Where what a materialization made ends and the stream goes on.

    Attributes:
        batch_end_us: the materialization holds events before it.
        line_id: events that land, and arrived at or before this id, are in the materialization whatever their time.
        is_external: jobs of the user's own fill the source, so its events are in the materialization by their time.
    """

    batch_end_us: int
    line_id: int
    is_external: bool = False

    def contains(self, line: int, start_us: int) -> bool:
        """Whether the materialization holds the events of a stream entry with this line and start."""
        if self.is_external:
            return start_us < self.batch_end_us
        return line != ONLINE_ONLY and line < self.line_id


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How the tiles of one definition are laid out, merged and aged."""

    features: tuple[WindowFeature, ...]
    layout: StateLayout
    hops: tuple[int, ...]
    reach_us: int
    column_of: Mapping[str, ColumnLayout] = field(hash=False)

    @classmethod
    def of(cls, features: Sequence[WindowFeature]) -> "TilePlan":
        """Returns the plan of a view's windowed features."""
        layout = StateLayout.of(features)
        by_name = {column.name: column for column in layout.columns}
        return cls(tuple(features), layout, hops_of(features), reach_us(features), by_name)

    def limits(self, now_us: int) -> "Limits":
        """Returns how far back tiles of each hop are needed at a time."""
        oldest = [min(f.start_us(now_us) for f in self.features if f.hop_us <= hop) for hop in self.hops]
        return Limits(self.hops, tuple(oldest))

    def batch_end_us(self, end_us: int) -> int:
        """Returns the batch end of a materialization up to some time: floored to the longest hop."""
        return floor_to(end_us, self.hops[-1])


@dataclass(frozen=True, slots=True)
class Limits:
    """How far back tiles of each hop are needed at some time; `oldest_us` is per hop, the last one of all."""

    hops: tuple[int, ...]
    oldest_us: tuple[int, ...]

    def place(self, event_us: int) -> tuple[int, int] | None:
        """Returns start and level of the tile that an event belongs into, None where no window reaches it."""
        if event_us < self.oldest_us[-1]:
            return None
        for level in range(len(self.hops) - 1, 0, -1):
            hop = self.hops[level]
            start = event_us // hop * hop
            if start + hop <= self.oldest_us[level - 1]:
                return start, level
        hop = self.hops[0]
        return event_us // hop * hop, 0


def settled(
    plan: TilePlan, entries: Mapping[TileKey, State], *, seam: Seam | None, now_us: int
) -> dict[TileKey, State]:
    """Returns tiles as they are best kept from now on: longer ones for older events, without what is over.

    Args:
        seam: of the materialization in force; what it holds goes as well.
    """
    limits = plan.limits(now_us - GRACE_US)
    moved: dict[TileKey, list[State]] = {}
    for (start, level, line), state in entries.items():
        place = limits.place(start)
        if place is None or (seam is not None and seam.contains(line, start)):
            continue
        if level == SINGLE and start > now_us:
            place = start, SINGLE
        elif place[1] <= level:
            place = start, level
        moved.setdefault((*place, line), []).append(state)
    return {key: merge(plan.layout, states) for key, states in moved.items()}


# --- what a materialization made -----------------------------------------------------------------


def encode_batch(entries: Iterable[Entry]) -> bytes:
    """Returns entries as the text that a materialization leaves for an entity key."""
    return _HEAD + encode_entry(list(entries))


def decode_batch(raw: bytes) -> list[Entry]:
    """Returns the entries of a materialization's text.

    Raises:
        StoredRowError: another version, or damaged.
    """
    if raw[:1] != _HEAD:
        raise StoredRowError(
            f"stored tiles have format version {raw[:1].hex() or 'none'}, this version reads {VERSION}; "
            "materialize the view again"
        )
    return _decoded(memoryview(raw)[1:])


def decode_stream(values: Sequence[bytes]) -> list[Entry]:
    """Returns the entries of a stream's hash; the one that is no tile is `[applied log id, settled...]`, and shorter.

    Raises:
        StoredRowError: damaged.
    """
    count = len(values)
    head = b"\xdc" + count.to_bytes(2, "big") if count <= _SHORT_ARRAY_MAX else b"\xdd" + count.to_bytes(4, "big")
    return _decoded(head + b"".join(values))


def _decoded(raw: bytes | memoryview) -> list[Entry]:
    try:
        entries: list[Entry] = _decode(raw)
    except msgspec.DecodeError as error:
        raise StoredRowError("stored tiles are damaged; materialize the view again") from error
    return entries


# --- reading -------------------------------------------------------------------------------------


class WindowValue(NamedTuple):
    """The value of a feature, and the newest event time in its window (None: no event).

    `is_overflow`: the value is None because a sum of integers is beyond int64.
    """

    value: Any
    event_us: int | None
    is_overflow: bool = False


def window_values(
    plan: TilePlan, wanted: Sequence[WindowFeature], counted: Sequence[Entry], now_us: int
) -> list[WindowValue]:
    """Returns features of one entity key at a time.

    Args:
        counted: the entries that count at that time, as `counted_entries` gives them.
    """
    # Every window ends now, so a longer one has the entries of a shorter one and some more.
    newest_first = sorted(counted, key=_start_of, reverse=True)
    start_of = [feature.start_us(now_us) for feature in wanted]
    starts_us = sorted(set(start_of), reverse=True)
    window_of = {start_us: window for window, start_us in enumerate(starts_us)}
    every = _Prefixes.of(newest_first, starts_us)
    newest_us = every.newest_us()
    of_column: dict[str, _Prefixes] = {}
    values = []
    for feature, start_us in zip(wanted, start_of, strict=True):
        column = plan.column_of[feature.column]
        window = window_of[start_us]
        if column.name not in of_column:
            of_column[column.name] = every.with_values(column)
        try:
            value = of_column[column.name].value(column, feature, window)
            values.append(WindowValue(value, newest_us[window]))
        except SumOverflow:
            values.append(WindowValue(None, newest_us[window], is_overflow=True))
    return values


@dataclass(slots=True)
class _Prefixes:
    """Entries from the newest to the oldest, and how many of them each of some windows has, the shortest first."""

    entries: Sequence[Entry]
    slots: Sequence[Sequence[Any]]
    starts_us: Sequence[int]
    bounds: Sequence[int]
    merged: dict[int, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Sequence[Entry], starts_us: Sequence[int]) -> "_Prefixes":
        times = [-entry[START] for entry in entries]
        bounds = [bisect_right(times, -start_us) for start_us in starts_us]
        return cls(entries, [*zip(*entries, strict=True)], starts_us, bounds)

    def newest_us(self) -> list[int | None]:
        """Returns the newest event time of each window, None where it has no event."""
        times = self.slots[STATE] if self.slots else ()
        return [max(times[:bound], default=None) for bound in self.bounds]

    def with_values(self, column: ColumnLayout) -> "_Prefixes":
        """Returns the entries that have a value in a column."""
        place = STATE + column.slots[Part.COUNT]
        if not self.slots or 0 not in self.slots[place]:
            return _Prefixes(self.entries, self.slots, self.starts_us, self.bounds)
        return _Prefixes.of([entry for entry in self.entries if entry[place]], self.starts_us)

    def value(self, column: ColumnLayout, feature: WindowFeature, window: int) -> Any:
        """Returns a feature of one of the windows.

        Raises:
            SumOverflow: a sum of integers beyond int64.
        """
        if not self.bounds[window]:
            return 0 if feature.function.name == "count" else None
        state = {}
        for part in (Part.COUNT, *parts_of(feature)):
            place = column.slots[part]
            if place not in self.merged:
                self.merged[place] = merged_prefixes(column, part, self.slots[STATE + place], self.bounds)
            state[place] = self.merged[place][window]
        return finalized(column, state, feature)


def counted_entries(
    batch: bytes | None, stream: Sequence[bytes], seam: Seam | None, now_us: int
) -> tuple[list[Entry], int]:
    """Returns the entries of both sides that count at a time, and the highest log id applied (0: none).

    Raises:
        StoredRowError: a text of another version, or damaged.
    """
    counted = [] if batch is None else [e for e in decode_batch(batch) if e[LEVEL] != SINGLE or e[START] <= now_us]
    applied_id = 0
    for entry in decode_stream(stream) if stream else ():
        if len(entry) < STATE:
            applied_id = entry[0]
        elif seam is not None and seam.contains(entry[LINE], entry[START]):
            continue
        elif entry[LEVEL] != SINGLE or entry[START] <= now_us:
            counted.append(entry)
    return counted, applied_id
