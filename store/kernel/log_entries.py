"""Entries of the event log: what one says, how it is encoded, and into which partition it goes.

An entry of the stream is called `<id>-0`, where the id is in microseconds. It holds one field, a MessagePack array that
begins with the version of this format and a kind:

| kind | after it |
|---|---|
| EVENTS | push source, entity set, flags, schema tag, columns: rows that were pushed |
| COPIES | the same, then the line ids of the rows: copies for another entity set |
| LINE | a view ("" for none): everything before it lands before anything after it is read |

An entry of n rows has the id of its last one; the others have the ids just before it. Rows are kept by column, in the
order of the schema's names, as plain values (see `store/stream/rows.py`).
"""

from collections.abc import Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from store.errors import LogEntryError

FORMAT_VERSION = 1
_IS_LANDED, _IS_APPLIED = 1, 2

EntitySet = tuple[str, ...]
"""The join keys of a view, by name: views with the same ones have the same entity keys."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Kind(IntEnum):
    """What an entry is."""

    EVENTS = 0
    COPIES = 1
    LINE = 2


class Events(NamedTuple):
    """Rows of a push source in the log.

    Attributes:
        push_source: its name.
        entity_set: by whose keys the rows were given their partition.
        is_landed: whether they become part of the batch source too.
        is_applied: whether they count online.
        schema_tag: tells the names and types of the columns.
        columns: their values, each of one length.
        line_ids: of copies, the id that each row has in the partition that it entered first; of others None.
    """

    push_source: str
    entity_set: EntitySet
    is_landed: bool
    is_applied: bool
    schema_tag: bytes
    columns: Sequence[Sequence[Any]]
    line_ids: Sequence[int] | None = None

    @property
    def row_count(self) -> int:
        """Returns the number of rows."""
        return len(self.columns[0]) if self.columns else 0


class Line(NamedTuple):
    """A mark in the log of each partition, under the same id in all, by which a batch run parts its events."""

    view: str


def encode_events(events: Events) -> bytes:
    """Returns the content of an entry that holds rows."""
    flags = events.is_landed * _IS_LANDED | events.is_applied * _IS_APPLIED
    kind = Kind.EVENTS if events.line_ids is None else Kind.COPIES
    said = [FORMAT_VERSION, kind, events.push_source, events.entity_set, flags, events.schema_tag, events.columns]
    return _encode(said if events.line_ids is None else [*said, events.line_ids])


def encode_line(view: str) -> bytes:
    """Returns the content of an entry that is a line mark."""
    return _encode([FORMAT_VERSION, Kind.LINE, view])


def decode_entry(content: bytes) -> Events | Line:
    """Returns what an entry says.

    Raises:
        LogEntryError: it is no entry of a format that this version knows.
    """
    try:
        version, kind, *parts = _decode(content)
        if version != FORMAT_VERSION:
            raise LogEntryError(f"log entry of format {version!r}, this version of Larder reads {FORMAT_VERSION}")
        if kind == Kind.LINE:
            (view,) = parts
            return Line(view)
        source, entity_set, flags, tag, columns, *rest = parts
        line_ids = rest[0] if kind == Kind.COPIES else None
        events = Events(
            source, tuple(entity_set), bool(flags & _IS_LANDED), bool(flags & _IS_APPLIED), tag, columns, line_ids
        )
        lengths = {len(column) for column in columns} | ({len(line_ids)} if line_ids is not None else set())
    except (msgspec.MsgspecError, ValueError, TypeError, IndexError) as error:
        raise LogEntryError(f"log entry of {len(content)} bytes is not one of Larder's ({error})") from error
    if len(lengths) != 1 or kind not in (Kind.EVENTS, Kind.COPIES):
        raise LogEntryError(f"log entry of kind {kind!r} has columns of {sorted(lengths)} rows")
    return events


def row_ids(entry_id: int, row_count: int) -> range:
    """Returns the ids of the rows of an entry, in their order."""
    return range(entry_id - row_count + 1, entry_id + 1)


def partition_of(key: bytes, partitions: int) -> int:
    """Returns the partition of an entity key: the same one in every process and version.

    Source: BLAKE2b of 8 bytes (RFC 7693), taken as a big-endian integer.
    """
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") % partitions


def may_own(worker: str) -> frozenset[int] | None:
    """Returns the partitions to which a worker restricts itself, None for any; they stand behind its name."""
    _, bar, listed = worker.partition("|")
    return frozenset(int(number) for number in listed.split(",") if number) if bar else None


def assigned(worker: str, workers: Sequence[str], tasks: Sequence[str]) -> frozenset[str]:
    """Returns the tasks that fall to a worker, each to one of those that may do it, evenly over their names in order.

    Args:
        workers: all that live.
        tasks: partitions by their numbers and feeds by their names.
    """
    mine = []
    only = {each: may_own(each) for each in sorted(workers)}
    for place, task in enumerate(tasks):
        able = [each for each, own in only.items() if own is None or not task.isdigit() or int(task) in own]
        if able and able[place % len(able)] == worker:
            mine.append(task)
    return frozenset(mine)
