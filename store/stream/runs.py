"""Rows of the log that can be worked on together, and as events of a view."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from store.kernel.log_entries import Events, row_ids
from store.kernel.stream_tiles import StreamEvent
from store.stream.routes import StreamedView
from store.stream.rows import window_values


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Rows of entries that follow each other in the log and differ in nothing but their rows.

    `line_ids` are the ids under which they entered the log first, `ids` those in this partition.
    """

    events: Events
    ids: list[int]
    line_ids: list[int]


def events_as_they_are(
    view: StreamedView,
    rows: LoggedRows,
    table: pa.Table,
    places: list[int],
    keys: list[bytes | None],
    times: tuple[list[int | None], list[int | None]],
) -> dict[bytes, list[StreamEvent]]:
    """Returns rows as events of a view by key."""
    columns = [_input(view, name, table) for name in view.inputs]
    listed = list(zip(keys, rows.ids, rows.line_ids, *times, zip(*columns, strict=True), strict=True))
    events: defaultdict[bytes, list[StreamEvent]] = defaultdict(list)
    is_landed = rows.events.is_landed
    is_all = len(places) == table.num_rows
    for key, log_id, line_id, at_us, known_us, row in listed if is_all else [listed[p] for p in places]:
        if key is not None and at_us is not None:
            events[key].append(StreamEvent(log_id, line_id, is_landed, at_us, known_us, row))
    return events


def _input(view: StreamedView, name: str, table: pa.Table) -> list[Any]:
    """Returns an input column of a view; rows from before the column was declared have nulls there."""
    if name not in table.column_names:
        return [None] * table.num_rows
    return window_values(view.name, name, table.column(name))


def runs_of(entries: Sequence[tuple[int, Events]]) -> Iterator[LoggedRows]:
    """Yields the rows of one source's entries, those together that have one schema and entity set."""

    def kind(entry: tuple[int, Events]) -> Any:
        said = entry[1]
        return said.schema_tag, said.entity_set, said.line_ids is None, said.is_landed, said.is_applied

    for _, group in groupby(entries, key=kind):
        listed = list(group)
        columns: list[list[Any]] = [[] for _ in listed[0][1].columns]
        rows = LoggedRows(listed[0][1]._replace(columns=columns), [], [])
        for entry_id, events in listed:
            ids = row_ids(entry_id, events.row_count)
            rows.ids.extend(ids)
            rows.line_ids.extend(ids if events.line_ids is None else events.line_ids)
            for column, values in zip(columns, events.columns, strict=True):
                column.extend(values)
        yield rows
