"""Plain models of how rows replace each other and what a lookup says of them; they share no code with `store`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WrittenRow:
    """A row as a writer gives it; `event` and `created` are nanoseconds, `created` None where there is none."""

    event: int
    created: int | None
    is_pushed: bool
    values: dict[str, Any]


def stands(stored: WrittenRow | None, incoming: WrittenRow) -> WrittenRow:
    """Returns which of two rows stands after `incoming` arrived."""
    if stored is None:
        return incoming
    old = (stored.event, stored.created is not None, stored.created or 0)
    new = (incoming.event, incoming.created is not None, incoming.created or 0)
    if old > new:
        return stored
    if old == new and stored.is_pushed and not incoming.is_pushed:
        return stored
    return incoming


def status(row: WrittenRow | None, feature: str, ttl: int, now: int) -> tuple[str, Any]:
    """Returns the status and value of one feature at `now`; ttl and times in nanoseconds, ttl 0 for none."""
    if row is None or feature not in row.values:
        return "NOT_FOUND", None
    if ttl and row.event < now - ttl:
        return "OUTSIDE_MAX_AGE", None
    value = row.values[feature]
    return ("NULL_VALUE", None) if value is None else ("PRESENT", value)


def covered(points: range, intervals: list[tuple[int, int]]) -> set[int]:
    """Returns which of some points lie in any half-open interval."""
    return {point for point in points for start, end in intervals if start <= point < end}


def may_stand(rows: list[WrittenRow]) -> list[WrittenRow]:
    """Returns the rows of one key of which one has to stand after all were written, by many writers in any order.

    It is one row unless pushes tie: then it is the last to arrive, which only the writers know.
    """
    newest = max((row.event, row.created is not None, row.created or 0) for row in rows)
    tied = [row for row in rows if (row.event, row.created is not None, row.created or 0) == newest]
    return [row for row in tied if row.is_pushed] or tied[-1:]
