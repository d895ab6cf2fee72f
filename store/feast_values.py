"""Values at Larder's borders: Feast's protobuf, JSON, Python and Arrow on one side, plain values on the other.

Source: the JSON forms follow Feast's own server (base64 for bytes, strings for non-finite numbers, epoch
seconds for timestamps), so that every Feast client reads them.
"""

import base64
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.feature_server_utils import _value_to_native
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import (
    VALUE_TYPE_TO_PROTO_VALUE_MAP,
    _map_key_to_python_value,
    feast_value_type_to_python_type,
    python_values_to_proto_values,
)
from feast.value_type import ValueType

from store.clock import is_sayable
from store.errors import WrongType, shortened, shown
from store.kernel.definitions import Column
from store.kernel.values import BLOBS, FLOATS, INTEGERS, TEXTS, element_type, is_opaque

_FIELD_OF = {value_type.name: field for value_type, field in VALUE_TYPE_TO_PROTO_VALUE_MAP.items()}
_FIELD_OF |= {"PDF_BYTES": "bytes_val", "IMAGE_BYTES": "bytes_val"}
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Numbers that JSON has no other way to say."""
_NESTED = frozenset({"VALUE_LIST", "VALUE_SET"})
_NULL_TIMESTAMP = -(2**63)
"""Feast writes a missing timestamp as this number of seconds (numpy's NaT)."""


def plain_from_proto(value: Value, type_name: str) -> Any:
    """Returns the plain value of a Feast `Value` message, None for a null."""
    which = value.WhichOneof("val")
    if which is None or which == "null_val":
        return None
    if is_opaque(type_name):
        return value.SerializeToString(deterministic=True)
    content = getattr(value, which)
    if element_type(type_name):
        return list(content.val)
    if type_name == "UNIX_TIMESTAMP" and content == _NULL_TIMESTAMP:
        return None
    if type_name in FLOATS:
        return float(content)
    return content


def proto_from_plain(value: Any, type_name: str) -> Value:
    """Returns the Feast `Value` message of a plain value; an unset message for None."""
    if value is None:
        return Value()
    if is_opaque(type_name):
        opaque: Value = Value.FromString(value)
        return opaque
    message = Value()
    field = _FIELD_OF[type_name]
    if element_type(type_name):
        repeated = getattr(message, field)
        repeated.SetInParent()
        repeated.val.extend(value)
    else:
        setattr(message, field, value)
    return message


@cache
def json_converter(type_name: str) -> Callable[[Any], Any] | None:
    """Returns the function that makes a non-null plain value of this type fit for JSON, None if all are."""
    if type_name in FLOATS:
        return _json_float
    if type_name in BLOBS:
        return _json_bytes
    if is_opaque(type_name):
        return (
            _json_scalar_map if type_name == "SCALAR_MAP" else lambda value: _value_to_native(Value.FromString(value))
        )
    element = element_type(type_name)
    convert = json_converter(element) if element else None
    return (lambda values: [convert(value) for value in values]) if convert else None


def _json_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _json_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _json_scalar_map(value: bytes) -> dict[str, Any]:
    """Returns a map whose keys are no text as an object, its keys said as text; Feast's server answers null."""
    entries = Value.FromString(value).scalar_map_val.val
    return {_json_key(_map_key_to_python_value(entry.key)): _value_to_native(entry.value) for entry in entries}


def _json_key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, bytes):
        return _json_bytes(key)
    return key.isoformat() if isinstance(key, datetime) else str(_json_float(key) if isinstance(key, float) else key)


def python_from_plain(value: Any, type_name: str) -> Any:
    """Returns a plain value as the Python object that Feast hands to on-demand functions."""
    if value is None or type_name in ("INT32", "INT64", "DOUBLE", "FLOAT", "BOOL", "STRING", "BYTES"):
        return value
    return feast_value_type_to_python_type(proto_from_plain(value, type_name))


def plain_from_python(values: Sequence[Any], type_name: str) -> list[Any]:
    """Returns the plain values of Python objects, converted by Feast's own rules.

    A zoned timestamp may also be ISO 8601 text, as a lookup answers it, and an empty list within a list stays one, of
    which Feast makes a null.

    Raises:
        WrongType: a value that Feast cannot convert to the type.
    """
    try:
        if type_name == "ZONED_TIMESTAMP":
            values = [_whole_second(value) for value in values]
        messages = python_values_to_proto_values(list(values), ValueType[type_name])
    except (TypeError, ValueError, ArithmeticError, AssertionError, AttributeError) as error:
        raise WrongType(
            f"values {shown(list(values)[:3])} do not fit the declared type {type_name}: {shortened(error)}"
        ) from error
    if type_name in _NESTED:
        for message, value in zip(messages, values, strict=True):
            _keep_empty_lists(message, value)
    return [plain_from_proto(message, type_name) for message in messages]


def _whole_second(value: Any) -> Any:
    """Returns a zoned timestamp, given as such or as ISO 8601 text, rounded down; Feast would round towards 1970."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(moment, pd.Timestamp):
        return moment.floor("s")
    return moment.replace(microsecond=0) if isinstance(moment, datetime) else moment


def _keep_empty_lists(message: Value, value: Any) -> None:
    """Marks the elements of a nested list or set that are empty as empty ones; unset messages are nulls."""
    which = message.WhichOneof("val")
    if which not in ("list_val", "set_val"):
        return
    for inner, item in zip(getattr(message, which).val, value, strict=True):
        if item is not None and len(item) == 0:
            inner.list_val.SetInParent()
        else:
            _keep_empty_lists(inner, item)


def plain_from_request(column: Column, values: Sequence[Any]) -> list[Any]:
    """Returns an entity column of a request (JSON values, Python objects or Feast messages) as plain values.

    Nothing is guessed: text is not read as a number, nor a number as text.

    Raises:
        WrongType: a value that does not fit the column's declared type.
    """
    name, type_name = column.name, column.type_name
    element = element_type(type_name)
    accepts = _ACCEPTED.get(type_name)
    if element in _ACCEPTED:
        accepts = partial(_as_list, _ACCEPTED[element])
    if set(map(type, values)) <= _EXACT.get(type_name, frozenset()):
        return list(values)
    result: list[Any] = []
    for row, given in enumerate(values):
        value = plain_from_proto(given, type_name) if isinstance(given, Value) else given
        if isinstance(value, np.datetime64):
            value = pd.Timestamp(value)
        if isinstance(value, np.generic | np.ndarray):
            value = value.tolist()
        if value is None or (type_name not in FLOATS and pd.api.types.is_scalar(value) and pd.isna(value)):
            result.append(None)
        elif accepts is None:
            result.extend(plain_from_python([value], type_name))
        else:
            plain = accepts(value)
            if plain is None:
                raise WrongType(
                    f"entity column {name!r}, row {row}: value {shown(value)} ({type(value).__name__}) does not fit "
                    f"the declared type {type_name}; send it in that type"
                )
            result.append(plain)
    return result


def _as_int(value: Any) -> int | None:
    return value if type(value) is int else None


def _as_float(value: Any) -> float | None:
    if type(value) is str:
        return _NON_FINITE.get(value)
    return float(value) if type(value) in (int, float) else None


def _as_bool(value: Any) -> bool | None:
    return value if type(value) is bool else None


def _as_text(value: Any) -> str | None:
    return value if type(value) is str else None


def _as_bytes(value: Any) -> bytes | None:
    if type(value) is not str:
        return value if type(value) is bytes else None
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return None


def _as_epoch_seconds(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        value = math.floor(aware.timestamp())
    seconds = _as_int(value)
    return seconds if seconds is not None and is_sayable(seconds * 1_000_000) else None


def _as_list(accepts: Callable[[Any], Any], value: Any) -> list[Any] | None:
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    items = [accepts(item) for item in value]
    return None if None in items else items


_ACCEPTED: dict[str, Callable[[Any], Any]] = {
    "INT32": _as_int,
    "INT64": _as_int,
    "DOUBLE": _as_float,
    "FLOAT": _as_float,
    "BOOL": _as_bool,
    "STRING": _as_text,
    "JSON": _as_text,
    "BYTES": _as_bytes,
    "UNIX_TIMESTAMP": _as_epoch_seconds,
}


_EXACT: dict[str, frozenset[type]] = {
    name: frozenset({kind, type(None)})
    for kind, accepts in ((int, _as_int), (str, _as_text), (bool, _as_bool))
    for name, accepted in _ACCEPTED.items()
    if accepted is accepts
}
"""Types whose values may be taken as they are, so that a column of nothing else needs no look at each."""


def arrow_type(type_name: str) -> pa.DataType:
    """Returns the Arrow type of a column of values that are not opaque; timestamps in microseconds, UTC."""
    if type_name == "UNIX_TIMESTAMP":
        return pa.timestamp("us", tz="UTC")
    element = element_type(type_name)
    return pa.list_(arrow_type(element)) if element else _ARROW_TYPES[type_name]


def plain_from_arrow(column: Column, array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Returns an Arrow column as plain values of the declared type.

    Raises:
        WrongType: the column's Arrow type, or a value in it, does not fit the declared type.
    """
    try:
        return _plain_from_arrow(column.type_name, array)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _misfit(column, array, error) from error


def arrow_scalars(column: Column, array: Any) -> Any:
    """Returns an Arrow column of a declared type of single values in the Arrow type that its plain values have.

    Raises:
        WrongType: the column's Arrow type, or a value in it, does not fit the declared type.
    """
    try:
        return _scalars(column.type_name, array)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _misfit(column, array, error) from error


def _misfit(column: Column, array: Any, error: Exception) -> WrongType:
    return WrongType(
        f"column {column.name!r} of type {array.type} does not fit the declared type {column.type_name}: "
        f"{shortened(error)}"
    )


def _scalars(type_name: str, array: Any) -> Any:
    return _epoch_seconds(array) if type_name == "UNIX_TIMESTAMP" else array.cast(_ARROW_TYPES[type_name])


def _plain_from_arrow(type_name: str, array: Any) -> list[Any]:
    if type_name == "UNIX_TIMESTAMP" or type_name in _ARROW_TYPES:
        scalars: list[Any] = _scalars(type_name, array).to_pylist()
        return scalars
    element = element_type(type_name)
    if element is None or element == "UNIX_TIMESTAMP" or element not in _ARROW_TYPES:
        if element == "UNIX_TIMESTAMP":
            return _epoch_second_lists(array)
        return plain_from_python(array.to_pylist(maps_as_pydicts="strict"), type_name)
    values: list[Any] = array.cast(pa.list_(_ARROW_TYPES[element])).to_pylist()
    if element in FLOATS:
        # Feast's messages have no null inside a list of numbers; its own reader turns one into NaN.
        return [v and [math.nan if item is None else item for item in v] for v in values]
    for value in values:
        if value is not None and None in value:
            raise ValueError(f"a list holds a null: {shown(value)}; Feast lists of {element} cannot")
    return values


def _epoch_second_lists(array: Any) -> list[Any]:
    lists = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    seconds = iter(_epoch_seconds(lists.flatten()).to_pylist())
    return [None if size is None else list(islice(seconds, size)) for size in pc.list_value_length(lists).to_pylist()]


def _epoch_seconds(array: Any) -> Any:
    if pa.types.is_integer(array.type):
        return array.cast(pa.int64())
    if pa.types.is_date(array.type) or not pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("s"))
    unit = pa.timestamp("s", tz=array.type.tz)
    return pc.floor_temporal(array, unit="second").cast(unit).cast(pa.int64())


_ARROW_TYPES = (
    {name: pa.int32() if bits == 32 else pa.int64() for name, bits in INTEGERS.items() if name != "UNIX_TIMESTAMP"}
    | {name: pa.float32() if bits == 32 else pa.float64() for name, bits in FLOATS.items()}
    | dict.fromkeys(TEXTS, pa.string())
    | dict.fromkeys(BLOBS, pa.binary())
    | {"BOOL": pa.bool_()}
)
