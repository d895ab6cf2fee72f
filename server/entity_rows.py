"""Entity rows that came as JSON columns, as an Arrow table with typed columns."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from server.body_bounds import SECONDS_MAX, SECONDS_MIN, check_column_count, check_instants
from store.clock import to_us
from store.errors import EntityRowsError, WrongType

EVENT_TIMESTAMP = "event_timestamp"
_US_PER_SECOND = 1_000_000
_DEPTH_MAX = 32
_FRACTION = re.compile(r"\.(\d{7,9})(?=$|[Z+\-])")


def table_from(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Returns JSON columns as a table; the column `event_timestamp` becomes instants in UTC.

    Raises:
        EntityRowsError: there is no `event_timestamp`.
        WrongType: a column mixes types, or an event timestamp is no instant of the years 1 to 9999.
        TooLarge: objects with too many fields in all.
    """
    if EVENT_TIMESTAMP not in columns:
        raise EntityRowsError(
            f"entities: column {EVENT_TIMESTAMP!r} is missing (got {list(columns)}); add one instant per entity row"
        )
    arrays = {
        name: instants(values) if name == EVENT_TIMESTAMP else _array(name, values) for name, values in columns.items()
    }
    table = pa.table(arrays)
    check_instants(table, "entities")
    return table


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    if any(isinstance(value, dict | list) for value in values):
        _check_fields(name, values)
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise WrongType(
            f"entities: column {name!r} mixes types or holds a value out of range ({error}); send values of one type"
        ) from error


def _check_fields(name: str, values: Sequence[Any]) -> None:
    """Checks how many fields objects have in all: a struct has each of them in every row."""
    fields: dict[str, Any] = {}
    count = 0
    waiting: list[tuple[Any, dict[str, Any], int]] = [(value, fields, 0) for value in values]
    while waiting:
        value, known, depth = waiting.pop()
        if depth > _DEPTH_MAX:
            raise WrongType(f"entities: column {name!r} has values nested deeper than {_DEPTH_MAX}; send plain values")
        if isinstance(value, dict):
            count += len(value.keys() - known.keys())
            check_column_count(count, f"entities: column {name!r}")
            waiting.extend((inner, known.setdefault(key, {}), depth + 1) for key, inner in value.items())
        elif isinstance(value, list):
            waiting.extend((inner, known, depth + 1) for inner in value if isinstance(inner, dict | list))


def instants(values: Sequence[Any]) -> pa.Array:
    """Returns event timestamps in UTC: microseconds, or nanoseconds where one of the values has them.

    Text is ISO 8601, without a zone UTC; numbers are seconds since 1970; null stays null.

    Raises:
        WrongType: a value is none of these; the message names its row.
    """
    quick = _quick_instants(values)
    if quick is not None:
        return quick
    moments_ns = [None if value is None else _instant_ns(value, row) for row, value in enumerate(values)]
    if any(moment is not None and moment % 1_000 for moment in moments_ns):
        try:
            return pa.array(moments_ns, pa.timestamp("ns", "UTC"))
        except OverflowError as error:
            raise WrongType(
                f"entities: column {EVENT_TIMESTAMP!r} has nanoseconds and also an instant outside of 1677 to 2262, "
                "which no one type holds; send such instants in microseconds"
            ) from error
    return pa.array([None if moment is None else moment // 1_000 for moment in moments_ns], pa.timestamp("us", "UTC"))


def _quick_instants(values: Sequence[Any]) -> pa.Array | None:
    """Returns the usual forms, all zoned or all not, converted in one step; None where that does not go."""
    try:
        text = pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    try:
        return pc.cast(text, pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        pass
    try:
        return pc.assume_timezone(pc.cast(text, pa.timestamp("us")), "UTC")
    except pa.ArrowInvalid:
        return None


def _instant_ns(value: Any, row: int) -> int:
    """Returns one instant in nanoseconds since the Unix epoch."""
    if isinstance(value, str):
        fraction = _FRACTION.search(value)
        # Python's own parser drops what lies below the microsecond; a row just after would leak into the past.
        below_us = int(fraction[1].ljust(9, "0")[6:]) if fraction else 0
        try:
            return to_us(datetime.fromisoformat(value)) * 1_000 + below_us
        except (ValueError, OverflowError) as error:
            raise _no_instant(value, row) from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not SECONDS_MIN <= value <= SECONDS_MAX:
        raise _no_instant(value, row)
    if isinstance(value, int):
        return value * _US_PER_SECOND * 1_000
    return round(value * _US_PER_SECOND) * 1_000


def _no_instant(value: Any, row: int) -> WrongType:
    return WrongType(
        f"entities: column {EVENT_TIMESTAMP!r}, row {row}: {value!r} is no instant; write ISO 8601 like "
        "2013-12-01T12:00:00Z, seconds since 1970 as a number, or null"
    )
