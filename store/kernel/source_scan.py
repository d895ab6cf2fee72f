"""SQL that reads a source as rows of internal names: keys `k0..`, event time `e`, created time `c`, position `ptr`.

Names of the user's appear only as quoted columns of the file scan, whose output has internal names throughout; so no
feature, key or timestamp column can clash with a name that our SQL uses.
"""

import glob
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import compress

ROW_BITS = 36
"""Bits of a row's number in its file; 68 G rows a file leave 27 bits, 134 M files, of a signed 64-bit position."""

NANOSECONDS_PER_US = 1_000
LOWEST_INSTANT = -(2**62)
"""Stands for a null created time in tie-breaking: older than any instant that a timestamp can hold, in either unit."""

_WORTH_COMPARING = 0.8
"""Comparing event times costs a scan of ten columns about a fifth of what it takes, so it has to leave out as much."""

_NULL = "NULL"
_NS_LAST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """Where the files of a group hold a key or feature.

    `name` is the column in the files. A column that stands in their paths has `constants` instead, one SQL text
    literal per file, read as the type `cast`; one with neither holds nothing but nulls. `cast` is the SQL type that
    makes the values alike in all groups, None where they already are. `is_whole_only` turns floats into integers, and
    those with a fraction (which equal no integer) into nulls.
    """

    name: str | None = None
    constants: tuple[str, ...] = ()
    cast: str | None = None
    is_whole_only: bool = False

    def kept(self, is_kept: Sequence[bool]) -> "SourceColumn":
        """Returns the column of those files of the group that are kept."""
        return replace(self, constants=tuple(compress(self.constants, is_kept)))


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """A timestamp column, and whether it is stored in nanoseconds (else in microseconds or coarser).

    One that stands in the files' paths has `constants` instead of a name: per file an instant in microseconds since
    the Unix epoch as an SQL literal. `is_zoned` is None unless the column is a timestamp in microseconds, else whether
    it has a zone: with it, bounds are compared as the file has them, which leaves out whole row groups unread.
    """

    name: str | None
    is_ns: bool
    constants: tuple[str, ...] = ()
    is_zoned: bool | None = None

    def kept(self, is_kept: Sequence[bool]) -> "TimeColumn":
        """Returns the column of those files of the group that are kept."""
        return replace(self, constants=tuple(compress(self.constants, is_kept)))


@dataclass(frozen=True, slots=True)
class EventRange:
    """The least and greatest event time of a file, both inclusive, in whole microseconds since the Unix epoch (floor).

    Without any event time `low_us` is above `high_us`.
    """

    low_us: int
    high_us: int

    def meets(self, low_us: int | None, high_us: int | None) -> bool:
        """Whether an event time of the file may lie between two instants, both inclusive; None leaves an end open."""
        if self.low_us > self.high_us:
            return False
        return (low_us is None or self.high_us >= low_us) and (high_us is None or self.low_us <= high_us)


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files of a source that hold the needed columns in the same types, so that one scan reads them all.

    `positions` are the files' places in the source, ascending, in the order of `paths`, as are `rows`, their numbers
    of rows, and `event_ranges` and `created_ranges` (None where a file does not tell; without a created column there
    are none). A group without files has no rows; its columns then have a `cast` each, which gives their types.
    """

    paths: tuple[str, ...]
    positions: tuple[int, ...]
    keys: tuple[SourceColumn, ...]
    event: TimeColumn
    created: TimeColumn | None
    features: tuple[SourceColumn, ...]
    rows: tuple[int, ...]
    event_ranges: tuple[EventRange | None, ...]
    created_ranges: tuple[EventRange | None, ...]

    def kept(self, is_kept: Sequence[bool]) -> "FileGroup":
        """Returns the group with only the files that are kept."""
        return FileGroup(
            paths=tuple(compress(self.paths, is_kept)),
            positions=tuple(compress(self.positions, is_kept)),
            keys=tuple(column.kept(is_kept) for column in self.keys),
            event=self.event.kept(is_kept),
            created=self.created.kept(is_kept) if self.created is not None else None,
            features=tuple(column.kept(is_kept) for column in self.features),
            rows=tuple(compress(self.rows, is_kept)),
            event_ranges=tuple(compress(self.event_ranges, is_kept)),
            created_ranges=tuple(compress(self.created_ranges, is_kept)),
        )


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

    @property
    def rows(self) -> int:
        """Returns the number of rows in all files."""
        return sum(sum(group.rows) for group in self.groups)

    @property
    def paths(self) -> list[str]:
        """Returns the paths of all files, group by group."""
        return [path for group in self.groups for path in group.paths]

    def within(self, low_us: int | None, high_us: int | None) -> "Scan":
        """Returns the scan without the files that hold no event time between two instants, both ends inclusive.

        What is left holds every row within the bounds, and may hold others: a query still has to compare. Files that
        do not tell their times stay. Where none would stay, one does, so that columns keep their types.

        Units: microseconds since the Unix epoch, rounded down; None leaves an end open.
        """
        if low_us is None and high_us is None:
            return self
        return self._kept(lambda group: [known is None or known.meets(low_us, high_us) for known in group.event_ranges])

    def holding(self, positions: Collection[int]) -> "Scan":
        """Returns the scan of only the files that stand at some positions of the source; of one, if none does."""
        return self._kept(lambda group: [position in positions for position in group.positions])

    def _kept(self, choose: Callable[[FileGroup], list[bool]]) -> "Scan":
        groups = []
        for group in self.groups:
            is_kept = choose(group)
            if any(is_kept):
                groups.append(group if all(is_kept) else group.kept(is_kept))
        if not groups:
            first = self.groups[0]
            groups.append(first.kept([position == 0 for position in range(len(first.paths))]))
        return Scan(tuple(groups))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The instants that rows must lie between, both ends inclusive; None leaves that end open.

    Units: those of the query that uses them. With either bound, rows of a null event time are left out.
    """

    low: int | None = None
    high: int | None = None

    def condition(self, column: str, literal_of: Callable[[int], str] = str) -> str:
        """Returns an SQL condition on an instant column; true where both ends are open."""
        parts = [f"{column} >= {literal_of(self.low)}"] if self.low is not None else []
        parts += [f"{column} <= {literal_of(self.high)}"] if self.high is not None else []
        return " AND ".join(parts) or "true"


def identifier(name: str) -> str:
    """Returns a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Returns a text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def rows_sql(scan: Scan, is_ns: bool, wanted: Sequence[str], within: Bounds | None = None) -> str:
    """Returns a SELECT of the wanted internal columns (`k0.., e, c, ptr, f0..`) over all files of a source.

    With `within`, in floor microseconds, rows whose event time lies elsewhere may be left out, as those without one:
    they are where that saves more than comparing costs, so a query that must not have them still has to compare.

    `e` and `c` are instants since the Unix epoch as integers: nanoseconds (HUGEINT) if `is_ns`, else microseconds
    (BIGINT). `e_us`, `e_ns`, `c_us`, `c_ns` (BIGINT) are the same, in floor microseconds and the nanoseconds left.
    `ptr` grows with path order, then row order.
    """
    return " UNION ALL ".join(_group_sql(group, is_ns, wanted, within) for group in scan.groups)


def _group_sql(group: FileGroup, is_ns: bool, wanted: Sequence[str], within: Bounds | None) -> str:
    columns = {f"k{i}": _column(column) for i, column in enumerate(group.keys)}
    columns |= {f"f{i}": _column(column) for i, column in enumerate(group.features)}
    columns["e"] = _instant(group.event, is_ns)
    columns["e_us"], columns["e_ns"] = _floor_us(group.event), _ns_left(group.event)
    columns["ptr"] = _position(group)
    if group.created is not None:
        columns["c"] = _instant(group.created, is_ns)
        columns["c_us"], columns["c_ns"] = _floor_us(group.created), _ns_left(group.created)
    selected = ", ".join(f"{columns[name]} AS {name}" for name in wanted) or "1 AS one"
    if not group.paths:
        return f"SELECT {selected} WHERE false"
    # A path is a pattern to DuckDB, so one with a bracket in its name has to be escaped to mean itself.
    paths = ", ".join(literal(glob.escape(path)) for path in group.paths)
    condition = ""
    if within is not None and _is_worth_comparing(group.event_ranges, within):
        condition = f" WHERE {_event_condition(group.event, within)}"
    return f"SELECT {selected} FROM read_parquet([{paths}], hive_partitioning=false) s{condition}"


def _is_worth_comparing(ranges: Sequence[EventRange | None], within: Bounds) -> bool:
    """Whether bounds leave out a good part of the time that files hold; where they do not tell, they may."""
    known = [known for known in ranges if known is not None]
    if len(known) < len(ranges):
        return within != Bounds()
    low, high = min(known.low_us for known in known), max(known.high_us for known in known)
    left = min(high, high if within.high is None else within.high) - max(low, low if within.low is None else within.low)
    return left < _WORTH_COMPARING * (high - low)


def _event_condition(column: TimeColumn, within: Bounds) -> str:
    """Returns the SQL condition that an event time lies within bounds in floor microseconds."""
    if column.is_zoned is None:
        return within.condition(_floor_us(column))
    make = "make_timestamptz" if column.is_zoned else "make_timestamp"
    return within.condition(f"s.{identifier(str(column.name))}", lambda instant: f"{make}({instant})")


def _column(column: SourceColumn) -> str:
    if column.constants:
        return _by_file(column.constants, column.cast or "VARCHAR")
    value = _NULL if column.name is None else f"s.{identifier(column.name)}"
    if column.is_whole_only:
        # A double of 2^63 or more is no BIGINT; NaN is greater than any bound.
        value = f"CASE WHEN {value} = floor({value}) AND abs({value}) < 9.2e18 THEN {value} END"
    return value if column.cast is None else f"CAST({value} AS {column.cast})"


def _instant(column: TimeColumn, is_ns: bool) -> str:
    kind = "HUGEINT" if is_ns else "BIGINT"
    factor = f" * {NANOSECONDS_PER_US}" if is_ns else ""
    if column.name is None:
        return f"{_by_file(column.constants or [_NULL], kind)}{factor}"
    name = f"s.{identifier(column.name)}"
    if not is_ns:
        return f"epoch_us({name})"
    if column.is_ns:
        return f"CAST({_epoch_ns(column)} AS HUGEINT)"
    # epoch_ns fails beyond year 2262, so coarser times are widened by hand: year 9999 is legal.
    return f"CAST(epoch_us({name}) AS HUGEINT){factor}"


def _floor_us(column: TimeColumn) -> str:
    """Returns the microseconds of an instant, rounded down."""
    if not column.is_ns:
        return _instant(column, is_ns=False)
    # Not by taking away what is left: the least instant of all would then be too small for a BIGINT.
    count, unit = _epoch_ns(column), NANOSECONDS_PER_US
    return f"({count} // {unit} - CASE WHEN {count} % {unit} < 0 THEN 1 ELSE 0 END)"


def _ns_left(column: TimeColumn) -> str:
    """Returns the nanoseconds of an instant that are left beside its microseconds, 0 to 999."""
    if not column.is_ns:
        return "CAST(0 AS BIGINT)"
    # `%` takes the sign of the dividend, so times before 1970 need it twice to come out floored.
    unit = NANOSECONDS_PER_US
    return f"(({_epoch_ns(column)} % {unit} + {unit}) % {unit})"


def _epoch_ns(column: TimeColumn) -> str:
    """Returns the nanoseconds of an instant; DuckDB takes the first and last that can be counted for infinities."""
    name = f"s.{identifier(str(column.name))}"
    return (
        f"CASE {name} WHEN 'infinity'::TIMESTAMP_NS THEN {_NS_LAST} WHEN '-infinity'::TIMESTAMP_NS THEN -{_NS_LAST} "
        f"ELSE epoch_ns({name}) END"
    )


def _by_file(constants: Sequence[str], kind: str) -> str:
    """Returns the constant of the file that a row is from, as a type."""
    if len(set(constants)) == 1:
        return f"CAST({constants[0]} AS {kind})"
    return f"CAST([{', '.join(constants)}] AS {kind}[])[CAST(s.file_index AS BIGINT) + 1]"


def _position(group: FileGroup) -> str:
    if not group.positions:
        return f"CAST({_NULL} AS BIGINT)"
    row = "s.file_row_number"
    if len(group.positions) == 1:
        return f"{row} + {group.positions[0] << ROW_BITS}"
    index = "CAST(s.file_index AS BIGINT)"
    first, last = group.positions[0], group.positions[-1]
    if last - first == len(group.positions) - 1:
        return f"(({index} + {first}) << {ROW_BITS}) + {row}"
    places = ", ".join(str(position) for position in group.positions)
    return f"(CAST([{places}][{index} + 1] AS BIGINT) << {ROW_BITS}) + {row}"
