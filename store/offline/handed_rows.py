"""Rows as they are handed to a view's own function, and what it gives as Arrow columns of the types they should have.

The same column is handed over in the same type always, whatever the values at hand and wherever they come from: by the
source's schema, never by what is in a chunk.

| column | in a pandas function | in a python function |
|---|---|---|
| integers, truths | pandas' nullable `Int64`, `boolean` and so on: a null is `pd.NA` | `int`, `bool` |
| floats | `float64`, `float32`: a null is NaN | `float`, NaN apart from null |
| timestamps | `datetime64[us]` or `[ns]`, zoned as the source: a null is NaT | `datetime`, `pd.Timestamp` |
| text, bytes, dates, decimals | `object`: `str`, `bytes`, `date`, `Decimal` | the same |
| lists, structs, maps | `object`: lists, dicts, lists of pairs | the same |

A null is None where nothing else is said. UUIDs are text.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from store.errors import shortened, shown
from store.offline.column_types import is_instant, is_text, is_uuid, plain_type
from store.offline.common_types import read_type

_NULLABLE: Mapping[pa.DataType, Any] = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


class Misfit(ValueError):
    """What a function gave for a column is none of the column's; the message says why, without the column's name."""


def handed_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type in which a column of a source is handed over: layouts of the same values become one."""
    kind = plain_type(kind)
    if is_uuid(kind):
        return pa.string()
    handed = read_type(kind)
    return pa.timestamp(handed.unit, kind.tz) if pat.is_timestamp(kind) else handed


def as_handed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Returns a column in the type in which it is handed over.

    Raises:
        pa.ArrowException: it has values that the type does not hold.
    """
    if is_uuid(column.type):
        column = pa.chunked_array([pa.array([v and str(v) for v in column.to_pylist()], pa.string())])
    if pat.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column if column.type.equals(kind) else column.cast(kind)


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Returns rows as a pandas function is handed them, with an index of 0, 1, 2 and so on."""
    return pd.DataFrame({field.name: _series(table.column(field.name)) for field in table.schema})


def lists_of(table: pa.Table) -> dict[str, list[Any]]:
    """Returns rows as a python function is handed them: a list of values by column."""
    return {name: table.column(name).to_pylist() for name in table.column_names}


def fitted(values: Any, kind: pa.DataType) -> pa.Array:
    """Returns what a function gave for a column, a Series, array or list, in the type that the column has.

    Values may be narrower than the type; floats that are whole are integers, as pandas makes of integers with a null
    among them. A NaN in a Series or NumPy array is a null, one in a list stays one where the type has it.

    Raises:
        Misfit: a value that is none of the type's.
    """
    try:
        found = _inferred(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Misfit(f"values that have no one type ({shortened(str(error).splitlines()[0])})") from error
    try:
        return _cast(found, kind)
    except pa.ArrowException as error:
        raise Misfit(
            f"{found.type} with a value that it does not hold ({shortened(str(error).splitlines()[0])})"
        ) from error


def texts_of(values: Any) -> pa.Array:
    """Returns a column that is only told apart by value as text, the same for 1 and 1.0; None for null and NaN.

    Raises:
        Misfit: a value that is no single one.
    """
    return pa.array([_text(value) for value in (values.tolist() if hasattr(values, "tolist") else values)], pa.string())


def are_same(left: pa.Table, right: pa.Table) -> bool:
    """Whether two tables of one schema hold the same rows in the same order; floats may differ by 1e-9 of their size.

    NumPy's loops do not promise the last bit of a result whatever the length of an array.
    """
    if left.num_rows != right.num_rows:
        return False
    return all(_are_same(left.column(name), right.column(name)) for name in left.column_names)


def _series(column: pa.ChunkedArray) -> pd.Series:
    if pat.is_nested(column.type):
        return pd.Series(column.to_pylist(), dtype=object)
    series: pd.Series = column.to_pandas(types_mapper=_NULLABLE.get)
    return series


def _inferred(values: Any, kind: pa.DataType) -> pa.Array:
    """Returns values as Arrow takes them by themselves: told the type, it would cut floats to integers in silence."""
    is_pandas = hasattr(values, "dtype")
    if pat.is_map(kind) or pat.is_struct(kind):
        return pa.array(values, kind, from_pandas=is_pandas)
    found = pa.array(values, from_pandas=is_pandas)
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    return found.dictionary_decode() if pat.is_dictionary(found.type) else found


def _cast(found: pa.Array, kind: pa.DataType) -> pa.Array:
    if found.null_count == len(found):
        # pandas has no type of its own for a column without values.
        return pa.nulls(len(found), kind)
    if found.type.equals(kind):
        return found
    if not _is_of(found.type, kind):
        raise Misfit(f"{found.type}")
    if pat.is_floating(found.type) and pat.is_integer(kind):
        found = pc.if_else(pc.is_nan(found), pa.scalar(None, found.type), found)
    if pat.is_date(found.type) and pat.is_timestamp(kind):
        found = found.cast(pa.timestamp("s"))
    # A float of 64 bits is rounded to one of 32; everything else is kept whole.
    return found.cast(kind, safe=not (pat.is_floating(found.type) and pat.is_floating(kind)))


def _is_of(found: pa.DataType, kind: pa.DataType) -> bool:
    """Whether values of a type can be values of another one without being read as something else."""
    if pat.is_null(found):
        return True
    if _is_list(found) and _is_list(kind):
        return _is_of(found.value_type, kind.value_type)
    if pat.is_integer(kind) or pat.is_floating(kind):
        return bool(pat.is_integer(found) or pat.is_floating(found))
    if pat.is_decimal(kind):
        return bool(pat.is_decimal(found) or pat.is_integer(found))
    if pat.is_timestamp(kind):
        return is_instant(found)
    if pat.is_date(kind):
        return bool(pat.is_date(found))
    return (is_text(found) and is_text(kind)) or (_is_bytes(found) and _is_bytes(kind)) or found.id == kind.id


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pat.is_binary(kind) or pat.is_large_binary(kind) or pat.is_fixed_size_binary(kind))


def _text(value: Any) -> str | None:
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT or value != value:  # noqa: PLR0124 - NaN
        return None
    if isinstance(value, list | tuple | dict | set):
        raise Misfit(f"{type(value).__name__}, such as {shown(value)}")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _are_same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> bool:
    if not pat.is_floating(left.type):
        return bool(left.to_pylist() == right.to_pylist())
    pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
    return all(_are_close(*pair) for pair in pairs)


def _are_close(left: float | None, right: float | None) -> bool:
    if left is None or right is None:
        return left is right
    if left == right or (left != left and right != right):  # noqa: PLR0124 - NaN
        return True
    return abs(left - right) <= 1e-9 * max(1.0, abs(left), abs(right))
