"""The searches of a retrieval: one per distinct history, whatever number of feature views reads it."""

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from store.errors import SourceUnreadable
from store.kernel.as_of import AskedRows, AsOfSearch, Matches, SourceChunk
from store.kernel.instants import NO_ROW, Instants, Ints, Truths
from store.kernel.point_in_time import Window, candidates_sql, features_sql
from store.kernel.source_scan import ROW_BITS, Scan
from store.offline.connection import batches_of
from store.offline.entity_rows import EntityBlock

_GIVEN = "larder_given"
CHUNK_ROWS = 100_000
"""Rows of a source that are searched at a time: few enough that their arrays stay in the processor's caches, and enough
that what each call costs does not count."""

_US_MAX = 2**62
"""A time to live beyond this many microseconds (146,000 years) is none."""


@dataclass(frozen=True, slots=True)
class AskedKeys:
    """The keys of a block of entity rows: the code of each row's, the table of all of them, and the rows to search."""

    codes: Ints
    table: str
    rows: AskedRows

    @classmethod
    def of(cls, block: EntityBlock, codes: Ints, table: str, *, is_ns: bool) -> "AskedKeys":
        """Returns keys from their codes; entity rows without a time are not searched for."""
        times = _in_ns(block.instants) if is_ns else block.instants
        return cls(codes, table, AskedRows.of(np.where(block.is_timed, codes, NO_ROW), times))


@dataclass(frozen=True, slots=True)
class History:
    """What is searched: the rows of a scan, limited to those that a time to live of any reader can reach.

    `number` tells it from the others of a retrieval; `ttl_us` is the longest of the readers' times to live, 0 for no
    limit.
    """

    number: int
    scan: Scan
    ttl_us: int
    has_cutoff: bool

    @property
    def wanted_table(self) -> str:
        """Returns the name of the table of positions to fetch."""
        return f"larder_wanted_{self.number}"

    def window(self, block: EntityBlock) -> Window | None:
        """Returns the times among which rows can answer a block; None where none can."""
        times = block.instants.us[block.is_timed]
        if not len(times):
            return None
        return self.window_between(int(times.min()), int(times.max()))

    def window_between(self, low_us: int | None, high_us: int | None) -> Window:
        """Returns the times among which rows can answer entity rows between two instants, both ends inclusive."""
        low = None if low_us is None or not 0 < self.ttl_us < _US_MAX else low_us - self.ttl_us
        return Window(low, high_us, high_us if self.has_cutoff else None)

    def is_ns(self, block: EntityBlock) -> bool:
        """Whether nanoseconds play a part for a block: instants are compared at the finest unit of either side."""
        return self.scan.is_ns or block.instants.ns is not None

    def search(self, cursor: duckdb.DuckDBPyConnection, block: EntityBlock, keys: AskedKeys) -> Matches:
        """Returns for each entity row of a block the newest row of its key, whether or not it is too old.

        Args:
            keys: made for this block, with nanoseconds if `is_ns` says so.
        """
        if self.has_cutoff or not self.scan.has_created:
            return self._searched(cursor, block, keys, has_created=self.has_cutoff)
        # Created times decide only between rows of the same event time, so they are read only where there are such.
        matches = self._searched(cursor, block, keys, has_created=False)
        if not matches.is_tied.any():
            return matches
        tied, tied_table = np.where(matches.is_tied, keys.codes, NO_ROW), f"larder_tied_{self.number}"
        if self.scan.key_names:
            cursor.register(_GIVEN, pa.table({"code": np.unique(tied[matches.is_tied])}))
            selected = f"SELECT * FROM {keys.table} SEMI JOIN {_GIVEN} USING (code)"
            cursor.execute(f"CREATE OR REPLACE TABLE {tied_table} AS {selected}")
            cursor.unregister(_GIVEN)
        tied_keys = AskedKeys.of(block, tied, tied_table, is_ns=self.is_ns(block))
        decided = self._searched(cursor, block, tied_keys, has_created=True)
        positions = np.where(matches.is_tied, decided.positions, matches.positions)
        return Matches(positions, matches.event, matches.is_tied)

    def _searched(
        self,
        cursor: duckdb.DuckDBPyConnection,
        block: EntityBlock,
        keys: AskedKeys,
        *,
        has_created: bool,
    ) -> Matches:
        search = AsOfSearch(keys.rows, has_created=has_created, has_cutoff=self.has_cutoff)
        window, is_ns = self.window(block), self.is_ns(block)
        if window is not None:
            sql = candidates_sql(self.scan, keys.table, window, is_ns=is_ns, has_created=has_created)
            for chunk in batches_of(cursor.sql(sql).to_arrow_reader(CHUNK_ROWS)):
                search.add(_source_chunk(chunk, is_ns=is_ns, has_created=has_created))
        return search.matches()

    def candidates_sql(self, window: Window, keys_table: str) -> str:
        """Returns the SELECT of the rows that can answer."""
        has_ns = self.scan.is_ns
        return candidates_sql(self.scan, keys_table, window, is_ns=has_ns, has_created=self.has_cutoff)


def is_fresh(matches: Matches, block: EntityBlock, ttl_us: int) -> Truths:
    """Returns for each entity row whether it has an answer that is not older than the time to live (0: no limit)."""
    is_found: Truths = matches.positions != NO_ROW
    if not 0 < ttl_us < _US_MAX:
        return is_found
    oldest = Instants(block.instants.us - ttl_us, block.instants.ns)
    if matches.event.ns is not None:
        oldest = _in_ns(oldest)
    fresh: Truths = is_found & ~oldest.is_after(matches.event)
    return fresh


@dataclass(frozen=True, slots=True)
class FetchedRows:
    """Features `f0..` of the rows that answer some entity rows, and which entity row each of them answers.

    `places` has for each entity row the place of its answer among the features; it means nothing where there is none.
    """

    features: pa.Table
    places: Ints


def fetch(cursor: duckdb.DuckDBPyConnection, history: History, matches: Matches, is_wanted: Truths) -> FetchedRows:
    """Returns the features of the rows that answer the wanted entity rows, each row once."""
    scan, wanted_table = history.scan, history.wanted_table
    positions, numbers = _distinct(matches.positions[is_wanted])
    places = np.zeros(len(is_wanted), dtype=np.int64)
    places[is_wanted] = numbers
    event_us = matches.event.us[is_wanted]
    window = Window(int(event_us.min()), int(event_us.max())) if len(positions) else Window(1, 0)
    cursor.register(_GIVEN, pa.table({"ptr": positions}))
    cursor.execute(f"CREATE OR REPLACE TABLE {wanted_table} AS FROM {_GIVEN}")
    cursor.unregister(_GIVEN)
    files = set(_distinct_of_sorted(positions >> ROW_BITS).tolist())
    rows = cursor.sql(features_sql(scan.holding(files), wanted_table, window)).to_arrow_table()
    found, features = rows.column("ptr").to_numpy(), rows.drop_columns(["ptr"])
    if not np.array_equal(found, positions):
        if len(found) != len(positions):
            raise SourceUnreadable("rows that were found are no longer there; retrieve again")
        standing = np.argsort(found)
        places = standing[places] if len(positions) else places
    return FetchedRows(features, places)


def _distinct(values: Ints) -> tuple[Ints, Ints]:
    """Returns the distinct values in ascending order, and for each value its place among them."""
    order = np.argsort(values)
    ordered = values[order]
    is_new = _differs_from_last(ordered)
    numbers = np.empty(len(values), dtype=np.int64)
    numbers[order] = np.cumsum(is_new) - 1
    return ordered[is_new], numbers


def _distinct_of_sorted(values: Ints) -> Ints:
    return values[_differs_from_last(values)]


def _differs_from_last(values: Ints) -> Truths:
    """Returns for each value whether it differs from the one before."""
    is_new = np.ones(len(values), dtype=bool)
    is_new[1:] = values[1:] != values[:-1]
    return is_new


def _source_chunk(chunk: pa.RecordBatch, *, is_ns: bool, has_created: bool) -> SourceChunk:
    if chunk.column("e_us").null_count:
        chunk = chunk.filter(chunk.column("e_us").is_valid())
    columns = {name: chunk.column(name).to_numpy() for name in chunk.schema.names}
    return SourceChunk(
        columns["code"],
        Instants(columns["e_us"], columns["e_ns"] if is_ns else None),
        Instants(columns["c_us"], columns["c_ns"] if is_ns else None) if has_created else None,
        columns["ptr"],
    )


def _in_ns(instants: Instants) -> Instants:
    return instants if instants.ns is not None else Instants(instants.us, np.zeros_like(instants.us))
