"""What the footers of Parquet files say, kept as long as a file stays the same."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from store.errors import SourceUnreadable
from store.kernel.source_scan import EventRange
from store.limits import FOOTERS_MAX
from store.offline.id_ranges import IdRanges, id_ranges

_FOOTER_BYTES_GUESSED = 64 * 1024
SETTLED_NS = 2_000_000_000
"""Age from which a file's stamp identifies its content: two writes within one tick of a file system's clock (4 ms on
Linux, 2 s on FAT) get the same modification time."""

_PER_US = {"milliseconds": (1_000, 1), "microseconds": (1, 1), "nanoseconds": (1, 1_000)}
_US_PER_DAY = 86_400_000_000
_NO_TIMES = EventRange(1, 0)


@dataclass(frozen=True, slots=True)
class Footer:
    """What a Parquet file says about itself.

    `int96` names the columns of Spark's old timestamp type, which DuckDB reads in microseconds (all that Spark has),
    although Arrow calls them nanoseconds. `ranges` holds the range of each column of times that tells it. `stamp`
    changes when the file does. `id_ranges` holds by log and partition of which events it has the rows.
    """

    schema: pa.Schema
    int96: frozenset[str]
    rows: int
    ranges: Mapping[str, EventRange]
    stamp: tuple[int, ...]
    id_ranges: IdRanges = field(default_factory=dict)

    def describes(self, path: str) -> bool:
        """Whether the file is still the one that was read."""
        try:
            return _stamp(path) == self.stamp
        except SourceUnreadable:
            return False


def read_footers(paths: Iterable[str]) -> list[Footer]:
    """Returns the footers of files, in the order of their paths; one stat each for those that are known.

    Raises:
        SourceUnreadable: a file is missing, not whole, not permitted or not Parquet; it is named.
    """
    stamped = [(path, _stamp(path)) for path in paths]
    # Threads would only slow this down (0.13 ms a footer, 0.22 with threads: parsing holds the interpreter). What can
    # take long is the disk, and the kernel fetches from many files at once if told so before they are read.
    if len(stamped) > _footer.cache_info().currsize:
        for path, _ in stamped:
            _read_ahead(path)
    now_ns = time.time_ns()
    return [
        _footer(path, stamp) if stamp[1] < now_ns - SETTLED_NS else _footer.__wrapped__(path, stamp)
        for path, stamp in stamped
    ]


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)  # noqa: PTH116 - at each retrieval for thousands of files
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_size, max(status.st_mtime_ns, status.st_ctime_ns), status.st_ino, status.st_dev


def _read_ahead(path: str) -> None:
    """Asks the kernel to fetch the end of a file, and does not wait for it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # whoever reads it says why it cannot be read
    try:
        start = max(0, os.fstat(descriptor).st_size - _FOOTER_BYTES_GUESSED)
        os.posix_fadvise(descriptor, start, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=FOOTERS_MAX)
def _footer(path: str, stamp: tuple[int, ...]) -> Footer:
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
            int96 = frozenset(leaf.path for leaf in leaves if leaf.physical_type == "INT96")
            schema = _shared(file.schema_arrow.remove_metadata())
            ranges = _ranges(metadata, leaves, schema)
            return Footer(schema, int96, metadata.num_rows, ranges, stamp, id_ranges(path, metadata.metadata))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


@lru_cache(maxsize=1_000)
def _shared(schema: pa.Schema) -> pa.Schema:
    """Returns the same object for equal schemas: thousands of files mostly share one."""
    return schema


def _ranges(metadata: Any, leaves: list[Any], schema: pa.Schema) -> Mapping[str, EventRange]:
    times = {field.name for field in schema if pat.is_timestamp(field.type) or pat.is_date(field.type)}
    found = {leaf.path: _range(metadata, i, leaf) for i, leaf in enumerate(leaves) if leaf.path in times}
    return {name: known for name, known in found.items() if known is not None}


def row_group_ranges(metadata: Any, name: str) -> list[EventRange | None]:
    """Returns the ranges of a column of times in each row group, None where one does not tell."""
    leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    column = next(i for i, leaf in enumerate(leaves) if leaf.path == name)
    return list(_group_ranges(metadata, column, leaves[column]))


def _range(metadata: Any, column: int, leaf: Any) -> EventRange | None:
    """Returns the range of a column over all row groups, None if one of them does not tell."""
    if _unit(leaf) is None:
        return None
    whole = _NO_TIMES
    for known in _group_ranges(metadata, column, leaf):
        if known is None:
            return None
        if whole is _NO_TIMES:
            whole = known
        elif known is not _NO_TIMES:
            whole = EventRange(min(whole.low_us, known.low_us), max(whole.high_us, known.high_us))
    return whole


def _group_ranges(metadata: Any, column: int, leaf: Any) -> Iterator[EventRange | None]:
    unit = _unit(leaf)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        statistics = group.column(column).statistics if group.num_rows else None
        if group.num_rows and statistics is None:
            yield None
        elif statistics is None or (statistics.has_null_count and statistics.null_count == group.num_rows):
            yield _NO_TIMES
        elif unit is None or not statistics.has_min_max:
            yield None
        else:
            factor, divisor = unit
            yield EventRange(statistics.min_raw * factor // divisor, statistics.max_raw * factor // divisor)


def _unit(leaf: Any) -> tuple[int, int] | None:
    """Returns factor and divisor from stored integers to microseconds; None if their order is not that of the times.

    The stored integers are taken, not the values that Arrow makes of them: those end at the year 9999 and round.
    """
    logical = json.loads(leaf.logical_type.to_json())
    if leaf.physical_type == "INT64" and logical.get("Type") == "Timestamp":
        return _PER_US.get(logical["timeUnit"])
    if leaf.physical_type == "INT32" and logical.get("Type") == "Date":
        return _US_PER_DAY, 1
    return None


def _unreadable(path: str, error: Exception) -> SourceUnreadable:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return SourceUnreadable(f"source file {path!r} cannot be read as Parquet ({reason}); restore it or write it anew")
