"""One scan of a source for the profile of all columns, over several stretches of time at once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from store.kernel.instants import Ints
from store.kernel.profiles import Kind
from store.kernel.source_scan import Bounds, Scan, rows_sql
from store.limits import PROFILE_BATCH_CELLS, PROFILE_BATCH_ROWS, PROFILE_SUMS_MAX
from store.offline.column_sums import SummedColumn, TableSum
from store.offline.connection import ConnectionSettings, batches_of, connected
from store.offline.sources import Source

Stretch = tuple[int, int]
"""Event times from the first, inclusive, to the second, exclusive, in microseconds since the epoch."""

_EXPRESSIONS: Mapping[Kind, str] = {
    Kind.LIST: "len({0})",
    # Whether a value is there is all that is asked of it.
    Kind.OPAQUE: "CASE WHEN {0} IS NOT NULL THEN true END",
}


@dataclass(frozen=True, slots=True)
class SourceScan:
    """A source, opened, and its scan with the features that are looked at.

    Attributes:
        is_last_a_filter: the last feature of the scan, a truth, is not summed up; rows where it is true are left out.
    """

    source: Source
    scan: Scan
    settings: ConnectionSettings
    is_last_a_filter: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The internal names of the features that are summed up."""
        names = self.scan.feature_names
        return names[:-1] if self.is_last_a_filter else names

    @property
    def filters(self) -> tuple[str, ...]:
        """The internal name of the filter, if there is one."""
        return self.scan.feature_names[-1:] if self.is_last_a_filter else ()


class Extent(NamedTuple):
    """The first and last event time of a source, None of none, and how many rows have no event time."""

    first_us: int | None
    last_us: int | None
    without_time: int


_Each = TypeVar("_Each")


def _parts(items: Sequence[_Each], size: int) -> Iterator[Sequence[_Each]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def column_types(opened: SourceScan) -> list[pa.DataType]:
    """Returns the types in which DuckDB reads the features of a scan, in order.

    Raises:
        OfflineStoreError, SourceUnreadable: as DuckDB fails.
    """
    sql = f"SELECT * FROM ({rows_sql(opened.scan, False, opened.names)}) LIMIT 0"
    with connected(opened.settings, opened.source.paths) as connection:
        schema = connection.sql(sql).to_arrow_reader(1).schema
    return [field.type for field in schema] if opened.names else []


def extent_of(opened: SourceScan) -> Extent:
    """Returns between which times the rows of a source lie.

    Raises:
        OfflineStoreError, SourceUnreadable: as DuckDB fails.
    """
    rows = rows_sql(opened.scan, False, ["e_us", *opened.filters])
    where = "".join(f" WHERE {name} IS DISTINCT FROM true" for name in opened.filters)
    with connected(opened.settings, opened.source.paths) as connection:
        [found] = connection.sql(f"SELECT min(e_us), max(e_us), count(*) - count(e_us) FROM ({rows}){where}").fetchall()
    return Extent(*found)


def summed_stretches(
    opened: SourceScan, columns: Sequence[SummedColumn], stretches: Sequence[Stretch]
) -> list[TableSum]:
    """Returns what the rows of each stretch of time sum up to.

    Args:
        columns: the features of the scan, in order.
        stretches: in order of time; no two overlap.

    Raises:
        SourceError, OfflineStoreError, OutOfSpace: the source cannot be read, or was changed meanwhile.
    """
    found = [TableSum([]) for _ in stretches]
    for some in _parts(range(len(columns)), PROFILE_SUMS_MAX):
        chosen = [columns[number] for number in some]
        at_once = max(1, PROFILE_SUMS_MAX // len(chosen))
        place = 0
        for several in _parts(stretches, at_once):
            for summed in _scanned(opened, chosen, some[0], several):
                found[place].columns += summed.columns
                found[place].rows = summed.rows
                place += 1
    opened.source.require_unchanged()
    return found


def _scanned(
    opened: SourceScan, columns: Sequence[SummedColumn], first: int, stretches: Sequence[Stretch]
) -> list[TableSum]:
    names = opened.names[first : first + len(columns)]
    low, high = stretches[0][0], stretches[-1][1] - 1
    within = Bounds(low, high)
    selected = [_EXPRESSIONS.get(column.kind, "{0}").format(name) for column, name in zip(columns, names, strict=True)]
    rows = rows_sql(opened.scan.within(low, high), False, ["e_us", *names, *opened.filters], within)
    conditions = [within.condition("e_us"), *(f"{name} IS DISTINCT FROM true" for name in opened.filters)]
    sql = f"SELECT {', '.join(['e_us', *selected])} FROM ({rows}) WHERE {' AND '.join(conditions)}"
    batch_rows = min(PROFILE_BATCH_ROWS, max(2_048, PROFILE_BATCH_CELLS // (len(columns) + 1)))
    workers = opened.settings.threads or os.cpu_count() or 1
    with connected(opened.settings, opened.source.paths) as connection:
        shared = _Shared(batches_of(connection.sql(sql).to_arrow_reader(batch_rows)))
        works = [StretchSums(columns, stretches) for _ in range(workers)]
        with ThreadPoolExecutor(workers, "larder-profile") as pool:
            # What failed in a worker is raised here, when the others have seen that no batch is left for them.
            for done in [pool.submit(shared.hand_to, work) for work in works]:
                done.result()
    whole, *others = works
    for other in others:
        whole.merge(other)
    return whole.tables


@dataclass(slots=True)
class StretchSums:
    """What rows sum up to, by the stretches of time that they lie in; `tables` are in their order."""

    columns: Sequence[SummedColumn]
    stretches: Sequence[Stretch]
    tables: list[TableSum] = field(init=False)
    _starts: Ints = field(init=False)
    _ends: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.tables = [TableSum(self.columns) for _ in self.stretches]
        self._starts = np.array([start for start, _ in self.stretches], np.int64)
        self._ends = np.array([end for _, end in self.stretches], np.int64)

    def add(self, times_us: Ints, columns: Sequence[pa.Array]) -> None:
        """Adds rows, given by their times and columns; those outside of all stretches are left out."""
        if not len(times_us):
            return
        places = np.searchsorted(self._ends, times_us, side="right")
        outside = (places == len(self._ends)) | (times_us < self._starts[np.minimum(places, len(self._ends) - 1)])
        places[outside] = -1
        first = int(places[0])
        if (places == first).all():
            if first >= 0:
                self.tables[first].add(columns, len(times_us))
            return
        if (places[1:] < places[:-1]).any():
            order = np.argsort(places, kind="stable")
            places = places[order]
            columns = [column.take(pa.array(order)) for column in columns]
        for place in np.unique(places[places >= 0]).tolist():
            begin, end = np.searchsorted(places, [place, place + 1]).tolist()
            self.tables[place].add([column.slice(begin, end - begin) for column in columns], end - begin)

    def merge(self, other: "StretchSums") -> None:
        """Adds the rows of another."""
        for mine, theirs in zip(self.tables, other.tables, strict=True):
            mine.merge(theirs)


class _Shared:
    """Batches that several threads take turns with; when one fails, there are none left for the others."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._lock = Lock()
        self._is_over = False

    def _next(self) -> pa.RecordBatch | None:
        with self._lock:
            return None if self._is_over else next(self._batches, None)

    def hand_to(self, work: StretchSums) -> None:
        """Has one thread sum up batches until there are none."""
        try:
            while (batch := self._next()) is not None:
                times, *columns = batch.columns
                work.add(times.to_numpy(zero_copy_only=False), columns)
        except BaseException:
            with self._lock:
                self._is_over = True
            raise
