"""Pushed rows: checked against the batch source's columns as a whole, before any of them is written."""

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.types as pat

from store.errors import PushedRowsError, TooLarge, UnequalLengths, shown
from store.limits import (
    PUSH_CHUNK_ROWS,
    PUSH_ROWS_MAX,
    PUSH_VALUE_BYTES_MAX,
    PUSH_VALUE_DEPTH_MAX,
    PUSH_VALUE_ELEMENTS_MAX,
)

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_BEYOND_NANOSECONDS = re.compile(r"[.,]\d{10}")
_NONE = type(None)
_WITHOUT_PARTS = {int, float, bool, _NONE}
_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)


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
            datetimes, without a zone in UTC, rounded down to the unit of their column; numbers that are not finite
            as the texts NaN, Infinity, -Infinity; bytes as such or as base64.
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
        raise UnequalLengths(
            f"{what}: columns have different lengths: {shown(lengths)}; give one value per row in each"
        )
    count = next(iter(lengths.values()), 0)
    if count > PUSH_ROWS_MAX:
        raise TooLarge(f"{what}: {count} rows, at most {PUSH_ROWS_MAX} are allowed in one push; split it")
    unknown = sorted(columns.keys() - set(schema.names))
    missing = sorted(set(required) - columns.keys())
    if count and (unknown or missing):
        raise PushedRowsError(
            f"{what}: columns do not fit the batch source; unknown: {shown(unknown)}, missing: {missing}, "
            f"expected: {schema.names}"
        )
    for name in not_null:
        is_float = name in schema.names and pat.is_floating(schema.field(name).type)
        _refuse_nulls(what, name, columns.get(name, ()), is_float=is_float)
    arrays = [
        _array(what, field, columns[field.name]) if field.name in columns else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema([pa.field(f.name, f.type) for f in schema]))


def check_extents(what: str, column: str, values: Sequence[Any]) -> None:
    """Checks that no value of a column is larger than what is kept for one value.

    Raises:
        TooLarge: too many bytes, elements or levels; the row is named.
    """
    if set(map(type, values)) <= _WITHOUT_PARTS:
        return
    for row, value in enumerate(values):
        if type(value) not in _WITHOUT_PARTS:
            _check_extent(f"{what}, row {row}: column {column!r}", value)


def _check_extent(where: str, value: Any) -> None:
    elements = size_bytes = depth = 0
    level: list[Any] = [value]
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                size_bytes += len(item) if item.isascii() else len(item.encode("utf-8", "surrogatepass"))
            elif isinstance(item, bytes):
                size_bytes += len(item)
            elif isinstance(item, Mapping):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple | set | frozenset | np.ndarray):
                below.extend(item)
        elements += len(below)
        depth += bool(below)
        for count, unit, most in (
            (size_bytes, "bytes", PUSH_VALUE_BYTES_MAX),
            (elements, "elements", PUSH_VALUE_ELEMENTS_MAX),
            (depth, "levels", PUSH_VALUE_DEPTH_MAX),
        ):
            if count > most:
                raise TooLarge(f"{where} has a value of {count} {unit}, at most {most} are kept; make it smaller")
        level = [] if set(map(type, below)) <= _WITHOUT_PARTS else below


def _refuse_nulls(what: str, name: str, values: Sequence[Any], *, is_float: bool) -> None:
    if not is_float and set(map(type, values)) <= {int, str, bool}:
        return
    for row, value in enumerate(values):
        if _is_missing(value) or (is_float and value == "NaN"):
            raise PushedRowsError(f"{what}, row {row}: column {name!r} is null; give every row a value there")


def _is_missing(value: Any) -> bool:
    """Whether a value stands for null: None, and what pandas has for it, NaN among them."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _array(what: str, field: pa.Field, values: Sequence[Any]) -> pa.ChunkedArray:
    """Returns a column of JSON values or Python objects as Arrow's."""
    check_extents(what, field.name, values)
    is_fitting = set(map(type, values)) <= _unchanged(field.type)
    fitted = values if is_fitting else [_converted(what, field, row, value) for row, value in enumerate(values)]
    # Arrow holds the interpreter while it converts, so it gets little at a time. A NaN as given is a null to it,
    # one that was converted is not.
    parts = (fitted[start : start + PUSH_CHUNK_ROWS] for start in range(0, len(fitted), PUSH_CHUNK_ROWS))
    try:
        chunks = [pa.array(part, field.type, from_pandas=is_fitting) for part in parts]
        return pa.chunked_array(chunks, field.type)
    except _MISFITS:
        for row, value in enumerate(fitted):
            try:
                pa.array([value], field.type)
            except _MISFITS as error:
                raise _misfit(what, field, row, values[row]) from error
        raise


def _unchanged(kind: pa.DataType) -> set[type]:
    """Returns the types whose values Arrow takes for a column as they are, neither cut nor guessed at."""
    if pat.is_integer(kind):
        return {int, _NONE}
    if pat.is_floating(kind):
        return {int, float, _NONE}
    if pat.is_boolean(kind):
        return {bool, _NONE}
    return {str, _NONE} if pat.is_string(kind) or pat.is_large_string(kind) else {_NONE}


def _converted(what: str, field: pa.Field, row: int, value: Any) -> Any:
    """Returns a value as the Python object from which Arrow makes the field's type; None for a missing one."""
    if _is_missing(value):
        return None
    try:
        return _fitted(field.type, value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _misfit(what, field, row, value) from error


def _fitted(kind: pa.DataType, value: Any) -> Any:
    """Returns a value that is not missing as Arrow takes it; an error where Arrow would cut it or take it wrongly."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind):
        return _fitted_items(kind.value_type, value) if isinstance(value, list | tuple | set | frozenset) else value
    if pat.is_map(kind):
        pairs = list(value.items() if isinstance(value, Mapping) else value)
        keys = _fitted_items(kind.key_type, [key for key, _ in pairs])
        return list(zip(keys, _fitted_items(kind.item_type, [item for _, item in pairs]), strict=True))
    if pat.is_struct(kind) and isinstance(value, Mapping):
        return _fitted_struct(kind, value)
    if pat.is_timestamp(kind):
        return _instant(kind, value)
    if _is_binary(kind) and isinstance(value, str):
        return base64.b64decode(value, validate=True)
    if pat.is_floating(kind) and isinstance(value, str):
        return _NON_FINITE.get(value, value)
    is_number = pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind)
    if (is_number and isinstance(value, bool)) or (pat.is_integer(kind) and isinstance(value, float)):
        raise ValueError(kind)
    return value


def _fitted_items(kind: pa.DataType, items: Iterable[Any]) -> list[Any]:
    listed = list(items)
    if set(map(type, listed)) <= _unchanged(kind):
        return listed
    return [None if item is None else _fitted(kind, item) for item in listed]


def _fitted_struct(kind: pa.DataType, value: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {field.name: field.type for field in kind}
    if unknown := value.keys() - kinds.keys():
        raise ValueError(unknown)
    return {name: None if item is None else _fitted(kinds[name], item) for name, item in value.items()}


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pat.is_binary(kind) or pat.is_large_binary(kind) or pat.is_fixed_size_binary(kind))


def _instant(kind: pa.DataType, value: Any) -> datetime:
    """Returns ISO 8601 text or a datetime in UTC; an error outside of the years 1 to 9999 UTC."""
    if isinstance(value, str):
        if _BEYOND_NANOSECONDS.search(value):
            raise ValueError(value)
        # Python's datetime ends at microseconds; pandas' does not, but it ends in the year 2262.
        value = pd.Timestamp(value) if kind.unit == "ns" else datetime.fromisoformat(value)
    if not isinstance(value, date):
        raise TypeError(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    in_utc: datetime = aware.astimezone(UTC)
    return in_utc if kind.tz else in_utc.replace(tzinfo=None)


def _misfit(what: str, field: pa.Field, row: int, value: Any) -> PushedRowsError:
    expected = str(field.type)
    if pat.is_timestamp(field.type):
        years = "1678 to 2261, which are all that nanoseconds reach" if field.type.unit == "ns" else "1 to 9999"
        expected = f"an ISO 8601 instant with at most 9 digits of a second, in the years {years} UTC"
    elif _is_binary(field.type):
        expected = "bytes in base64"
    return PushedRowsError(
        f"{what}, row {row}: column {field.name!r} has the value {shown(value)} ({type(value).__name__}), "
        f"expected {expected}; correct the row (nothing of this push was written)"
    )
