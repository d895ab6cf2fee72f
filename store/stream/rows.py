"""Rows between Arrow and the event log: plain values by column, and the schema by which they become Arrow again.

Integers, floats, truths, text, bytes and lists of these are kept as they are; times and dates as the integers that
Arrow has for them, in the unit of their column. A value of any other type is one record batch in Arrow's IPC format.
"""

import base64
import math
from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.types as pat

from store.arrow_rows import us_and_ns
from store.tile_batches import input_values

_TAG_BYTES = 8
_SCHEMAS_KEPT = 1_000


def logged_schema(table: pa.Table) -> tuple[bytes, bytes]:
    """Returns the tag of a table's schema, and the schema as the log keeps it."""
    content: bytes = pa.schema([pa.field(f.name, _decoded(f.type)) for f in table.schema]).serialize().to_pybytes()
    return blake2b(content, digest_size=_TAG_BYTES).digest(), content


@lru_cache(maxsize=_SCHEMAS_KEPT)
def parsed_schema(content: bytes) -> pa.Schema:
    """Returns a schema that the log keeps."""
    return pa.ipc.read_schema(pa.py_buffer(content))


def logged_columns(table: pa.Table) -> list[list[Any]]:
    """Returns the columns of a table as plain values, in order."""
    return [_plain(table.column(i).cast(_decoded(f.type)).combine_chunks()) for i, f in enumerate(table.schema)]


def table_of(schema: pa.Schema, columns: Sequence[Sequence[Any]]) -> pa.Table:
    """Returns logged columns as a table.

    Raises:
        pa.ArrowException, TypeError, ValueError: a value that is none of its column's.
    """
    return pa.Table.from_arrays(
        [_arrow(values, f.type) for values, f in zip(columns, schema, strict=True)], schema=schema
    )


def event_times(table: pa.Table, timestamp_field: str, created: str) -> tuple[list[int | None], list[int | None]]:
    """Returns event and created times of rows in microseconds since the epoch, rounded down; created may be ""."""
    event = us_and_ns(table.column(timestamp_field))[0].to_pylist()
    return event, us_and_ns(table.column(created))[0].to_pylist() if created else [None] * table.num_rows


def window_values(view: str, name: str, column: pa.ChunkedArray) -> list[Any]:
    """Returns an input column of windows as the algebra takes it, the very values that a materialization takes.

    Raises:
        DefinitionError: a column of a type that cannot be aggregated.
    """
    values, is_valid = input_values(view, name, column.combine_chunks())
    listed: list[Any] = values.tolist()
    if is_valid.all():
        return listed
    return [value if valid else None for value, valid in zip(listed, is_valid.tolist(), strict=True)]


def rows_as_json(table: pa.Table) -> list[str]:
    """Returns each row as a JSON object that a push takes again."""
    return [msgspec.json.encode(_jsonable(row)).decode() for row in table.to_pylist(maps_as_pydicts="strict")]


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pat.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pat.is_string(kind) or pat.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pat.is_binary(kind) or pat.is_large_binary(kind) or pat.is_fixed_size_binary(kind))


def _is_plain(kind: pa.DataType) -> bool:
    is_number = pat.is_integer(kind) or pat.is_float32(kind) or pat.is_float64(kind) or pat.is_boolean(kind)
    return bool(is_number or _is_text(kind) or _is_bytes(kind))


def _counted_as(kind: pa.DataType) -> pa.DataType | None:
    """Returns the integers that stand for the values of a type of times, None for other types."""
    if pat.is_timestamp(kind) or pat.is_date64(kind) or pat.is_time64(kind) or pat.is_duration(kind):
        return pa.int64()
    return pa.int32() if pat.is_date32(kind) or pat.is_time32(kind) else None


def _plain(column: pa.Array) -> list[Any]:
    kind = column.type
    if (counted := _counted_as(kind)) is not None:
        column = column.view(counted)
    elif not _is_plain(kind) and not (pat.is_list(kind) and _is_plain(kind.value_type)):
        schema = pa.schema([pa.field("value", kind)])
        return [
            pa.RecordBatch.from_arrays([column.slice(i, 1)], schema=schema).serialize().to_pybytes()
            for i in range(len(column))
        ]
    values: list[Any] = column.to_pylist()
    return values


def _arrow(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if (counted := _counted_as(kind)) is not None:
        return pa.array(values, counted).view(kind)
    if _is_plain(kind) or (pat.is_list(kind) and _is_plain(kind.value_type)):
        return pa.array(values, kind, from_pandas=False)
    schema = pa.schema([pa.field("value", kind)])
    parts = [pa.ipc.read_record_batch(pa.py_buffer(value), schema).column(0) for value in values]
    return pa.concat_arrays(parts) if parts else pa.nulls(0, kind)
