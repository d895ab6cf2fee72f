"""A slow plain model of an audit: which served values differ from training, and why, from the rows' own histories."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A row of the only view. Its value is its own, so that a value tells the row. All instants in microseconds.

    `arrived_us` is when it was written or pushed, which is its created time too. `is_landed`: training ever sees it.
    """

    key: int
    event_us: int
    value: int
    arrived_us: int
    is_landed: bool

    @property
    def order(self) -> tuple[int, int]:
        return self.event_us, self.arrived_us


@dataclass(frozen=True)
class Run:
    """A materialization of event times from `start_us` inclusive to `end_us` exclusive, which began at `end_us`."""

    start_us: int
    end_us: int


def trained(rows: Iterable[Row], key: int, at_us: int) -> Row | None:
    """Returns the row that training sees."""
    seen = [row for row in rows if row.key == key and row.is_landed and row.event_us <= at_us]
    return max(seen, key=lambda row: row.order, default=None)


def cause(served: Row | None, today: Row | None, at_us: int, runs: Sequence[Run]) -> str | None:
    """Returns why two rows are not the same, None if they are."""
    if served == today:
        return None
    if served is not None and served.event_us > at_us:
        return "future"
    if today is None or (served is not None and today.order < served.order):
        return "online only"
    came_late = "corrected" if served is not None and served.event_us == today.event_us else "late"
    if today.arrived_us > at_us:
        return came_late
    is_covered = any(run.start_us <= today.event_us < run.end_us for run in runs if run.end_us <= at_us)
    return came_late if is_covered else "not materialized"


def skew(vectors: Iterable[tuple[int, int, int | None]], rows: Sequence[Row], runs: Sequence[Run]) -> dict[str, int]:
    """Returns how many of some served vectors, as (key, request time, value), differ by each cause."""
    row_of = {row.value: row for row in rows}
    found = (
        cause(None if value is None else row_of[value], trained(rows, key, at_us), at_us, runs)
        for key, at_us, value in vectors
    )
    return dict(Counter(each for each in found if each is not None))
