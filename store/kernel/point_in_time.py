"""SQL at both ends of a point-in-time join: the rows that can answer, and the features of those that do.

Between the two lies the as-of search (`store.kernel.as_of`), which needs of a source only keys, times and positions.
Features are read last and for the chosen rows alone, because moving wide rows is what makes an as-of join slow.

Source: design section 3.1 for the semantics, section 5 for the shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from store.kernel.instants import NO_TIME_US
from store.kernel.source_scan import Bounds, Scan, rows_sql


@dataclass(frozen=True, slots=True)
class Window:
    """The event times among which rows can answer, both ends inclusive, and the latest created time; None is open.

    Units: floor microseconds since the Unix epoch; a row within the last microsecond may still be too late by
    nanoseconds.
    """

    low_us: int | None
    high_us: int | None
    created_high_us: int | None = None


def candidates_sql(scan: Scan, keys_table: str, window: Window, *, is_ns: bool, has_created: bool) -> str:
    """Returns the SELECT of the rows that can answer: `code, e_us[, e_ns][, c_us[, c_ns]], ptr`, all BIGINT.

    Among them may be rows outside the window, and rows of a null event time, which answer nothing. A null created time
    is `NO_TIME_US`; with a latest created time, rows that have none are left out.

    Args:
        keys_table: a table of the wanted keys without nulls, `k0.., code`; not read if the scan has no keys.
        is_ns: whether nanoseconds play a part.
        has_created: whether created times do.
    """
    return _matching_sql(scan, keys_table, window, ("ptr",), is_ns=is_ns, has_created=has_created)


def events_sql(scan: Scan, keys_table: str, window: Window, *, is_ns: bool, has_created: bool) -> str:
    """Returns the SELECT of the events that windows can hold: as `candidates_sql`, with `f0..` instead of `ptr`."""
    return _matching_sql(scan, keys_table, window, scan.feature_names, is_ns=is_ns, has_created=has_created)


def _matching_sql(
    scan: Scan, keys_table: str, window: Window, others: Sequence[str], *, is_ns: bool, has_created: bool
) -> str:
    keys = scan.key_names
    units = ("us", "ns") if is_ns else ("us",)
    times = [f"e_{unit}" for unit in units] + ([f"c_{unit}" for unit in units] if has_created else [])
    within = Bounds(window.low_us, window.high_us)
    rows = rows_sql(scan.within(within.low, within.high), False, [*keys, *times, *others], within)
    selected = [_without_null(name) for name in times]
    code = "w.code" if keys else "CAST(0 AS BIGINT) AS code"
    equal = " AND ".join(f"r.{key} = w.{key}" for key in keys)
    join = f" JOIN {keys_table} w ON {equal}" if keys else ""
    known = f" WHERE r.c_us <= {window.created_high_us}" if has_created and window.created_high_us is not None else ""
    wanted = [code, *selected, *(f"r.{name}" for name in others)]
    return f"SELECT {', '.join(wanted)} FROM ({rows}) r{join}{known}"


def features_sql(scan: Scan, wanted_table: str, window: Window) -> str:
    """Returns the SELECT of `ptr, f0..` of the wanted rows, in no particular order.

    Args:
        wanted_table: a table of distinct positions, `ptr`.
        window: event times that all wanted rows have.
    """
    columns = ", ".join(f"r.{name}" for name in ("ptr", *scan.feature_names))
    rows = rows_sql(scan, False, ["ptr", *scan.feature_names], Bounds(window.low_us, window.high_us))
    return f"SELECT {columns} FROM ({rows}) r SEMI JOIN {wanted_table} w ON r.ptr = w.ptr"


_NULL_TIMES = {"c_us": NO_TIME_US, "c_ns": 0}


def _without_null(name: str) -> str:
    return f"coalesce(r.{name}, {_NULL_TIMES[name]}) AS {name}" if name in _NULL_TIMES else f"r.{name}"
