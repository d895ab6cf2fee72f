"""Rows of the log on their way into landed files: gathered for a moment, then landed together, each source one file."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from store.errors import OutOfSpace, PushedRowsError, SourceError
from store.limits import LAND_BYTES_MAX, LAND_ROWS_MAX, LAND_SECONDS
from store.offline.logged_rows import AlreadyLanded, land_logged_rows
from store.online.dead_letters import DeadLetter
from store.stream.context import StreamContext
from store.stream.keeping import KeepingQueue, KeptEvents
from store.stream.routes import Route
from store.stream.rows import rows_as_json


@dataclass(frozen=True, slots=True)
class QueuedRows:
    """Rows of one partition and source that wait to land, with the ids of their events in ascending order."""

    partition: int
    route: Route
    table: pa.Table
    ids: tuple[int, ...]


class LandingQueue:
    """The rows of a worker's partitions that wait to land or to be kept for audits, in the order of the log.

    Attributes:
        rows: how many wait.
    """

    def __init__(self, context: StreamContext) -> None:
        self._context = context
        self._queued: list[QueuedRows] = []
        self._keeping = KeepingQueue(context)
        self._since = float("inf")
        self.rows = 0
        self._bytes = 0

    def add(self, rows: QueuedRows) -> None:
        """Takes rows that are to land."""
        self._queued.append(rows)
        self.rows += len(rows.ids)
        self._bytes += rows.table.nbytes
        self._since = min(self._since, time.monotonic())

    def begin_keeping(self, partition: int, done: int) -> None:
        """Notes that events of a partition are kept from now on, after an id up to which it is done with.

        Raises:
            SourceError: it cannot be noted.
        """
        self._keeping.begin(partition, done)

    def keep(self, events: KeptEvents) -> None:
        """Takes applied events that are to be kept."""
        self._keeping.add(events)
        self.rows += events.table.num_rows
        self._bytes += events.table.nbytes
        self._since = min(self._since, time.monotonic())

    def due_in_seconds(self) -> float:
        """Returns in how many seconds the rows are to land: 0 for at once, infinity for an empty queue."""
        if not self.rows:
            return float("inf")
        return 0.0 if self.is_full else max(0.0, self._since + LAND_SECONDS - time.monotonic())

    @property
    def is_full(self) -> bool:
        """Whether so many rows wait that they land at once."""
        return self.rows >= LAND_ROWS_MAX or self._bytes >= LAND_BYTES_MAX

    def holds(self, partition: int) -> bool:
        """Whether rows of a partition wait."""
        return self._keeping.holds(partition) or any(rows.partition == partition for rows in self._queued)

    def forget(self, partition: int) -> None:
        """Drops the rows of a partition that has another owner by now, who lands them."""
        self._queued = [rows for rows in self._queued if rows.partition != partition]
        self._keeping.forget(partition)
        self._count()

    def flush(self) -> None:
        """Lands and keeps all rows; what could not be written stays, and is tried again by the next call.

        Raises:
            SourceError, OutOfSpace: a source cannot take them now.
        """
        sources = dict.fromkeys(rows.route.source.path for rows in self._queued)
        failure: Exception | None = None
        for path in sources:
            mine = [rows for rows in self._queued if rows.route.source.path == path]
            try:
                self._land_source(mine)
            except (SourceError, OutOfSpace) as error:
                # Other sources shall not wait for this one.
                failure = error
                continue
            self._queued = [rows for rows in self._queued if rows.route.source.path != path]
        try:
            self._keeping.flush()
        except (SourceError, OutOfSpace) as error:
            failure = error
        self._count()
        if failure is not None:
            raise failure

    def _land_source(self, queued: list[QueuedRows]) -> None:
        for _, group in groupby(queued, key=lambda rows: rows.table.schema):
            self._land(list(group))

    def _land(self, parts: list[QueuedRows]) -> None:
        """Lands rows of one source and schema; rows that landed before are left out, as are those that do not fit."""
        while parts:
            try:
                self._publish(parts)
                return
            except AlreadyLanded as known:
                parts = list(self._after(parts, known.landed))
            except PushedRowsError as error:
                if len(parts) == 1 and len(parts[0].ids) == 1:
                    self._bury(parts[0], str(error))
                    return
                for half in _halves(parts):
                    self._land(half)
                return

    def _publish(self, parts: list[QueuedRows]) -> None:
        ids = [event for part in parts for event in part.ids]
        table = pa.concat_tables([part.table for part in parts])
        if len({part.partition for part in parts}) > 1:
            order = pc.sort_indices(pa.array(ids))
            table, ids = table.take(order), [ids[place] for place in order.to_pylist()]
        ranges: dict[str, tuple[int, int]] = {}
        for part in parts:
            low, high = ranges.get(self._name(part), (part.ids[0], part.ids[-1]))
            ranges[self._name(part)] = min(low, part.ids[0]), max(high, part.ids[-1])
        land_logged_rows(self._context.config, parts[0].route.source, table, ids, ranges)

    def _after(self, parts: list[QueuedRows], landed: Mapping[str, int]) -> Iterator[QueuedRows]:
        for part in parts:
            last = landed.get(self._name(part), 0)
            left = sum(event > last for event in part.ids)
            done = len(part.ids) - left
            if left:
                yield QueuedRows(part.partition, part.route, part.table.slice(done), part.ids[done:])

    def _name(self, part: QueuedRows) -> str:
        return f"{self._context.log.name}/{part.partition}"

    def _bury(self, part: QueuedRows, reason: str) -> None:
        place = f"landing/{self._name(part)}/{part.ids[0]}"
        (row,) = rows_as_json(part.table)
        now_us = self._context.clock.now_us()
        self._context.bury([DeadLetter(place, part.route.push_source, row, "offline", reason, now_us)])

    def _count(self) -> None:
        self.rows = sum(len(rows.ids) for rows in self._queued) + self._keeping.rows
        self._bytes = sum(rows.table.nbytes for rows in self._queued) + self._keeping.byte_count
        self._since = time.monotonic() if self.rows else float("inf")


def _halves(parts: list[QueuedRows]) -> list[list[QueuedRows]]:
    if len(parts) > 1:
        return [parts[: len(parts) // 2], parts[len(parts) // 2 :]]
    (part,) = parts
    middle = len(part.ids) // 2
    return [
        [QueuedRows(part.partition, part.route, part.table.slice(0, middle), part.ids[:middle])],
        [QueuedRows(part.partition, part.route, part.table.slice(middle), part.ids[middle:])],
    ]
