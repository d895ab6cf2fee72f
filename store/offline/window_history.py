"""The search for windowed features: the events of one source, for all windowed views that read them alike."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import InputError, shown
from store.kernel.instants import Instants, Truths
from store.kernel.point_in_time import Window, events_sql
from store.kernel.source_scan import Scan
from store.kernel.window_answers import FeatureAnswers
from store.kernel.window_events import EventChunk
from store.kernel.window_search import AskedWindows, WindowSearch
from store.kernel.windows import WindowFeature, reach_us
from store.offline.connection import ConnectionSettings, batches_of
from store.offline.entity_rows import EntityBlock
from store.offline.searches import CHUNK_ROWS, AskedKeys
from store.offline.window_spool import EventSpool
from store.offline.window_values import ValueColumn, lists_of

_VALUED = frozenset({"min", "max", "first", "last"})
"""Functions that answer values of the column."""


@dataclass(frozen=True, slots=True)
class WindowHistory:
    """What is searched: events of a scan, whose features are the columns that are aggregated.

    Attributes:
        features: of all views that share the search.
        columns: the aggregated columns by their names in the file, in the order of the scan's features.
        key_columns: the entity rows' columns of the join keys.
        owner: whose features they are, for messages.
    """

    scan: Scan
    features: tuple[WindowFeature, ...]
    columns: tuple[str, ...]
    key_columns: tuple[str, ...]
    has_cutoff: bool
    owner: str

    def is_ns(self, block: EntityBlock) -> bool:
        """Whether nanoseconds play a part for a block."""
        return self.scan.is_ns or block.instants.ns is not None

    def window_between(self, low_us: int | None, high_us: int | None) -> Window:
        """Returns the times among which events can count for entity rows between two instants, both ends inclusive."""
        low = None if low_us is None else low_us - reach_us(self.features)
        return Window(low, high_us, high_us if self.has_cutoff else None)

    def events_sql(self, window: Window, keys_table: str) -> str:
        """Returns the SELECT of the events that can count."""
        return events_sql(self.scan, keys_table, window, is_ns=self.scan.is_ns, has_created=self._has_created)

    def search(
        self,
        cursor: duckdb.DuckDBPyConnection,
        block: EntityBlock,
        keys: AskedKeys,
        settings: ConnectionSettings,
        memory_bytes: int,
    ) -> list[pa.Array]:
        """Returns the features of a block of entity rows, in the order of `features`.

        Args:
            keys: made for this block, with nanoseconds if `is_ns` says so.
            settings: how many threads may be used, and where events may be spilled to.
            memory_bytes: how much memory the events of a block may take before that.

        Raises:
            InputError: a sum of integers that no 64 bits hold.
        """
        asked = AskedWindows(keys.rows, self.features, self.is_ns(block), self.has_cutoff, self._has_created)
        search = WindowSearch(asked)
        spool = EventSpool(search.group_count, memory_bytes, settings.spill_folder)
        times = block.instants.us[block.is_timed]
        low, high = (int(times.min()), int(times.max())) if len(times) else (1, 0)
        sql = events_sql(
            self.scan, keys.table, self.window_between(low, high), is_ns=asked.is_ns, has_created=self._has_created
        )
        reader = cursor.sql(sql).to_arrow_reader(CHUNK_ROWS)
        values = [
            ValueColumn(name, reader.schema.field(place).type)
            for name, place in zip(self.columns, self.scan.feature_names, strict=True)
        ]
        if len(keys.rows.rows):
            for chunk in self._chunks(batches_of(reader), values, is_ns=asked.is_ns):
                for group, events in search.chosen(chunk):
                    spool.add(group, events)
        _answer_groups(search, spool, values, settings.threads or os.cpu_count() or 1)
        return [
            self._column(feature, found, values[self.columns.index(feature.column)], block, keys)
            for feature, found in zip(self.features, search.answers.features, strict=True)
        ]

    @property
    def _has_created(self) -> bool:
        """Whether created times are read: they cut, or decide between first and last events of one time."""
        is_decided = self.scan.has_created and any(f.function.name in ("first", "last") for f in self.features)
        return self.has_cutoff or is_decided

    def _chunks(
        self, batches: Iterator[pa.RecordBatch], values: Sequence[ValueColumn], *, is_ns: bool
    ) -> Iterator[EventChunk]:
        has_created = self._has_created
        for batch in batches:
            if batch.column("e_us").null_count:
                batch = batch.filter(batch.column("e_us").is_valid())  # noqa: PLW2901 - the events without a null time
            column = {name: batch.column(name).to_numpy() for name in batch.schema.names if not name.startswith("f")}
            read = [
                value.integers(batch.column(place))
                for value, place in zip(values, self.scan.feature_names, strict=True)
            ]
            yield EventChunk(
                column["code"],
                Instants(column["e_us"], column["e_ns"] if is_ns else None),
                Instants(column["c_us"], column["c_ns"] if is_ns else None) if has_created else None,
                tuple(integers for integers, _ in read),
                tuple(is_counted for _, is_counted in read),
            )

    def _column(
        self,
        feature: WindowFeature,
        found: FeatureAnswers,
        values: ValueColumn,
        block: EntityBlock,
        keys: AskedKeys,
    ) -> pa.Array:
        """Returns a feature in the order of the entity rows."""
        rows = keys.rows
        if found.beyond:
            self._refuse(feature, block, int(rows.rows[found.beyond].min()))
        is_count = feature.function.name == "count"
        placed = np.zeros(rows.total, dtype=found.values.dtype)
        is_valid = np.zeros(rows.total, dtype=bool)
        if is_count:
            # A key that the source's type cannot hold has no event; it is none that is missing.
            is_valid |= block.is_timed & self._has_keys(block)
        placed[rows.rows] = found.values
        is_valid[rows.rows] = found.is_valid
        if feature.function.name not in _VALUED:
            return pa.array(placed, mask=~is_valid, from_pandas=False)
        if not feature.function.parameter:
            return values.values(placed.view(np.int64), is_valid)
        lengths = np.where(found.is_valid, found.values, 0)
        all_there = np.ones(len(found.elements), dtype=bool)
        lists = lists_of(values.values(found.elements, all_there), lengths.astype(np.int64), found.is_valid)
        places = np.zeros(rows.total, dtype=np.int64)
        places[rows.rows] = np.arange(len(rows.rows))
        return lists.take(pa.array(places, mask=~is_valid))

    def _has_keys(self, block: EntityBlock) -> Truths:
        """Returns which entity rows have no null in their key."""
        has_keys = np.ones(block.table.num_rows, dtype=bool)
        for name in self.key_columns:
            has_keys &= ~pc.is_null(block.table.column(name), nan_is_null=True).to_numpy()
        return has_keys

    def _refuse(self, feature: WindowFeature, block: EntityBlock, row: int) -> None:
        entity_row = block.table.slice(row, 1).to_pylist()[0]
        raise InputError(
            f"{self.owner}: feature {feature.name!r}: the sum of integers for entity row {shown(entity_row)} is beyond "
            "64 bits; leave the row out, or write the column as floating-point numbers"
        )


def _answer_groups(search: WindowSearch, spool: EventSpool, values: Sequence[ValueColumn], threads: int) -> None:
    columns = [value.input_column() for value in values]

    def answer(group: int) -> None:
        search.answer(group, spool.taken(group), columns)

    if threads == 1 or search.group_count <= 1:
        for group in range(search.group_count):
            answer(group)
        return
    with ThreadPoolExecutor(threads, "larder-windows") as pool:
        under_way = [pool.submit(answer, group) for group in range(search.group_count)]
        try:
            for future in under_way:
                future.result()
        except BaseException:
            for future in under_way:
                future.cancel()
            raise
