"""One partition as its owner works on it: entries are applied, passed on and landed, and its place is recorded.

What is done twice has one effect: tiles know the last id applied to them, a target partition what it took from here,
landed files the ids in them. So the place is recorded afterwards, and a worker that follows a killed one just begins at
the place that was recorded last.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import pyarrow as pa
import structlog

from store.errors import (
    DefinitionError,
    LogEntryError,
    OnlineStoreError,
    RegistryUnavailable,
    StoredRowError,
    TooLarge,
    WrongType,
)
from store.kernel.log_entries import EntitySet, Events, Line, decode_entry, row_ids
from store.kernel.stream_tiles import StreamEvent
from store.kernel.windows import input_columns
from store.limits import TRIM_ENTRIES_MAX
from store.offline.accepted_events import accepted_rows
from store.offline.row_transformations import RowTransformation
from store.online.conversations import Conversation
from store.online.dead_letters import DeadLetter
from store.online.stream_log import PartitionState, Raw, advance
from store.online.stream_owners import Owner
from store.online.windows import apply_stream
from store.stream.appending import by_partition
from store.stream.context import StreamContext
from store.stream.forwarding import Forwarder
from store.stream.keeping import KeptEvents
from store.stream.landing import LandingQueue, QueuedRows
from store.stream.routes import Route, StreamedView
from store.stream.rows import event_times, rows_as_json, table_of, window_values
from store.stream.runs import LoggedRows, events_as_they_are, runs_of
from store.stream.transforming import transformed_rows

_log = structlog.get_logger("larder.ingest")

_POISON = (WrongType, TooLarge, LogEntryError, StoredRowError, TypeError, ValueError, OverflowError, pa.ArrowException)
"""What one row may cause and another one not; all else is Redis', and is tried again."""


class PartitionRun:
    """The work of one owner on one partition.

    Attributes:
        cursor: the id of the last entry that was read.
        state: how far the partition has come, as recorded.
        rows_applied: rows that this owner has applied.
    """

    def __init__(
        self, context: StreamContext, partition: int, owner: Owner, state: PartitionState, landing: LandingQueue
    ) -> None:
        self.partition = partition
        self.owner = owner
        self.cursor = 0
        self.state = state
        self.rows_applied = 0
        self._context = context
        self._landing = landing
        self._forwarder = Forwarder(context, partition)
        self._lines = dict(state.lines)
        self._processed = 0
        self._queued_rows = 0
        self._has_kept = False
        self._read: deque[tuple[int, int]] = deque()

    # --- reading ------------------------------------------------------------------------------

    def take(self, entries: Sequence[Raw]) -> Conversation[None]:
        """Does all that some entries ask for, the next ones after those taken before, and records the place.

        After an error this run is over: another one begins at the place that was recorded last.

        Raises:
            OwnershipLost: somebody else owns the partition by now.
            OnlineStoreError: Redis cannot serve.
            SourceError, OutOfSpace: rows before a line cannot land.
        """
        self._landing.begin_keeping(self.partition, self.state.landed)
        self._read.extend((entry_id, len(content)) for entry_id, content in entries)
        pending: list[tuple[int, Events]] = []
        for entry_id, content in entries:
            said = self._decoded(entry_id, content)
            if isinstance(said, Events):
                pending.append((entry_id, said))
            elif isinstance(said, Line):
                yield from self._work(pending)
                pending = []
                self._pass_line(entry_id, said)
            self._processed = entry_id
            if isinstance(said, Line):
                yield from self.record()
        yield from self._work(pending)
        if entries:
            self.cursor = entries[-1][0]
            yield from self.record()

    def _decoded(self, entry_id: int, content: bytes) -> Events | Line | None:
        try:
            return decode_entry(content)
        except LogEntryError as error:
            self._bury_entry(entry_id, "", repr(content), str(error))
            return None

    def _work(self, pending: Sequence[tuple[int, Events]]) -> Conversation[None]:
        """Applies, passes on and queues the rows of entries; entries that were dealt with before are left out."""
        fresh = [entry for entry in pending if entry[0] > min(self.state.applied, self.state.landed)]
        by_source: dict[str, list[tuple[int, Events]]] = {}
        for entry in fresh:
            by_source.setdefault(entry[1].push_source, []).append(entry)
        for push_source, entries in by_source.items():
            try:
                route = self._context.route(push_source)
            except DefinitionError as error:
                self._bury_entries(entries, str(error))
                continue
            if route is None:
                self._bury_entries(entries, f"push source {push_source!r} feeds no feature view any more")
                continue
            for rows in runs_of(entries):
                yield from self._work_on_rows(route, rows)

    def _work_on_rows(self, route: Route, rows: LoggedRows) -> Conversation[None]:
        try:
            table = table_of(self._context.schema(rows.events.schema_tag), rows.events.columns)
        except _POISON as error:
            for event in rows.ids:
                self._bury_entry(event, route.push_source, "", str(error))
            return
        events = rows.events
        if events.is_applied:
            # What was applied and is not kept yet is applied again, which changes nothing.
            is_kept = any(view.name in self._context.logged_views for view in route.views)
            done_id = min(self.state.applied, self.state.landed) if is_kept else self.state.applied
            applied = [place for place, event in enumerate(rows.ids) if event > done_id]
            try:
                yield from self._apply_rows(route, rows, table, applied)
            except (OnlineStoreError, RegistryUnavailable):
                raise
            except Exception as error:  # noqa: BLE001 - the edge of stream messages: they must stop nothing
                _log.error("rows cannot be applied", push_source=route.push_source, exc_info=error)
                for place in applied:
                    self._bury_row(route.push_source, table, place, rows.ids[place], repr(error))
            self.rows_applied += sum(event > self.state.applied for event in rows.ids)
        if events.is_landed and events.line_ids is None:
            # The first ones may have landed before the worker before this one was killed.
            done = sum(event <= self.state.landed for event in rows.ids)
            if ids := tuple(rows.ids[done:]):
                self._landing.add(QueuedRows(self.partition, route, table.slice(done), ids))
                self._queued_rows += len(ids)

    # --- applying -----------------------------------------------------------------------------

    def _apply_rows(self, route: Route, rows: LoggedRows, table: pa.Table, places: list[int]) -> Conversation[None]:
        if not places:
            return
        here = rows.events.entity_set
        yield from self._apply_set(route, here, rows, table, places)
        if rows.events.line_ids is not None:
            return
        for entity_set in route.other_sets(here):
            keys = self._keys(route, entity_set, rows, table)
            chosen = [keys[place] for place in places]
            targets = by_partition(chosen, self._context.log.partitions)
            own = [places[number] for number in targets.pop(self.partition, ())]
            if own:
                yield from self._apply_set(route, entity_set, rows, table, own)
            for target, numbers in sorted(targets.items()):
                sent = [places[number] for number in numbers]
                self._forwarder.forward(target, rows.events._replace(entity_set=entity_set), rows.line_ids, sent)

    def _keys(self, route: Route, entity_set: EntitySet, rows: LoggedRows, table: pa.Table) -> list[bytes | None]:
        try:
            return route.readers[entity_set].keys(table)
        except (WrongType, TooLarge) as error:
            # One row's key hides none of the others.
            return [self._key(route, entity_set, rows, table, place, error) for place in range(table.num_rows)]

    def _key(
        self, route: Route, entity_set: EntitySet, rows: LoggedRows, table: pa.Table, place: int, cause: Exception
    ) -> bytes | None:
        try:
            return route.readers[entity_set].keys(table.slice(place, 1))[0]
        except (WrongType, TooLarge):
            self._bury_row(route.push_source, table, place, rows.ids[place], f"{'+'.join(entity_set)}: {cause}")
            return None

    def _apply_set(
        self, route: Route, entity_set: EntitySet, rows: LoggedRows, table: pa.Table, places: list[int]
    ) -> Conversation[None]:
        views = route.views_of(entity_set)
        if not views:
            return
        keys = self._keys(route, entity_set, rows, table)
        times = event_times(table, route.timestamp_field, route.created)
        for view in views:
            if view.transformation is None:
                events = events_as_they_are(view, rows, table, places, keys, times)
            else:
                events = self._events_that_come_out(view.transformation, route, rows, table, places, keys)
            failed = yield from self._apply_view(
                view, events, lambda event: rows.ids.index(event.log_id), (route, table)
            )
            if view.name in self._context.logged_views:
                self._keep(view, rows, table, events, failed)

    def _keep(
        self,
        view: StreamedView,
        rows: LoggedRows,
        table: pa.Table,
        events: Mapping[bytes, Sequence[StreamEvent]],
        failed: Collection[int],
    ) -> None:
        """Has applied events kept for audits."""
        applied = (event for of_key in events.values() for event in of_key)
        fresh = [event for event in applied if event.log_id > self.state.landed and event.log_id not in failed]
        if fresh:
            fresh.sort(key=itemgetter(0))
            place_of = {event: place for place, event in enumerate(rows.ids)}
            places = [place_of[event.log_id] for event in fresh]
            kept = accepted_rows(view.definition, self.partition, table.take(pa.array(places, pa.int64())), fresh)
            self._landing.keep(KeptEvents(self.partition, self.state.landed, view.definition, kept))
            self._has_kept = True

    def _events_that_come_out(
        self,
        transformation: RowTransformation,
        route: Route,
        rows: LoggedRows,
        table: pa.Table,
        places: list[int],
        keys: list[bytes | None],
    ) -> dict[bytes, list[StreamEvent]]:
        """Returns the events that come out of a view's transformation by key, each under the id of its row."""
        out = transformed_rows(transformation, table.take(pa.array(places, pa.int64())))
        for number, reason in out.failed:
            place = places[number]
            self._bury_row(route.push_source, table, place, rows.ids[place], reason, transformation.view)
        columns = [
            window_values(transformation.view, name, out.table.column(name))
            for name in input_columns(transformation.windows)
        ]
        times = event_times(out.table, transformation.event, transformation.created)
        events: defaultdict[bytes, list[StreamEvent]] = defaultdict(list)
        # In the order of the log, whatever order the function gives them in.
        for number, at_us, known_us, row in sorted(
            zip(out.places, *times, zip(*columns, strict=True), strict=True), key=itemgetter(0)
        ):
            place = places[number]
            if (key := keys[place]) is not None and at_us is not None:
                ids = rows.ids[place], rows.line_ids[place]
                events[key].append(StreamEvent(*ids, rows.events.is_landed, at_us, known_us, row))
        return events

    def _apply_view(
        self, view: StreamedView, events: dict[bytes, list[StreamEvent]], place_of: Any, origin: tuple[Route, pa.Table]
    ) -> Conversation[set[int]]:
        """Applies the events of a view; where one cannot be applied, the others are. Returns the ids of those."""
        failed: set[int] = set()
        try:
            yield from self._said_events(view, events)
        except _POISON:
            for key, of_key in events.items():
                for event in of_key:
                    try:
                        yield from self._said_events(view, {key: [event]})
                    except _POISON as error:
                        route, table = origin
                        reason = f"feature view {view.name!r} cannot take it: {error}"
                        self._bury_row(route.push_source, table, place_of(event), event.log_id, reason, view.name)
                        failed.add(event.log_id)
        return failed

    def _said_events(self, view: StreamedView, events: dict[bytes, list[StreamEvent]]) -> Conversation[int]:
        context = self._context
        return apply_stream(
            context.knowledge,
            view.definition,
            events,
            line_id=self._lines.get(view.name, 0),
            now_us=context.clock.now_us(),
            key_ttl_seconds=context.key_ttl_seconds,
            slot_of=context.session.slot_of(),
        )

    # --- lines and the place --------------------------------------------------------------------

    def _pass_line(self, line: int, said: Line) -> None:
        """Lands all that came before a line, and notes that it was passed."""
        if line <= min(self.state.applied, self.state.landed):
            return
        self._landing.flush()
        # Whoever drew it may have followed a definition that is newer than the one known here.
        self._context.refresh()
        if said.view:
            self._lines[said.view] = max(line, self._lines.get(said.view, 0))

    def landed(self) -> Conversation[None]:
        """Takes note that all rows that were queued have landed, and records it."""
        if self._queued_rows or self._has_kept:
            yield from self.record()

    def record(self) -> Conversation[None]:
        """Records the place, and takes out of the log what is behind it.

        Raises:
            OwnershipLost: somebody else owns the partition by now.
        """
        before = self.state
        is_landed = not self._landing.holds(self.partition)
        self.state = PartitionState(
            last=before.last,
            applied=max(before.applied, self._processed),
            landed=max(before.landed, self._processed) if is_landed else before.landed,
            applied_rows=before.applied_rows + self.rows_applied,
            landed_rows=before.landed_rows + (self._queued_rows if is_landed else 0),
            done_bytes=before.done_bytes,
            lines=dict(self._lines),
        )
        self.rows_applied = 0
        if is_landed:
            self._queued_rows = 0
            self._has_kept = False
        yield from self._say_place(before)

    def _say_place(self, before: PartitionState) -> Conversation[None]:
        state, context = self.state, self._context
        fields = {
            "applied": state.applied,
            "landed": state.landed,
            "applied_rows": state.applied_rows,
            "landed_rows": state.landed_rows,
            **{f"line:{view}": line for view, line in state.lines.items() if before.lines.get(view) != line},
        }
        done_bytes = before.done_bytes
        while True:
            trim_to, size = self._trimmable(min(state.applied, state.landed))
            done_bytes += size
            fields["done_bytes"] = done_bytes
            yield from advance(context.log, self.partition, self.owner.token, fields, trim_to)
            if trim_to is None or not self._read or self._read[0][0] > min(state.applied, state.landed):
                break
        self.state = replace(state, done_bytes=done_bytes)

    def _trimmable(self, upto: int) -> tuple[int | None, int]:
        """Takes the next entries that are done off the list of those read; returns the last id and their bytes."""
        last, size = None, 0
        for _ in range(TRIM_ENTRIES_MAX):
            if not self._read or self._read[0][0] > upto:
                break
            last, entry_bytes = self._read.popleft()
            size += entry_bytes
        return last, size

    # --- rows that do not fit -------------------------------------------------------------------

    def _bury_row(self, push_source: str, table: pa.Table, place: int, event: int, reason: str, view: str = "") -> None:
        (row,) = rows_as_json(table.slice(place, 1))
        self._bury_entry(event, push_source, row, reason, view)

    def _bury_entries(self, entries: Sequence[tuple[int, Events]], reason: str) -> None:
        letters = []
        for entry_id, events in entries:
            to = "online_and_offline" if events.is_landed and events.is_applied else "online"
            to = to if events.is_applied else "offline"
            try:
                rows = rows_as_json(table_of(self._context.schema(events.schema_tag), events.columns))
            except _POISON as error:
                rows, to, reason = [""] * events.row_count, "", f"{reason}; {error}"
            for event, row in zip(row_ids(entry_id, events.row_count), rows, strict=True):
                letters.append(self._letter(event, events.push_source, row, reason, to))
        self._context.bury(letters)

    def _bury_entry(self, event: int, push_source: str, row: str, reason: str, view: str = "") -> None:
        # Its other views have the row, and maybe the files: a replay would count it twice there.
        self._context.bury([self._letter(event, push_source, row, reason, "", view)])

    def _letter(self, event: int, push_source: str, row: str, reason: str, to: str, view: str = "") -> DeadLetter:
        place = f"log/{self._context.log.name}/{self.partition}/{event}" + (f"/{view}" if view else "")
        return DeadLetter(place, push_source, row, to, reason, self._context.clock.now_us())
