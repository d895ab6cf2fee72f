"""One scan of a source for the profile of all columns, over several stretches of time at once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    """Returns between which times the rows of a source lie, from the footers of its files if they tell.

    Raises:
        OfflineStoreError, SourceUnreadable: as DuckDB fails.
    """
    told = None if opened.is_last_a_filter else _told_extent(opened)
    if told is not None:
        return told
    rows = rows_sql(opened.scan, False, ["e_us", *opened.filters])
    where = "".join(f" WHERE {name} IS DISTINCT FROM true" for name in opened.filters)
    with connected(opened.settings, opened.source.paths) as connection:
        [found] = connection.sql(f"SELECT min(e_us), max(e_us), count(*) - count(e_us) FROM ({rows}){where}").fetchall()
    return Extent(*found)


def _told_extent(opened: SourceScan) -> Extent | None:
    """Returns what footers say, None if one of them does not say all."""
    lows, highs, without_time = [], [], 0
    for group in opened.scan.groups:
        for path, held in zip(group.paths, group.event_ranges, strict=True):
            nulls = _null_count(path, group.event.name) if held is not None else None
            if held is None or nulls is None:
                return None
            without_time += nulls
            if held.low_us <= held.high_us:
                lows.append(held.low_us)
                highs.append(held.high_us)
    return Extent(min(lows, default=None), max(highs, default=None), without_time)


def _null_count(path: str, column: str | None) -> int | None:
    """Returns how many nulls a column of a file has, None if its footer does not say."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        # Who reads the rows will say what is wrong with the file.
        return None
    places = [place for place in range(metadata.num_columns) if metadata.schema.column(place).path == column]
    if len(places) != 1:
        return None
    nulls = 0
    for number in range(metadata.num_row_groups):
        statistics = metadata.row_group(number).column(places[0]).statistics
        if statistics is None or not statistics.has_null_count:
            return None
        nulls += statistics.null_count
    return nulls


def summed_stretches(
    opened: SourceScan, columns: Sequence[SummedColumn], stretches: Sequence[Stretch], extent: Extent | None = None
) -> list[TableSum]:
    """Returns what the rows of each stretch of time sum up to.

    Args:
        extent: that of the source, if it is known.
        columns: the features of the scan, in order.
        stretches: in order of time; no two overlap.

    Raises:
        SourceError, OfflineStoreError, OutOfSpace: the source cannot be read, or was changed meanwhile.
    """
    found = [TableSum([]) for _ in stretches]
    is_whole = extent is not None and _is_within(extent, stretches)
    for some in _parts(range(len(columns)), PROFILE_SUMS_MAX):
        chosen = [columns[number] for number in some]
        at_once = max(1, PROFILE_SUMS_MAX // len(chosen))
        place = 0
        for several in _parts(stretches, at_once):
            for summed in _scanned(opened, chosen, some[0], several, is_whole=is_whole):
                found[place].columns += summed.columns
                found[place].rows = summed.rows
                place += 1
    opened.source.require_unchanged()
    return found


def _is_within(extent: Extent, stretches: Sequence[Stretch]) -> bool:
    """Whether there is one stretch, and all rows lie in it."""
    if extent.first_us is None or extent.last_us is None or extent.without_time or len(stretches) != 1:
        return False
    [(start_us, end_us)] = stretches
    return start_us <= extent.first_us and extent.last_us < end_us


def _scanned(
    opened: SourceScan,
    columns: Sequence[SummedColumn],
    first: int,
    stretches: Sequence[Stretch],
    *,
    is_whole: bool,
) -> list[TableSum]:
    """Returns what rows sum up to.

    Args:
        is_whole: all rows are in the one stretch that there is, so that their times need not be read.
    """
    names = opened.names[first : first + len(columns)]
    low, high = stretches[0][0], stretches[-1][1] - 1
    within = Bounds(low, high)
    selected = [_EXPRESSIONS.get(column.kind, "{0}").format(name) for column, name in zip(columns, names, strict=True)]
    times = [] if is_whole else ["e_us"]
    rows = rows_sql(opened.scan.within(low, high), False, [*times, *names, *opened.filters], within)
    conditions = [] if is_whole else [within.condition("e_us")]
    conditions += [f"{name} IS DISTINCT FROM true" for name in opened.filters]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    sql = f"SELECT {', '.join([*times, *selected]) or '1 AS one'} FROM ({rows}){where}"
    batch_rows = min(PROFILE_BATCH_ROWS, max(2_048, PROFILE_BATCH_CELLS // (len(columns) + 1)))
    workers = opened.settings.threads or os.cpu_count() or 1
    with connected(opened.settings, opened.source.paths) as connection:
        shared = _Shared(batches_of(connection.sql(sql).to_arrow_reader(batch_rows)))
        works = [StretchSums(columns, stretches) for _ in range(workers)]
        with ThreadPoolExecutor(workers, "larder-profile") as pool:
            # What failed in a worker is raised here, when the others have seen that no batch is left for them.
            for done in [pool.submit(shared.hand_to, work, is_whole=is_whole) for work in works]:
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

    def hand_to(self, work: StretchSums, *, is_whole: bool) -> None:
        """Has one thread sum up batches until there are none; their first column are the times, unless all count."""
        try:
            while (batch := self._next()) is not None:
                if is_whole:
                    work.tables[0].add(batch.columns[: len(work.columns)], batch.num_rows)
                    continue
                times, *columns = batch.columns
                work.add(times.to_numpy(zero_copy_only=False), columns)
        except BaseException:
            with self._lock:
                self._is_over = True
            raise
