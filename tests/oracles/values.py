"""A plain model of every Feast type: how a value is written, and as what it reads; it shares no code with `store`."""

import base64
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import feast.types as ft
import pyarrow as pa
from hypothesis import strategies as st


@dataclass(frozen=True)
class Kind:
    """One Feast type.

    Args:
        dtype: as a feature's declaration says it.
        arrow: the type of its column in a Parquet file.
        drawn: some values, as Python objects; None is not among them.
        in_file: a value as Arrow takes it for the column.
        said: a value as a push has it in JSON; None if JSON cannot say it.
        in_python: what Feast's SDK gives back.
        answered: what the server answers; a set as a list, in any order.
    """

    dtype: Any
    arrow: pa.DataType
    drawn: st.SearchStrategy[Any]
    in_file: Callable[[Any], Any] = lambda value: value
    said: Callable[[Any], Any] | None = lambda value: value
    in_python: Callable[[Any], Any] = lambda value: value
    answered: Callable[[Any], Any] = lambda value: value


def _json_float(value: float) -> Any:
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _epoch_seconds(value: datetime) -> int:
    """Whole seconds, rounded down: all that Feast's message holds."""
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def _whole_seconds(value: datetime) -> datetime:
    return value.replace(microsecond=0)


def _integers(bits: int) -> st.SearchStrategy[int]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.sampled_from([low, high, 0, -1]) | st.integers(low, high)


_FLOATS = st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.7976931348623157e308])
_TEXT = st.text(max_size=12) | st.integers(250, 260).map("é".__mul__)
_MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
    ]
)
ZONE = timezone(timedelta(hours=2))
"""Of the column of zoned timestamps."""

SCALARS = {
    "int32": Kind(ft.Int32, pa.int32(), _integers(32)),
    "int64": Kind(ft.Int64, pa.int64(), _integers(64)),
    "float32": Kind(
        ft.Float32, pa.float32(), st.floats(width=32), said=_json_float, in_python=_float32, answered=_json_float
    ),
    "float64": Kind(ft.Float64, pa.float64(), _FLOATS | st.floats(), said=_json_float, answered=_json_float),
    "bool": Kind(ft.Bool, pa.bool_(), st.booleans()),
    "string": Kind(ft.String, pa.string(), _TEXT),
    "bytes": Kind(ft.Bytes, pa.binary(), st.binary(max_size=300), said=_base64, answered=_base64),
    "timestamp": Kind(
        ft.UnixTimestamp,
        pa.timestamp("us", "UTC"),
        _MOMENTS,
        said=datetime.isoformat,
        in_python=_whole_seconds,
        answered=_epoch_seconds,
    ),
    "uuid": Kind(ft.Uuid, pa.string(), st.uuids(), in_file=str, said=str, answered=str),
    "time_uuid": Kind(ft.TimeUuid, pa.string(), st.uuids(version=1), in_file=str, said=str, answered=str),
    "decimal": Kind(ft.Decimal, pa.string(), st.decimals(allow_nan=False), in_file=str, said=str, answered=str),
}


def _collection(kind: Kind, of: Any) -> Kind:
    """Returns lists (`ft.Array`) or sets (`ft.Set`) of a type."""
    elements = st.lists(kind.drawn, max_size=4)
    if of is ft.Set:
        # A set that holds NaN twice is nobody's; what counts as twice is for the type to say.
        elements = st.lists(kind.drawn, max_size=4, unique_by=lambda value: repr(kind.answered(value)))

    def each(convert: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
        return lambda values: [convert(value) for value in values]

    collect: Callable[[Any], Any] = set if of is ft.Set else list
    return Kind(
        of(kind.dtype),
        pa.list_(kind.arrow),
        elements,
        in_file=each(kind.in_file),
        said=each(kind.said),
        in_python=lambda values: collect(kind.in_python(value) for value in values),
        answered=each(kind.answered),
    )


_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
_JSON = Kind(ft.Json, pa.string(), _DOCUMENTS.map(json.dumps), in_python=json.loads)
_ARROW_MAP = pa.map_(pa.string(), pa.string())
_MAPS = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)
_STRUCT = {"a": ft.Int64, "b": ft.String}
_ARROW_STRUCT = pa.struct([("a", pa.int64()), ("b", pa.string())])
_STRUCTS = st.fixed_dictionaries({"a": _integers(64), "b": st.text(max_size=4)})
_NESTED = st.lists(st.lists(_integers(64), max_size=3), max_size=3)


def _pairs(value: dict[Any, str]) -> list[tuple[Any, str]]:
    return list(value.items())


KINDS = {
    **SCALARS,
    **{f"array_of_{name}": _collection(kind, ft.Array) for name, kind in SCALARS.items()},
    **{f"set_of_{name}": _collection(kind, ft.Set) for name, kind in SCALARS.items()},
    "pdf": Kind(ft.PdfBytes, pa.binary(), st.binary(max_size=9), said=_base64, answered=_base64),
    "image": Kind(ft.ImageBytes, pa.binary(), st.binary(max_size=9), said=_base64, answered=_base64),
    "json": _JSON,
    "array_of_json": _collection(_JSON, ft.Array),
    "map": Kind(ft.Map, _ARROW_MAP, _MAPS, in_file=_pairs),
    "scalar_map": Kind(
        ft.ScalarMap,
        pa.map_(pa.int64(), pa.string()),
        st.dictionaries(_integers(64), st.text(max_size=4), max_size=3),
        in_file=_pairs,
        said=None,
        answered=lambda value: {str(key): text for key, text in value.items()},
    ),
    "array_of_map": Kind(
        ft.Array(ft.Map), pa.list_(_ARROW_MAP), st.lists(_MAPS, max_size=3), in_file=lambda maps: [*map(_pairs, maps)]
    ),
    "struct": Kind(ft.Struct(_STRUCT), _ARROW_STRUCT, _STRUCTS),
    "array_of_struct": Kind(ft.Array(ft.Struct(_STRUCT)), pa.list_(_ARROW_STRUCT), st.lists(_STRUCTS, max_size=3)),
    "array_of_array": Kind(ft.Array(ft.Array(ft.Int64)), pa.list_(pa.list_(pa.int64())), _NESTED),
    "set_of_array": Kind(
        ft.Set(ft.Array(ft.Int64)),
        pa.list_(pa.list_(pa.int64())),
        st.lists(st.lists(_integers(64), max_size=3), max_size=3, unique_by=repr),
    ),
    "array_of_array_of_text": Kind(
        ft.Array(ft.Array(ft.String)),
        pa.list_(pa.list_(pa.string())),
        st.lists(st.lists(_TEXT, max_size=3), max_size=3),
    ),
    "zoned": Kind(
        ft.ZonedTimestamp,
        pa.timestamp("us", "+02:00"),
        st.integers(-(2**31), 2**33).map(lambda seconds: datetime.fromtimestamp(seconds + 0.5, ZONE)),
        said=datetime.isoformat,
        in_python=_whole_seconds,
        answered=lambda value: _whole_seconds(value).isoformat(),
    ),
}
"""By the name of the feature that has the type."""


def is_same(left: Any, right: Any) -> bool:
    """Whether two values are the same: of one type, NaN as itself, -0.0 not as 0.0; sets in any order."""
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("<d", left) == struct.pack("<d", right) or (math.isnan(left) and math.isnan(right))
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(is_same, left, right))
    if isinstance(left, set):
        rest = list(right)
        return len(left) == len(right) and all(any(is_same(item, other) for other in rest) for item in left)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(is_same(left[key], right[key]) for key in left)
    if isinstance(left, datetime):
        return bool(left == right) and left.utcoffset() == right.utcoffset()
    if isinstance(left, Decimal):
        return str(left) == str(right)
    return bool(left == right)
