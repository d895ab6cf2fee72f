"""What the stream makes of an entity key's events: a hash of tiles, changed by a few fields at a time.

A field's name is the tile's level, line and start, its value the entry (`store.kernel.tiles`). The field `APPLIED`
holds `[highest log id applied, when and for which line the tiles were last settled]`; a script changes the tiles only
if it still is what the change was computed from. So each event counts once, whoever applies it how often, as long as
those of one key are applied in the order of the log.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from store.errors import StoredRowError
from store.kernel.algebra import State, prepare, update
from store.kernel.tiles import (
    GRACE_US,
    LEVEL,
    LINE,
    ONLINE_ONLY,
    SINGLE,
    START,
    STATE,
    Entry,
    Limits,
    Seam,
    TileKey,
    TilePlan,
    decode_stream,
    encode_entry,
    settled,
)

APPLIED: Final = b""
"""The field that says what was applied."""

_STAMP_HEAD: Final = 0x92
"""How what was applied begins: an array of two in MessagePack; the entries of tiles are longer."""

_SETTLE_HOPS: Final = 16
"""Tiles are settled after so many of the shortest hops: a read then merges at most as many tiles more."""

_decode = msgspec.msgpack.Decoder().decode


class StreamEvent(NamedTuple):
    """One event of one entity key on its way from the log into tiles.

    Attributes:
        log_id: its place in the log of the key's partition.
        line_id: the id at which it arrived first, which decides on what side of a line it lies.
        is_landed: whether it lands in the batch source.
        values: one per input column of the view, in the order of `input_columns`.
    """

    log_id: int
    line_id: int
    is_landed: bool
    event_us: int
    created_us: int | None
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """What is the same for all keys of a micro-batch.

    Attributes:
        line_id: the last line drawn, 0 for none.
        seam: of the materialization in force, None for none.
    """

    plan: TilePlan
    now_us: int
    limits: Limits
    line_id: int
    seam: Seam | None

    @classmethod
    def of(cls, plan: TilePlan, now_us: int, line_id: int, seam: Seam | None) -> "Moment":
        """Returns the moment of an instant."""
        return cls(plan, now_us, plan.limits(now_us - GRACE_US), line_id, seam)

    def place(self, event: StreamEvent) -> TileKey | None:
        """Returns the tile that an event belongs into; None where no window reaches it."""
        line = self._line(event)
        if event.event_us > self.now_us:
            return event.event_us, SINGLE, line
        place = self.limits.place(event.event_us)
        return None if place is None else (*place, line)

    def _line(self, event: StreamEvent) -> int:
        """Returns the last line before an event; of older lines only the one in force matters."""
        if not event.is_landed:
            return ONLINE_ONLY
        in_force = self.seam.line_id if self.seam is not None else 0
        for line in (self.line_id, in_force):
            if event.line_id > line:
                return line
        return max(in_force - 1, 0)

    @property
    def stamp(self) -> list[int]:
        """Returns when and for which materialization tiles are settled now."""
        hop_us = self.plan.hops[0] * _SETTLE_HOPS
        return [self.now_us // hop_us, 0 if self.seam is None else self.seam.line_id]


@dataclass(frozen=True, slots=True)
class Change:
    """What a script does to a key's hash: nothing unless `APPLIED` is what is expected (b"" for absent).

    `is_settled` says that `fields` are all that shall remain.
    """

    expected: bytes
    applied: bytes
    fields: dict[bytes, bytes]
    is_settled: bool
    newest_us: int


@lru_cache(maxsize=65_536)
def field_of(key: TileKey) -> bytes:
    """Returns the name of the field that holds a tile."""
    start, level, line = key
    return encode_entry([level, line, start])


def wanted_fields(moment: Moment, events: Iterable[StreamEvent]) -> list[bytes]:
    """Returns the fields to read before some events can be applied: `APPLIED`, then those of their tiles, each once."""
    places = dict.fromkeys(moment.place(event) for event in events)
    return [APPLIED, *(field_of(place) for place in places if place is not None)]


def needs_settling(moment: Moment, applied: bytes | None) -> bool:
    """Whether a key's tiles are due to be settled, for which all its fields have to be read."""
    return applied is not None and _stamped(applied)[1:] != moment.stamp


def fresh_events(applied: bytes | None, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
    """Returns the events that were not applied yet."""
    if applied is None:
        return events
    applied_id = _stamped(applied)[0]
    return [event for event in events if event.log_id > applied_id]


def changed(
    moment: Moment, known: Mapping[bytes, bytes | None], events: Sequence[StreamEvent], *, is_whole: bool
) -> Change | None:
    """Returns what some events change in the hash of their key; None where all were applied already.

    Args:
        known: by name the fields that were read; at least `wanted_fields`.
        events: of one key, in the order of the log.
        is_whole: whether all fields were read, so that the tiles are settled too.
    """
    applied = known.get(APPLIED)
    fresh = fresh_events(applied, events)
    if not fresh:
        return None
    plan = moment.plan
    states: dict[TileKey, State] = {}
    if is_whole:
        values = [raw for name, raw in known.items() if raw is not None and name != APPLIED]
        states = {(entry[START], entry[LEVEL], entry[LINE]): entry[STATE:] for entry in decode_stream(values)}
    for event in fresh:
        place = moment.place(event)
        if place is None:
            continue
        if place not in states and not is_whole and (raw := known.get(field_of(place))) is not None:
            states[place] = _entry(raw)[STATE:]
        if place in states:
            update(plan.layout, states[place], event.values, event.event_us, event.created_us)
        else:
            states[place] = prepare(plan.layout, event.values, event.event_us, event.created_us)
    if is_whole:
        states = settled(plan, states, seam=moment.seam, now_us=moment.now_us)
    stamp = moment.stamp if is_whole or applied is None else _stamped(applied)[1:]
    return Change(
        expected=applied or b"",
        applied=encode_entry([fresh[-1].log_id, stamp]),
        fields={field_of(place): encode_entry([*place, *state]) for place, state in states.items()},
        is_settled=is_whole,
        newest_us=max(event.event_us for event in fresh),
    )


def applied_through(values: Sequence[bytes]) -> int:
    """Returns the highest log id applied to a key's tiles, given the values of its hash in any order; 0 for none."""
    return next((_stamped(value)[0] for value in values if value[0] == _STAMP_HEAD), 0)


def _stamped(applied: bytes) -> list[Any]:
    log_id, stamp = _decode(applied)
    return [log_id, *stamp]


def _entry(raw: bytes) -> Entry:
    try:
        entry: Entry = _decode(raw)
    except msgspec.DecodeError as error:
        raise StoredRowError("a stored tile is damaged; materialize the view again") from error
    return entry
