"""Rows on their way into the log: cut into entries by partition, and appended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from store.kernel.log_entries import Events, encode_events, partition_of
from store.limits import ENTRY_BYTES_MAX, ENTRY_ROWS_MAX
from store.online.conversations import Conversation, Knowledge
from store.online.log_appends import LoggedEntry, PartitionAppend, PushName, append, room
from store.online.stream_log import keep_schema, open_log
from store.stream.routes import Route
from store.stream.rows import logged_columns, logged_schema


@dataclass(frozen=True)
class LoggedPush:
    """Checked rows of a push that go into the log.

    Attributes:
        table: all columns of the batch source under their names in the views.
        is_landed: whether they land in the batch source, by way of the log.
        is_applied: whether they count online.
    """

    route: Route
    table: pa.Table
    is_landed: bool
    is_applied: bool = True


def cut(
    events: Events, rows: Sequence[int], line_ids: Sequence[int] | None = None
) -> Iterator[tuple[LoggedEntry, int]]:
    """Yields the entries that hold some rows of events, in order, and how many rows each holds.

    Args:
        rows: their places in the columns.
        line_ids: one per row of `rows`, for copies.
    """
    start, size = 0, ENTRY_ROWS_MAX
    while start < len(rows):
        part = rows[start : start + size]
        ids = None if line_ids is None else line_ids[start : start + size]
        columns = [[column[row] for row in part] for column in events.columns]
        content = encode_events(events._replace(columns=columns, line_ids=ids))
        if len(content) > ENTRY_BYTES_MAX and len(part) > 1:
            size = max(1, len(part) * ENTRY_BYTES_MAX // (2 * len(content)))
            continue
        # The first row's id has to be such that no row's id is below its line id.
        floor = 0 if ids is None else max(line - place for place, line in enumerate(ids))
        yield LoggedEntry(content, len(part), floor), len(part)
        start += len(part)


def events_of(push: LoggedPush) -> tuple[Events, bytes]:
    """Returns the rows of a push as the log has them, and their schema."""
    tag, schema = logged_schema(push.table)
    columns = logged_columns(push.table)
    route = push.route
    return Events(route.push_source, route.home, push.is_landed, push.is_applied, tag, columns), schema


def by_partition(keys: Sequence[bytes | None], partitions: int) -> dict[int, list[int]]:
    """Returns the places of rows by the partition of their keys; rows without a key go into the first."""
    places: dict[int, list[int]] = {}
    known: dict[bytes | None, int] = {}
    for place, key in enumerate(keys):
        partition = known.get(key)
        if partition is None:
            partition = known[key] = 0 if key is None else partition_of(key, partitions)
        places.setdefault(partition, []).append(place)
    return places


class PreparedPush:
    """A push that is cut into entries; making it takes the time of its rows, so it is made beside an event loop."""

    def __init__(self, push: LoggedPush, partitions: int) -> None:
        """Cuts a push for a log of so many partitions."""
        self._events, self._schema = events_of(push)
        self.partitions = partitions
        keys = push.route.readers[push.route.home].keys(push.table)
        places = by_partition(keys, partitions)
        self._appends = {
            partition: PartitionAppend([entry for entry, _ in cut(self._events, places[partition])])
            for partition in sorted(places)
        }
        self._targets: set[int] = set()
        if push.is_applied:
            for entity_set in push.route.other_sets(push.route.home):
                self._targets |= by_partition(push.route.readers[entity_set].keys(push.table), partitions).keys()

    def converse(self, knowledge: Knowledge, now_us: int, name: PushName | None = None) -> Conversation[dict[int, int]]:
        """Appends the push, and returns the last id in each partition, 0 where it was there already.

        Args:
            name: of a push that may come again; None for one that comes once.

        Raises:
            LogFull, OtherPush: as their names say.
        """
        # Said each time: it costs nothing beside the push, and a Redis that was emptied has both again.
        schema = keep_schema(knowledge.project, self._events.schema_tag, self._schema)
        log = yield from open_log(knowledge, self.partitions, [schema])
        if self._targets:
            yield from room(log, self._targets)
        name = name or PushName.by_chance()
        return (yield from append(log, self._appends, now_us, is_clustered=not knowledge.is_ordered, push=name))
