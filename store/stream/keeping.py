"""Applied events of logged views on their way into the files of accepted events: gathered, then written together."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from store.audit.retention import remove_outdated, retention_days
from store.errors import SourceError
from store.kernel.definitions import ViewDefinition
from store.kernel.windows import reach_us
from store.limits import SERVED_SWEEP_SECONDS
from store.offline.accepted_events import LOG_ID, AcceptedFolder, definition_folder
from store.offline.logged_rows import AlreadyLanded

if TYPE_CHECKING:
    from store.stream.context import StreamContext

_DAY_US = 86_400_000_000
_log = structlog.get_logger("larder.ingest")


@dataclass(frozen=True, slots=True)
class KeptEvents:
    """Applied events of one partition and view that wait to be kept, as `accepted_rows` has them.

    `done` is up to which id the partition was done with when they came.
    """

    partition: int
    done: int
    definition: ViewDefinition
    table: pa.Table

    @property
    def ends(self) -> tuple[int, int]:
        """Returns the first and the last id."""
        ids = self.table.column(LOG_ID)
        return ids[0].as_py(), ids[-1].as_py()


class KeepingQueue:
    """Applied events of a worker's partitions that wait to be kept, those of a partition in the order of the log.

    Attributes:
        rows: how many wait, and of how many bytes they are.
    """

    def __init__(self, context: "StreamContext") -> None:
        self._context = context
        self._queued: list[KeptEvents] = []
        self._folders: dict[Path, AcceptedFolder] = {}
        self._logged: object = None
        self._swept: dict[Path, float] = {}
        self.rows = self.byte_count = 0

    def begin(self, partition: int, done: int) -> None:
        """Notes for all logged views that events of a partition are kept from now on, if they were not before.

        Args:
            done: up to which id the partition is done with.

        Raises:
            SourceError: it cannot be noted.
        """
        for definition in self._context.logged_views.values():
            self._begin(definition, partition, done)

    def add(self, events: KeptEvents) -> None:
        """Takes events that are to be kept."""
        self._queued.append(events)
        self.rows += events.table.num_rows
        self.byte_count += events.table.nbytes

    def holds(self, partition: int) -> bool:
        """Whether events of a partition wait."""
        return any(events.partition == partition for events in self._queued)

    def forget(self, partition: int) -> None:
        """Drops the events of a partition that has another owner by now, who keeps them."""
        self._set([events for events in self._queued if events.partition != partition])

    def flush(self) -> None:
        """Keeps all events, those of one definition in one file; what could not be written stays.

        Raises:
            SourceError, OutOfSpace: the files cannot be written now.
        """
        if not self._queued:
            return
        for definition in dict.fromkeys(events.definition for events in self._queued):
            mine = [events for events in self._queued if events.definition == definition]
            self._keep_definition(definition, mine)
            self._set([events for events in self._queued if events.definition != definition])

    def _begin(self, definition: ViewDefinition, partition: int, done: int) -> None:
        folder = self._folder(definition)
        try:
            folder.begin(self._name(partition), done)
        except OSError as error:
            raise SourceError(
                f"accepted events of feature view {definition.name!r} cannot be kept: {error.strerror or error}; make "
                "data/accepted a folder that can be written"
            ) from error

    def _folder(self, definition: ViewDefinition) -> AcceptedFolder:
        if self._logged is not self._context.logged_views:
            # Of views that are not logged any more the notes are gone.
            self._logged = self._context.logged_views
            self._folders.clear()
        path = definition_folder(self._context.repo_path, definition)
        if path not in self._folders:
            self._folders[path] = AcceptedFolder(path)
        return self._folders[path]

    def _keep_definition(self, definition: ViewDefinition, queued: list[KeptEvents]) -> None:
        for events in queued:
            self._begin(definition, events.partition, events.done)
        folder = self._folder(definition)
        for _, group in groupby(queued, key=lambda events: events.table.schema):
            self._write(folder, list(group))
        self._sweep(definition_folder(self._context.repo_path, definition), definition)

    def _write(self, folder: AcceptedFolder, parts: list[KeptEvents]) -> None:
        """Writes events of one schema; those that are kept already are left out."""
        while parts:
            ranges: dict[str, tuple[int, int]] = {}
            for part in parts:
                low, high = ranges.get(self._name(part.partition), part.ends)
                ranges[self._name(part.partition)] = min(low, part.ends[0]), max(high, part.ends[1])
            try:
                folder.append(pa.concat_tables([p.table for p in parts]), ranges, self._context.clock.now_us())
                return
            except AlreadyLanded as known:
                parts = list(self._after(parts, known.landed))

    def _after(self, parts: list[KeptEvents], kept: Mapping[str, int]) -> Iterator[KeptEvents]:
        for part in parts:
            left = part.table.filter(pc.greater(part.table.column(LOG_ID), kept.get(self._name(part.partition), 0)))
            if left.num_rows:
                yield KeptEvents(part.partition, part.done, part.definition, left)

    def _name(self, partition: int) -> str:
        return f"{self._context.log.name}/{partition}"

    def _set(self, queued: list[KeptEvents]) -> None:
        self._queued = queued
        self.rows = sum(events.table.num_rows for events in queued)
        self.byte_count = sum(events.table.nbytes for events in queued)

    def _sweep(self, path: Path, definition: ViewDefinition) -> None:
        """Removes what no audit asks for any more: events that no window of any vector in the log reaches."""
        now = time.monotonic()
        if now < self._swept.get(path, now - SERVED_SWEEP_SECONDS) + SERVED_SWEEP_SECONDS:
            return
        self._swept[path] = now
        days = retention_days(self._context.config) - (-reach_us(definition.windows) // _DAY_US)
        try:
            remove_outdated(path, self._context.clock.now_us(), days)
        except OSError as error:
            _log.error("accepted events past their retention cannot be removed", folder=str(path), exc_info=error)
