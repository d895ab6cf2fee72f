"""SQL that reads a source as rows of internal names: keys `k0..`, event time `e`, created time `c`, position `ptr`.

Names of the user's appear only as quoted columns of the file scan, whose output has internal names throughout; so no
feature, key or timestamp column can clash with a name that our SQL uses.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass

ROW_BITS = 36
"""Bits of a row's number in its file; 68 G rows a file leave 27 bits, 134 M files, of a signed 64-bit position."""

NANOSECONDS_PER_US = 1_000
LOWEST_INSTANT = -(2**62)
"""Stands for a null created time in tie-breaking: older than any instant that a timestamp can hold, in either unit."""


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """A timestamp column in a file, and whether it is stored in nanoseconds (else in microseconds or coarser)."""

    name: str
    is_ns: bool


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files of a source that hold the needed columns in the same types, so that one scan reads them all.

    `positions` are the files' places in the source, ascending, in the order of `paths`. A key of None is a column
    that holds nothing but nulls; a feature of None is one that these files were written without.
    """

    paths: tuple[str, ...]
    positions: tuple[int, ...]
    keys: tuple[str | None, ...]
    event: TimeColumn
    created: TimeColumn | None
    features: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """A source as groups of files that together hold all its rows."""

    groups: tuple[FileGroup, ...]

    @property
    def key_names(self) -> tuple[str, ...]:
        """Returns the internal names of the key columns."""
        return tuple(f"k{i}" for i in range(len(self.groups[0].keys)))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Returns the internal names of the feature columns."""
        return tuple(f"f{i}" for i in range(len(self.groups[0].features)))

    @property
    def has_created(self) -> bool:
        """Whether the source has a created timestamp."""
        return self.groups[0].created is not None

    @property
    def is_ns(self) -> bool:
        """Whether any of its times is stored in nanoseconds."""
        times = [time for group in self.groups for time in (group.event, group.created)]
        return any(time is not None and time.is_ns for time in times)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The instants that rows must lie between, both ends inclusive; None leaves that end open.

    Units: those of the query that uses them. With either bound, rows of a null event time are left out.
    """

    low: int | None = None
    high: int | None = None

    def condition(self, column: str) -> str:
        """Returns an SQL condition on an instant column; true where both ends are open."""
        parts = [f"{column} >= {self.low}"] if self.low is not None else []
        parts += [f"{column} <= {self.high}"] if self.high is not None else []
        return " AND ".join(parts) or "true"


def identifier(name: str) -> str:
    """Returns a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Returns a text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def rows_sql(scan: Scan, is_ns: bool, wanted: Sequence[str]) -> str:
    """Returns a SELECT of the wanted internal columns (`k0.., e, c, ptr, f0..`) over all files of a source.

    `e` and `c` are instants since the Unix epoch as integers: nanoseconds (HUGEINT) if `is_ns`, else microseconds
    (BIGINT). `ptr` grows with path order, then row order.
    """
    return " UNION ALL ".join(_group_sql(group, is_ns, wanted) for group in scan.groups)


def _group_sql(group: FileGroup, is_ns: bool, wanted: Sequence[str]) -> str:
    columns = {f"k{i}": _column(name) for i, name in enumerate(group.keys)}
    columns |= {f"f{i}": _column(name) for i, name in enumerate(group.features)}
    columns["e"] = _instant(group.event, is_ns)
    columns["ptr"] = _position(group)
    if group.created is not None:
        columns["c"] = _instant(group.created, is_ns)
    # A path is a pattern to DuckDB, so one with a bracket in its name has to be escaped to mean itself.
    paths = ", ".join(literal(glob.escape(path)) for path in group.paths)
    selected = ", ".join(f"{columns[name]} AS {name}" for name in wanted) or "1 AS one"
    return f"SELECT {selected} FROM read_parquet([{paths}], hive_partitioning=false) s"


def _column(name: str | None) -> str:
    return "NULL" if name is None else f"s.{identifier(name)}"


def _instant(column: TimeColumn, is_ns: bool) -> str:
    name = f"s.{identifier(column.name)}"
    if not is_ns:
        return f"epoch_us({name})"
    if column.is_ns:
        return f"CAST(epoch_ns({name}) AS HUGEINT)"
    # epoch_ns fails beyond year 2262, so coarser times are widened by hand: year 9999 is legal.
    return f"CAST(epoch_us({name}) AS HUGEINT) * {NANOSECONDS_PER_US}"


def _position(group: FileGroup) -> str:
    row = "s.file_row_number"
    if len(group.positions) == 1:
        return f"{row} + {group.positions[0] << ROW_BITS}"
    index = "CAST(s.file_index AS BIGINT)"
    first, last = group.positions[0], group.positions[-1]
    if last - first == len(group.positions) - 1:
        return f"(({index} + {first}) << {ROW_BITS}) + {row}"
    places = ", ".join(str(position) for position in group.positions)
    return f"(CAST([{places}][{index} + 1] AS BIGINT) << {ROW_BITS}) + {row}"
