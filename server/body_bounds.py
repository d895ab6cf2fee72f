"""What tables that strangers send must keep to, whatever the format: columns, types, rows, bytes, instants."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from server.limits import HISTORICAL_DECODED_BYTES_MAX
from store.errors import BadBody, TooLarge, WrongType
from store.limits import ENTITY_COLUMNS_MAX, HISTORICAL_ROWS_MAX

# Second 0 of year 1 and the last second of year 9999, which pipelines use as "always" and "never".
SECONDS_MIN, SECONDS_MAX = -62_135_596_800, 253_402_300_799
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_SECONDS_PER_DAY = 86_400


def check_column_count(count: int, what: str) -> None:
    """Checks how many columns entity rows have.

    Raises:
        TooLarge: more than the bound.
    """
    if count > ENTITY_COLUMNS_MAX:
        raise TooLarge(
            f"{what}: more than {ENTITY_COLUMNS_MAX} columns, nested fields counted; send the join keys, the request "
            "fields and the event timestamp, and join the rest by yourself"
        )


def check_schema(schema: pa.Schema, what: str) -> None:
    """Checks columns before any of their content is read.

    Refused are types whose values need no bytes of their own, or may share them: no bound on bytes holds those.

    Raises:
        BadBody: a column given twice, or of such a type.
        TooLarge: too many columns.
    """
    check_column_count(len(schema), what)
    twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if twice:
        raise BadBody(f"{what}: columns {twice} are given twice; give each column a name of its own")
    count = 0
    for column in schema:
        for kind, is_nested in _types_in(column.type):
            count += 1
            check_column_count(count, what)
            if _is_unbounded(kind) or (is_nested and (_has_no_bytes(kind) or pat.is_dictionary(kind))):
                raise BadBody(
                    f"{what}: column {column.name!r} is of type {str(column.type)[:200]}, and {str(kind)[:200]} within "
                    "it is not taken; send plain values, lists or structs of plain values, or a dictionary of these"
                )


def _types_in(kind: pa.DataType) -> Iterator[tuple[pa.DataType, bool]]:
    """Yields a type and all types within it, each with whether it is within another."""
    waiting = [(kind, False)]
    while waiting:
        found, is_nested = waiting.pop()
        if isinstance(found, pa.BaseExtensionType):
            found = found.storage_type
        yield found, is_nested
        if pat.is_dictionary(found):
            waiting.append((found.value_type, True))
        elif not pat.is_run_end_encoded(found):
            waiting.extend((found.field(number).type, True) for number in range(found.num_fields))


def _is_unbounded(kind: pa.DataType) -> bool:
    """Whether values of a type may share bytes (views and unions by offsets, runs by lengths), or have none."""
    if pat.is_dictionary(kind):
        return bool(pat.is_nested(kind.value_type))
    is_view = str(kind) in {"string_view", "binary_view"} or str(kind).startswith(("list_view", "large_list_view"))
    is_empty = _has_no_bytes(kind) and not pat.is_null(kind)
    return bool(is_view or is_empty or pat.is_run_end_encoded(kind) or pat.is_union(kind))


def _has_no_bytes(kind: pa.DataType) -> bool:
    if pat.is_null(kind):
        return True
    if pat.is_struct(kind):
        return bool(kind.num_fields == 0)
    if pat.is_fixed_size_list(kind):
        return bool(kind.list_size == 0)
    return bool(pat.is_fixed_size_binary(kind) and kind.byte_width == 0)


def check_size(row_count: int, decoded_bytes: int, what: str) -> None:
    """Checks how much was decoded, or is about to be.

    Raises:
        TooLarge: more rows or bytes than the bounds allow.
    """
    if row_count > HISTORICAL_ROWS_MAX or decoded_bytes > HISTORICAL_DECODED_BYTES_MAX:
        raise TooLarge(
            f"{what}: {row_count} rows or {decoded_bytes} decoded bytes so far, at most {HISTORICAL_ROWS_MAX} rows "
            f"and {HISTORICAL_DECODED_BYTES_MAX} bytes are taken; send the rows in several requests"
        )


def check_instants(table: pa.Table, what: str) -> None:
    """Checks that all instants and dates of a table lie in the years 1 to 9999, as Python, JSON and Parquet have them.

    Raises:
        WrongType: one does not; the message names column and row.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        bounds = _bounds_of(column.type)
        if bounds is None:
            continue
        first, last = bounds
        counts = column.cast(pa.int32() if pat.is_date32(column.type) else pa.int64()).cast(pa.int64())
        ends = pc.min_max(counts).as_py()
        if ends["min"] is None or (ends["min"] >= first and ends["max"] <= last):
            continue
        wrong = ends["min"] if ends["min"] < first else ends["max"]
        raise WrongType(
            f"{what}: column {name!r}, row {pc.index(counts, wrong).as_py()}: {wrong} as {column.type} is outside of "
            "the years 1 to 9999 (UTC); send an instant within them, or null"
        )


def _bounds_of(kind: pa.DataType) -> tuple[int, int] | None:
    """Returns the least and the greatest value of a type of instants or dates, None for other types."""
    if pat.is_timestamp(kind):
        per_second = _PER_SECOND[kind.unit]
        return SECONDS_MIN * per_second, (SECONDS_MAX + 1) * per_second - 1
    if pat.is_date64(kind):
        return SECONDS_MIN * 1_000, (SECONDS_MAX + 1) * 1_000 - 1
    return (SECONDS_MIN // _SECONDS_PER_DAY, SECONDS_MAX // _SECONDS_PER_DAY) if pat.is_date32(kind) else None


def without_dictionaries(table: pa.Table, what: str) -> pa.Table:
    """Returns a table with its dictionary columns decoded, if that is not too large.

    Raises:
        TooLarge: as it says.
    """
    decoded_bytes = 0
    for number, column in enumerate(table.schema):
        if not pat.is_dictionary(column.type):
            continue
        chunked = table.column(number)
        decoded_bytes += sum(_plain_bytes(chunk) for chunk in chunked.chunks)
        check_size(table.num_rows, decoded_bytes, what)
        table = table.set_column(number, column.name, chunked.cast(column.type.value_type))
    return table


def _plain_bytes(chunk: Any) -> int:
    """Returns how many bytes a dictionary array takes once each row has its own copy of the value."""
    values = chunk.dictionary
    if not len(values):
        return 0
    if pat.is_primitive(values.type) or pat.is_fixed_size_binary(values.type) or pat.is_decimal(values.type):
        return int(len(chunk) * (values.type.bit_width // 8 + 1))
    return int(pc.sum(pc.take(pc.binary_length(values), chunk.indices)).as_py() or 0)
