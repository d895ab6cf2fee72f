"""What stored rows say at request time: values, statuses in Feast's vocabulary, and event times."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import msgspec

from store.errors import StoredRowError
from store.kernel.codec import SCHEMA_TAG, RowTimes, decode_header
from store.kernel.values import ABSENT
from store.online.conversations import Knowledge
from store.online.plan import ViewRead

PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"
Item = TypeVar("Item")


class EventTimes(msgspec.Struct, frozen=True):
    """When rows were true: microseconds since the epoch, None where there is no row, and nanoseconds beyond them.

    `ns` None stands for no nanoseconds in any row.
    """

    us: Sequence[int | None]
    ns: Sequence[int] | None = None

    def taken(self, places: Sequence[int | None]) -> "EventTimes":
        """Returns times by their places; a place of None is a row that is not there."""
        ns = None if self.ns is None else _taken(self.ns, places, 0)
        return EventTimes(_taken(self.us, places, None), ns)


class ViewRows(msgspec.Struct, frozen=True):
    """What the rows of one view say.

    Shapes: `columns` and `statuses` have one sequence per wanted feature, with one entry per row: a plain value, None
    unless the status is PRESENT. Features share statuses that are equal.

    Attributes:
        times: of the rows; a computed view has none.
        is_whole: all statuses are PRESENT, as far as that is known without looking at each.
        feature_times: per feature, where each has times of its own (a windowed one: of the newest event in its window).
    """

    columns: Sequence[Sequence[Any]]
    statuses: Sequence[Sequence[str]]
    times: EventTimes
    is_whole: bool = False
    feature_times: Sequence[EventTimes] | None = None

    def times_of(self, feature: int) -> EventTimes:
        """Returns the event times of a feature."""
        return self.times if self.feature_times is None else self.feature_times[feature]

    def taken(self, places: Sequence[int | None]) -> "ViewRows":
        """Returns rows by their places; a place of None is a row that is not there."""
        said = {id(statuses): _taken(statuses, places, NOT_FOUND) for statuses in self.statuses}
        own = self.feature_times
        return ViewRows(
            [_taken(column, places, None) for column in self.columns],
            [said[id(statuses)] for statuses in self.statuses],
            self.times.taken(places),
            feature_times=None if own is None else [times.taken(places) for times in own],
        )


def _taken(items: Sequence[Item], places: Sequence[int | None], missing: Item) -> list[Item]:
    return [missing if place is None else items[place] for place in places]


def read_view(read: ViewRead, rows: Sequence[bytes | None], knowledge: Knowledge, now_us: int) -> ViewRows:
    """Returns what the rows of one view say at request time; None is a row that is not there.

    Raises:
        StoredRowError: a row that this version cannot read.
    """
    oldest_us = now_us - read.ttl_us if read.ttl_us else None
    if rows and None not in rows:
        present: Sequence[Any] = rows
        try:
            tag = int.from_bytes(present[0][SCHEMA_TAG], "big")
            alike = tag in knowledge.layouts and read.decoder(tag, knowledge.layouts).decode_alike(present)
        except StoredRowError as error:
            raise _named(read, error) from error
        if alike and (oldest_us is None or min(alike[0]) >= oldest_us):
            said = [PRESENT] * len(rows)
            return ViewRows(alike[1], [said] * len(read.wanted), EventTimes(alike[0]), is_whole=True)
    missing = Row((None,) * len(read.wanted), _all(NOT_FOUND, len(read.wanted)), None)
    found = [read_row(read, row, knowledge, now_us) or missing for row in rows]
    return _by_column(read, found)


def joined_rows(parts: Sequence[ViewRows]) -> ViewRows:
    """Returns the rows of some parts, part after part; each feature has times of its own."""
    if len(parts) == 1:
        return parts[0]
    features = range(len(parts[0].columns))
    return ViewRows(
        [list(chain.from_iterable(part.columns[feature] for part in parts)) for feature in features],
        [list(chain.from_iterable(part.statuses[feature] for part in parts)) for feature in features],
        EventTimes(list(chain.from_iterable(part.times.us for part in parts))),
        feature_times=[
            EventTimes(list(chain.from_iterable(part.times_of(feature).us for part in parts))) for feature in features
        ],
    )


def missing_rows(read: ViewRead, row_count: int) -> ViewRows:
    """Returns what a view says of rows of which none is there."""
    nothing, said = [None] * row_count, [NOT_FOUND] * row_count
    return ViewRows([nothing] * len(read.wanted), [said] * len(read.wanted), EventTimes(nothing))


def _by_column(read: ViewRead, rows: "Sequence[Row]") -> ViewRows:
    times = [row.times for row in rows]
    event_us = [None if each is None else each.event_us for each in times]
    ns = [0 if each is None else each.event_ns for each in times]
    event_times = EventTimes(event_us, ns if any(ns) else None)
    if not rows:
        return ViewRows([()] * len(read.wanted), [()] * len(read.wanted), event_times)
    columns = list(zip(*[row.values for row in rows], strict=True))
    first = rows[0].statuses
    if all(row.statuses is first for row in rows):
        shared = {status: [status] * len(rows) for status in set(first)}
        return ViewRows(columns, [shared[status] for status in first], event_times)
    return ViewRows(columns, list(zip(*[row.statuses for row in rows], strict=True)), event_times)


@dataclass(frozen=True, slots=True)
class Row:
    """What one stored row says at request time: one value and status per wanted feature."""

    values: Sequence[Any]
    statuses: Sequence[str]
    times: RowTimes | None


@cache
def _all(status: str, count: int) -> tuple[str, ...]:
    """Returns one status for all features of a row: always the same object, by which equal rows are known."""
    return (status,) * count


def read_row(read: ViewRead, row: bytes | None, knowledge: Knowledge, now_us: int) -> Row | None:
    """Returns what one stored row says at request time, None where there is no row.

    Raises:
        StoredRowError: a row that this version cannot read.
    """
    if row is None:
        return None
    header = decode_header(row)
    try:
        values = read.decoder(header.schema_tag, knowledge.layouts).decode(row, header)
    except StoredRowError as error:
        raise _named(read, error) from error
    is_outside = read.ttl_us and header.times.event_us < now_us - read.ttl_us
    if None not in values and ABSENT not in values:
        statuses: Sequence[str] = _all(OUTSIDE_MAX_AGE if is_outside else PRESENT, len(values))
    elif is_outside:
        statuses = [NOT_FOUND if v is ABSENT else OUTSIDE_MAX_AGE for v in values]
    else:
        statuses = [NOT_FOUND if v is ABSENT else NULL_VALUE if v is None else PRESENT for v in values]
    if is_outside:
        return Row((None,) * len(values), statuses, header.times)
    return Row([None if v is ABSENT else v for v in values], statuses, header.times)


def _named(read: ViewRead, error: StoredRowError) -> StoredRowError:
    return StoredRowError(f"feature view {read.name!r}: {error}")
