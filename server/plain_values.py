"""Values of Arrow columns as JSON and CSV have them."""

import base64
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from store.errors import WrongType

_ARROW_FORM = "Accept: application/vnd.apache.arrow.stream"


def plain_column(column: pa.ChunkedArray, name: str) -> list[Any]:
    """Returns a column as values that JSON has: instants as RFC 3339, bytes as base64, NaN and infinities as text.

    Raises:
        WrongType: a value that cannot be said in JSON.
    """
    kind = column.type
    try:
        if pat.is_timestamp(kind):
            return _instants(column)
        if pat.is_floating(kind) and not pc.all(pc.is_finite(column), min_count=0).as_py():
            return [plain(value) for value in column.to_pylist()]
        is_plain = pat.is_integer(kind) or pat.is_floating(kind) or pat.is_boolean(kind) or pat.is_string(kind)
        values: list[Any] = column.to_pylist()
        return values if is_plain else [plain(value) for value in values]
    except (ValueError, OverflowError, pa.ArrowException) as error:
        # Such as an instant beyond year 9999, which a source may hold.
        raise WrongType(
            f"column {name!r} of type {kind} holds a value that has no text ({error}); ask for {_ARROW_FORM}"
        ) from error


def _instants(column: pa.ChunkedArray) -> list[str | None]:
    # The digits shown are those of the unit; a zone changes only how an instant is written, so all are shown in UTC.
    in_utc = column.cast(pa.timestamp(column.type.unit, "UTC")) if column.type.tz else column
    text: list[str | None] = pc.strftime(in_utc, format="%Y-%m-%dT%H:%M:%SZ").to_pylist()
    return [None if value is None else _trimmed(value) for value in text]


def _trimmed(text: str) -> str:
    whole, dot, fraction = text.removesuffix("Z").partition(".")
    if not dot or not fraction.strip("0"):
        return f"{whole}Z"
    return f"{whole}.{fraction}Z"


def plain(value: Any) -> Any:
    """Returns one value, also inside of lists and structs, as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    return value


def text_column(column: pa.Array, name: str) -> pa.Array:
    """Returns a column as CSV has it: numbers, booleans and text as they are, anything else as text.

    Instants are RFC 3339 in UTC, bytes base64, and lists and structs JSON.

    Raises:
        WrongType: a value that cannot be said in text.
    """
    kind = column.type
    if pat.is_dictionary(kind):
        return text_column(column.dictionary_decode(), name)
    if pat.is_float16(kind):
        return column.cast(pa.float32())
    if pat.is_integer(kind) or pat.is_floating(kind) or pat.is_boolean(kind) or pat.is_string(kind):
        return column
    if pat.is_large_string(kind) or pat.is_date(kind) or pat.is_time(kind) or pat.is_decimal(kind):
        return column.cast(pa.string())
    if pat.is_timestamp(kind):
        in_utc = column.cast(pa.timestamp(kind.unit)) if kind.tz else column
        text = pc.replace_substring(in_utc.cast(pa.string()), " ", "T", max_replacements=1)
        return pc.binary_join_element_wise(text, "Z", "")
    values = plain_column(pa.chunked_array([column]), name)
    return pa.array(
        [value if value is None or isinstance(value, str) else _json(value) for value in values], pa.string()
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
