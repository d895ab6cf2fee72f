"""SQL that finds the newest row per entity key within an interval, from plain values."""

from dataclasses import dataclass

from store.kernel.packed_rank import PackedRank
from store.kernel.source_scan import LOWEST_INSTANT, NANOSECONDS_PER_US, Bounds, Scan, rows_sql


@dataclass(frozen=True, slots=True)
class LateRows:
    """Rows created at an instant or later, with event times from `low` on (None: from the first on)."""

    created: int
    low: int | None


@dataclass(frozen=True, slots=True)
class NewestRows:
    """The newest row per key among rows whose event time lies within bounds, both ends inclusive.

    With `late`, rows before the lower bound, but not before `late.low`, are among them if they were created at
    `late.created` or later.

    Units: all instants are nanoseconds if the scan is, else microseconds (see `bounds_of`).
    Ties in event time go to the greatest created time (null oldest), then to the row that stands last in the source.
    Rows with a null in the key or a null event time are left out.
    """

    scan: Scan
    bounds: Bounds
    late: "LateRows | None" = None

    @property
    def chosen_statement(self) -> str:
        """Returns the statement that creates the table `larder_newest`: `k0.., e, [c,] ptr`, one row per key."""
        keys = self.scan.key_names
        grouped = f" GROUP BY {', '.join(keys)}" if keys else " HAVING max(e) IS NOT NULL"
        columns = "".join(f"{key}, " for key in keys)
        rank = PackedRank.of(self.scan)
        if rank is not None:
            rows = self._rows_sql("ptr", "c") if self.scan.has_created else self._rows_sql("ptr")
            newest = f"SELECT {columns}max({rank.packed()}) AS number FROM ({rows}){grouped}"
            return f"CREATE TABLE larder_newest AS SELECT {columns}{rank.unpacked('number')} FROM ({newest})"
        groups = f"SELECT {columns}max(e) AS e FROM ({self._rows_sql()}){grouped}"
        extra = ("ptr", "c") if self.scan.has_created else ("ptr",)
        chosen = _chosen_sql(self._rows_sql(*extra), groups, (*keys, "e"), self.scan.has_created)
        return f"CREATE TABLE larder_newest AS {chosen}"

    @property
    def answer_sql(self) -> str:
        """Returns the SELECT of `k0.., f0.., event_us, event_ns, created_us, created_ns`, one row per key."""
        # Keys and times are known by then, so that only positions and features are read.
        features = self.scan.feature_names
        rows = rows_sql(self.scan, self.scan.is_ns, ["ptr", *features])
        event = self._split("n.e", "event")
        made = self._split("n.c" if self.scan.has_created else "NULL", "created")
        named = [*(f"n.{name}" for name in self.scan.key_names), *(f"s.{name}" for name in features)]
        columns = "".join(f"{name}, " for name in named)
        return f"SELECT {columns}{event}, {made} FROM ({rows}) s JOIN larder_newest n ON s.ptr = n.ptr"

    def _rows_sql(self, *extra: str) -> str:
        keys = self.scan.key_names
        created = ("c",) if self.scan.has_created and self.late is not None and "c" not in extra else ()
        rows = rows_sql(self.scan, self.scan.is_ns, [*keys, "e", *extra, *created])
        complete = [f"{key} IS NOT NULL" for key in keys]
        conditions = ["e IS NOT NULL", self._condition("e", "c"), *complete]
        return f"SELECT * FROM ({rows}) WHERE {' AND '.join(conditions)}"

    def _condition(self, event: str, created: str) -> str:
        """Returns the SQL condition that a row is one of those that are looked at."""
        within = self.bounds.condition(event)
        if self.late is None or self.bounds.low is None or not self.scan.has_created:
            return within
        before = Bounds(self.late.low, self.bounds.low).condition(event)
        return f"({within} OR ({created} >= {self.late.created} AND {before}))"

    def _split(self, instant: str, name: str) -> str:
        """Returns two columns: floor microseconds, and the nanoseconds that remain (0..999)."""
        if instant == "NULL" or not self.scan.is_ns:
            return f"CAST({instant} AS BIGINT) AS {name}_us, CAST(0 AS INTEGER) AS {name}_ns"
        # `%` takes the sign of the dividend, so times before 1970 need it twice to come out floored.
        unit = NANOSECONDS_PER_US
        rest = f"(({instant} % {unit} + {unit}) % {unit})"
        return (
            f"CAST(({instant} - {rest}) // {unit} AS BIGINT) AS {name}_us, "
            f"CAST(coalesce({rest}, 0) AS INTEGER) AS {name}_ns"
        )


def bounds_of(scan: Scan, start_us: int | None, last_us: int | None, is_end_open: bool) -> Bounds:
    """Returns an interval in microseconds as bounds in the unit of a scan.

    `start_us` is inclusive; the end `last_us` is exclusive if `is_end_open`, else inclusive; None leaves an end open.
    """
    factor = NANOSECONDS_PER_US if scan.is_ns else 1
    low = None if start_us is None else start_us * factor
    high = None if last_us is None else last_us * factor - (1 if is_end_open else 0)
    return Bounds(low, high)


def late_of(scan: Scan, late_us: LateRows | None) -> LateRows | None:
    """Returns late rows by microseconds as late rows by the unit of a scan."""
    if late_us is None or not scan.is_ns:
        return late_us
    low = None if late_us.low is None else late_us.low * NANOSECONDS_PER_US
    return LateRows(late_us.created * NANOSECONDS_PER_US, low)


def all_rows_sql(scan: Scan, bounds: Bounds) -> str:
    """Returns the SELECT of `f0..` of all rows within bounds, in source order."""
    rows = rows_sql(scan, scan.is_ns, ["e", "ptr", *scan.feature_names])
    columns = ", ".join(scan.feature_names)
    # One scan already reads in source order; sorting it again would only cost memory.
    order = " ORDER BY ptr" if len(scan.groups) > 1 else ""
    return f"SELECT {columns} FROM ({rows}) WHERE {bounds.condition('e')}{order}"


def _chosen_sql(rows: str, groups: str, group_columns: tuple[str, ...], has_created: bool) -> str:
    """Returns the SELECT of the group columns, `c` if there is one, and `ptr`.

    Of each group it is the row of greatest c, then of last position.

    Args:
        rows: a SELECT of the group columns, `ptr` and, if `has_created`, `c`.
        groups: a SELECT of the group columns, one row per group.
        group_columns: names without nulls in them.
        has_created: whether rows have a created time; a null one is older than any.
    """
    order = f"(coalesce(s.c, {LOWEST_INSTANT}), s.ptr)"
    pick = f"max(s.c) AS c, arg_max(s.ptr, {order})" if has_created else "max(s.ptr)"
    columns = ", ".join(f"g.{name}" for name in group_columns)
    equal = " AND ".join(f"s.{name} = g.{name}" for name in group_columns)
    return f"SELECT {columns}, {pick} AS ptr FROM ({rows}) s JOIN ({groups}) g ON {equal} GROUP BY {columns}"
