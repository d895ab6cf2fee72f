"""Pushed rows: checked against the batch source's columns as a whole, before any of them is written."""

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from store.errors import PushedRowsError, TooLarge, UnequalLengths
from store.limits import PUSH_ROWS_MAX

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def checked_table(
    what: str,
    columns: Mapping[str, Sequence[Any]],
    schema: pa.Schema,
    *,
    required: Sequence[str],
    not_null: Sequence[str],
) -> pa.Table:
    """Returns pushed columns as a table of the schema; columns that are not required may be missing and are null.

    Args:
        what: names the push in errors, such as `push source 'clicks'`.
        columns: JSON values or Python objects, by the names of the schema; timestamps as ISO 8601 text or
            datetimes, without a zone in UTC; numbers that are not finite as the texts NaN, Infinity, -Infinity;
            bytes as such or as base64.
            A NaN that is no text is pandas' null.
        schema: the columns of the batch source.
        required: columns that must be given.
        not_null: columns in which every row must have a value.

    Raises:
        PushedRowsError: an unknown or missing column, or a value that does not fit; the row is named.
        UnequalLengths, TooLarge: as their names say.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UnequalLengths(f"{what}: columns have different lengths: {lengths}; give one value per row in each")
    count = next(iter(lengths.values()), 0)
    if count > PUSH_ROWS_MAX:
        raise TooLarge(f"{what}: {count} rows, at most {PUSH_ROWS_MAX} are allowed in one push; split it")
    unknown = sorted(columns.keys() - set(schema.names))
    missing = sorted(set(required) - columns.keys())
    if count and (unknown or missing):
        raise PushedRowsError(
            f"{what}: columns do not fit the batch source; unknown: {unknown}, missing: {missing}, "
            f"expected: {schema.names}"
        )
    for name in not_null:
        for row, value in enumerate(columns.get(name, ())):
            if _is_missing(value):
                raise PushedRowsError(f"{what}, row {row}: column {name!r} is null; give every row a value there")
    arrays = [
        _array(what, field, columns[field.name]) if field.name in columns else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema([pa.field(f.name, f.type) for f in schema]))


def _is_missing(value: Any) -> bool:
    """Whether a value stands for null: None, and what pandas has for it, NaN among them."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _array(what: str, field: pa.Field, values: Sequence[Any]) -> pa.Array:
    converted = [_converted(what, field, row, value) for row, value in enumerate(values)]
    try:
        return pa.array(converted, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for row, value in enumerate(converted):
            try:
                pa.array([value], field.type)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise _misfit(what, field, row, values[row]) from error
        raise


def _converted(what: str, field: pa.Field, row: int, value: Any) -> Any:
    """Returns a JSON value as the Python object from which Arrow makes the field's type; None for a missing one."""
    if _is_missing(value):
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if pa.types.is_timestamp(field.type):
        return _instant(what, field, row, value)
    if _is_binary(field.type) and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise _misfit(what, field, row, value) from error
    if pa.types.is_floating(field.type) and isinstance(value, str):
        value = _NON_FINITE.get(value, value)
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
    if (is_number and isinstance(value, bool)) or (pa.types.is_integer(field.type) and isinstance(value, float)):
        raise _misfit(what, field, row, value)
    return value


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _instant(what: str, field: pa.Field, row: int, value: Any) -> datetime:
    if isinstance(value, str):
        try:
            # Python's datetime ends at microseconds; pandas' does not, but it ends in the year 2262.
            value = pd.Timestamp(value) if field.type.unit == "ns" else datetime.fromisoformat(value)
        except ValueError as error:
            raise _misfit(what, field, row, value) from error
    if not isinstance(value, date):
        raise _misfit(what, field, row, value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    aware: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
    return aware if field.type.tz else aware.astimezone(UTC).replace(tzinfo=None)


def _misfit(what: str, field: pa.Field, row: int, value: Any) -> PushedRowsError:
    expected = "an ISO 8601 instant" if pa.types.is_timestamp(field.type) else str(field.type)
    expected = "bytes in base64" if _is_binary(field.type) else expected
    return PushedRowsError(
        f"{what}, row {row}: column {field.name!r} has the value {value!r} ({type(value).__name__}), "
        f"expected {expected}; correct the row (nothing of this push was written)"
    )
