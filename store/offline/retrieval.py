"""Point-in-time retrieval: planned and checked against files and entity rows first, then run block by block.

A block of entity rows is searched in each distinct history (`searches`), then the features of the rows found are
fetched and put beside the entity rows. Memory is bounded by the block and by the chunk of a source that is searched at
a time (`budget`), so neither the number of entity rows nor that of source rows has to fit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import duckdb
import numpy as np
import pyarrow as pa

from store.errors import LarderError
from store.kernel.as_of import Matches
from store.kernel.instants import Ints
from store.kernel.point_in_time import features_sql
from store.offline.budget import Budget, budget_of
from store.offline.column_types import answer_type
from store.offline.connection import ConnectionSettings, connected
from store.offline.entity_keys import key_codes
from store.offline.entity_rows import EntityBlock, EntityRows
from store.offline.gather import Gatherer
from store.offline.join_keys import join_key_column
from store.offline.planned import JoinKey, Planned, PlannedHistory, PlannedWindows, ViewPart, WindowPart
from store.offline.progress import Progress
from store.offline.searches import AskedKeys, fetch, is_fresh

_GIVEN = "larder_given"

_LIST_ELEMENTS_MAX = 2**31 - 1
"""Elements that the lists of one column of a block can have: Arrow counts them in 32 bits."""

_PartTables: TypeAlias = list[tuple[ViewPart | WindowPart, pa.Table]]
"""The features of each feature view that a search answers, aligned with the entity rows of a block."""


@dataclass(frozen=True)
class HistoricalAnswer:
    """A retrieval that is ready to run, as often as it is asked for: entity rows, and the histories to search."""

    rows: EntityRows
    histories: tuple[Planned, ...]
    settings: ConnectionSettings

    @property
    def sql(self) -> str:
        """Returns all that runs inside DuckDB for a block of entity rows, as text."""
        low, high = self.rows.time_range_us
        statements = []
        for history in self.histories:
            shown = history.search.window_between(low, high)
            if isinstance(history, PlannedWindows):
                statements.append(
                    f"-- events that can count for {history.owner}: they are aggregated per entity row among them\n"
                    + history.search.events_sql(shown, _keys_table(history.keys))
                )
                continue
            statements.append(
                f"-- rows that can answer {history.owner}: the newest of each key by then is found among them\n"
                + history.search.candidates_sql(shown, _keys_table(history.keys))
            )
            statements.append(
                f"-- features of the rows found for {history.owner}\n"
                + features_sql(history.search.scan, history.search.wanted_table, shown)
            )
        return ";\n\n".join(statements)

    def table(self) -> pa.Table:
        """Returns the entity rows, untouched, with the feature columns after them."""
        return pa.concat_tables(self._tables())

    def batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:
        """Yields the answer in order, in batches of at most `rows_max` rows; one empty batch if there are no rows."""
        for table in self._tables():
            whole = table.combine_chunks().to_batches(max_chunksize=rows_max)
            yield from whole or [pa.RecordBatch.from_pylist([], schema=table.schema)]

    def _tables(self) -> Iterator[pa.Table]:
        """Yields the answer block by block; at least one."""
        with connected(self._locked_settings, self._readable, keeps_order=True) as connection:
            total = 2 * len(self.histories) * max(1, -(-self.rows.row_count // self._budget.block_rows))
            with Progress(total, "retrieving") as progress:
                is_empty = True
                for block in self.rows.blocks(self._budget.block_rows):
                    is_empty = False
                    yield self._checked_block(connection, block, progress)
                if is_empty:
                    yield self._checked_block(connection, self._empty_block(), progress)

    def _checked_block(self, connection: duckdb.DuckDBPyConnection, block: EntityBlock, progress: Progress) -> pa.Table:
        """Returns a block, sure that all of it comes from the files that were planned with."""
        try:
            table = self._block(connection, block, progress)
        except (LarderError, duckdb.Error):
            # If a file was changed meanwhile, that is what to say, whatever it led to.
            self._require_unchanged()
            raise
        self._require_unchanged()
        return table

    def _require_unchanged(self) -> None:
        for source in {id(history.source): history.source for history in self.histories}.values():
            source.require_unchanged()

    def _block(self, connection: duckdb.DuckDBPyConnection, block: EntityBlock, progress: Progress) -> pa.Table:
        """Returns one block of entity rows with the features of all histories beside them."""
        keys = self._asked_keys(connection, block)
        cursors = [connection.cursor() for _ in self.histories]

        def search(number: int) -> Matches | _PartTables:
            found = self._search(self.histories[number], cursors[number], block, keys)
            progress.advance()
            return found

        def answer_by(number: int, found: Matches | _PartTables) -> _PartTables:
            history = self.histories[number]
            if isinstance(history, PlannedHistory):
                assert isinstance(found, Matches)
                found = _columns_of(cursors[number], history, block, found)
            cursors[number].close()
            progress.advance()
            assert not isinstance(found, Matches)
            return found

        columns: dict[int, pa.Table] = {}
        for found in _each(search, answer_by, cursors, self._budget.workers):
            columns |= {part.number: table for part, table in found}
        answer = block.table
        for number in sorted(columns):
            for field, column in zip(columns[number].schema, columns[number].columns, strict=True):
                answer = answer.append_column(field, column)
        return answer

    def _search(
        self,
        history: Planned,
        cursor: duckdb.DuckDBPyConnection,
        block: EntityBlock,
        keys: Mapping[tuple[tuple[JoinKey, ...], bool], AskedKeys],
    ) -> "Matches | _PartTables":
        """Returns the rows that answer a block, or of windows the answers, which need no second look at the source."""
        asked = keys[history.keys, history.search.is_ns(block)]
        if isinstance(history, PlannedHistory):
            return history.search.search(cursor, block, asked)
        found = history.search.search(cursor, block, asked, self.settings, self._budget.event_bytes)
        return [(part, _named(part, [found[place] for place in part.places])) for part in history.parts]

    def _asked_keys(
        self, connection: duckdb.DuckDBPyConnection, block: EntityBlock
    ) -> dict[tuple[tuple[JoinKey, ...], bool], AskedKeys]:
        """Returns a block's keys by key columns and by whether nanoseconds play a part, having made their tables."""
        codes: dict[tuple[JoinKey, ...], Ints] = {}
        for keys in dict.fromkeys(history.keys for history in self.histories):
            columns = [join_key_column(block.table, key.column, key.source_types, key.owner) for key in keys]
            found = key_codes(columns, block.table.num_rows)
            codes[keys] = found.codes
            if found.keys is not None:
                connection.register(_GIVEN, found.keys)
                connection.execute(f"CREATE OR REPLACE TABLE {_keys_table(keys)} AS FROM {_GIVEN}")
                connection.unregister(_GIVEN)
        wanted = {(history.keys, history.search.is_ns(block)) for history in self.histories}
        return {
            (keys, is_ns): AskedKeys.of(block, codes[keys], _keys_table(keys), is_ns=is_ns) for keys, is_ns in wanted
        }

    def _empty_block(self) -> EntityBlock:
        table = self.rows.schema.empty_table()
        return EntityBlock.of(table, self.rows.timestamp_column)

    @cached_property
    def _budget(self) -> Budget:
        types = [kind for history in self.histories for kind in history.feature_types]
        found = budget_of(self.settings, types, self.rows.row_count, len(self.histories))
        lists = [history.kept_values for history in self.histories if isinstance(history, PlannedWindows)]
        return replace(found, block_rows=min(found.block_rows, _LIST_ELEMENTS_MAX // max(lists, default=1)))

    @property
    def _locked_settings(self) -> ConnectionSettings:
        if self.settings.memory_limit is None:
            return self.settings
        return replace(self.settings, memory_limit=f"{self._budget.duckdb_bytes}B")

    @property
    def _readable(self) -> list[str]:
        return sorted({path for history in self.histories for path in history.source.paths})


def _keys_table(keys: tuple[JoinKey, ...]) -> str:
    return "larder_keys_" + "_".join(str(key.number) for key in keys)


def _each(
    search: Callable[[int], Any],
    answer: Callable[[int, Any], Any],
    cursors: Sequence[duckdb.DuckDBPyConnection],
    workers: int,
) -> Iterator[Any]:
    """Yields `answer(n, search(n))` for 0, 1, ..., several at a time; on an error or an interrupt the others are ended.

    All searches begin before the first answer does, so that at the end there is still work for every worker.
    """
    if workers == 1 or len(cursors) == 1:
        yield from (answer(number, search(number)) for number in range(len(cursors)))
        return
    with ThreadPoolExecutor(workers, "larder-search") as pool:
        searches = [pool.submit(search, number) for number in range(len(cursors))]
        # Work is begun in the order in which it was given, so what an answer waits for is already on its way.
        answers = [
            pool.submit(lambda number, found: answer(number, found.result()), number, found)
            for number, found in enumerate(searches)
        ]
        try:
            for future in answers:
                yield future.result()
        except BaseException:
            for future in (*searches, *answers):
                future.cancel()
            for cursor in cursors:
                cursor.interrupt()
            raise


def _columns_of(
    cursor: duckdb.DuckDBPyConnection, history: PlannedHistory, block: EntityBlock, matches: Matches
) -> _PartTables:
    """Returns the columns of each feature view that reads a history, aligned with the entity rows of a block."""
    fresh = {ttl_us: is_fresh(matches, block, ttl_us) for ttl_us in {part.ttl_us for part in history.parts}}
    is_wanted = np.logical_or.reduce(list(fresh.values()))
    rows = fetch(cursor, history.search, matches, is_wanted)
    answers: _PartTables = []
    gatherers = {ttl_us: Gatherer(rows.places, is_answered) for ttl_us, is_answered in fresh.items()}
    for part in history.parts:
        columns = [gatherers[part.ttl_us].taken(rows.features.column(name)) for name in part.features]
        answers.append((part, _named(part, columns)))
    return answers


def _named(part: ViewPart | WindowPart, columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.Table:
    """Returns features under their names and in the types of the answer."""
    fitted = []
    for column, declared in zip(columns, part.requested.types, strict=True):
        wanted = answer_type(column.type, declared)
        # Types only widen; whole numbers beyond 2^53 that were declared as floating-point are rounded, as declared.
        fitted.append(column if column.type.equals(wanted) else column.cast(wanted, safe=False))
    return pa.table(fitted, names=list(part.requested.columns))
