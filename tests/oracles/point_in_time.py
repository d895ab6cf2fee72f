"""The point-in-time join and the newest row per key, slow and plain: what section 3.1 of the design says, line by line.

Instants are integer nanoseconds since the Unix epoch, None for a null. Shares no code with `store`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SourceRow:
    """One row of a source; rows are listed as they stand in the source (path order, then row order)."""

    key: tuple[Any, ...]
    event: int | None
    created: int | None
    value: Any


@dataclass(frozen=True)
class EntityRow:
    """One entity row: its key and its time."""

    key: tuple[Any, ...]
    time: int | None


def answers(
    entity_rows: Sequence[EntityRow], source: Sequence[SourceRow], ttl: int, is_cut_by_created: bool
) -> list[Any]:
    """Returns the value for each entity row, None where there is none; a ttl of 0 is no limit."""
    return [_answer(row, source, ttl, is_cut_by_created) for row in entity_rows]


def _answer(row: EntityRow, source: Sequence[SourceRow], ttl: int, is_cut_by_created: bool) -> Any:
    best: tuple[Any, ...] | None = None
    value = None
    for place, candidate in enumerate(source):
        if row.time is None or candidate.event is None:
            continue
        if any(part is None for part in row.key) or candidate.key != row.key:
            continue
        if candidate.event > row.time:
            continue
        if ttl > 0 and candidate.event < row.time - ttl:
            continue
        if is_cut_by_created and (candidate.created is None or candidate.created > row.time):
            continue
        rank = _rank(candidate, place)
        if best is None or rank > best:
            best, value = rank, candidate.value
    return value


def newest(source: Sequence[SourceRow], start: int | None, end: int | None) -> dict[tuple[Any, ...], SourceRow]:
    """Returns the newest row of each key among rows with start <= event < end; no nulls in key or event."""
    best: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    rows: dict[tuple[Any, ...], SourceRow] = {}
    for place, row in enumerate(source):
        if row.event is None or any(part is None for part in row.key):
            continue
        if start is not None and row.event < start:
            continue
        if end is not None and row.event >= end:
            continue
        rank = _rank(row, place)
        if row.key not in best or rank > best[row.key]:
            best[row.key], rows[row.key] = rank, row
    return rows


def _rank(row: SourceRow, place: int) -> tuple[Any, ...]:
    """Greatest event time, then a created time before none at all, then the greatest, then the last place."""
    return (row.event, row.created is not None, row.created or 0, place)
