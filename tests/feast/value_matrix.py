"""Every value type of Feast with its edges: as a Parquet file holds them, and as a push says them in JSON."""

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import feast.types as ft
import pyarrow as pa

MOMENTS = [
    datetime(1960, 2, 29, 23, 59, 59, tzinfo=UTC),
    datetime(2200, 1, 1, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
]
UUIDS = ["3f333df6-90a4-4fda-8dd3-9485d27cee36", "00000000-0000-0000-0000-000000000000"]
TIME_UUIDS = ["c24e3a30-9e4c-11ee-8c90-0242ac120002"]
DECIMALS = ["1.10", "-12345678901234567890.123456789", "0E-7"]
FLOATS = [0.5, math.inf, -math.inf, -0.0, 0.0]


@dataclass(frozen=True)
class TypeRows:
    """Values of one Feast type, none of them null.

    Args:
        dtype: the type as a feature's declaration says it.
        arrow: its type in a Parquet file.
        rows: the values as they stand in the file.
        as_json: what a push says for a value.
    """

    dtype: Any
    arrow: pa.DataType
    rows: list[Any]
    as_json: Callable[[Any], Any] = lambda value: value


def _said_float(value: float) -> Any:
    return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")


def _said_moment(value: datetime) -> str:
    return value.isoformat()


def _said_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


SCALARS = {
    "int32": TypeRows(ft.Int32, pa.int32(), [0, -(2**31), 2**31 - 1]),
    # Beside a null Feast reads integers by way of floats, which are exact up to here.
    "int64": TypeRows(ft.Int64, pa.int64(), [0, -(2**53), 2**53]),
    "float32": TypeRows(ft.Float32, pa.float32(), FLOATS, _said_float),
    "float64": TypeRows(ft.Float64, pa.float64(), [*FLOATS, 0.1, 5e-324, 1.7976931348623157e308], _said_float),
    "bool": TypeRows(ft.Bool, pa.bool_(), [True, False]),
    "string": TypeRows(ft.String, pa.string(), ["", 'é \U0001f600 \x00 \\ "', "NaN"]),
    "bytes": TypeRows(ft.Bytes, pa.binary(), [b"", b"\x00\xff"], _said_bytes),
    "timestamp": TypeRows(ft.UnixTimestamp, pa.timestamp("us", "UTC"), MOMENTS, _said_moment),
    "uuid": TypeRows(ft.Uuid, pa.string(), UUIDS),
    "time_uuid": TypeRows(ft.TimeUuid, pa.string(), TIME_UUIDS),
    "decimal": TypeRows(ft.Decimal, pa.string(), DECIMALS),
}


def _collections(kind: Any) -> dict[str, TypeRows]:
    """Returns lists or sets of each scalar type: of all of its values, and empty ones."""
    made: dict[str, TypeRows] = {}
    for name, scalar in SCALARS.items():
        say = scalar.as_json
        # A set of one element has one order.
        items = scalar.rows if kind is ft.Array else scalar.rows[:1]
        made[f"{kind.__name__.lower()}_of_{name}"] = TypeRows(
            kind(scalar.dtype),
            pa.list_(scalar.arrow),
            [items, []],
            lambda value, say=say: [say(item) for item in value],
        )
    return made


_STRUCT = ft.Struct({"a": ft.Int64, "b": ft.String})
_ARROW_MAP = pa.map_(pa.string(), pa.string())

TYPES: dict[str, TypeRows] = {
    **SCALARS,
    **_collections(ft.Array),
    **_collections(ft.Set),
    "json": TypeRows(ft.Json, pa.string(), ['{"a": [1, null]}', "[]", "null"]),
    "array_of_json": TypeRows(ft.Array(ft.Json), pa.list_(pa.string()), [['{"a": 1}', "2"], []]),
    "pdf": TypeRows(ft.PdfBytes, pa.binary(), [b"%PDF", b""], _said_bytes),
    "image": TypeRows(ft.ImageBytes, pa.binary(), [b"\x89PNG"], _said_bytes),
    "struct": TypeRows(
        _STRUCT, pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 1, "b": "x"}, {"a": 2, "b": ""}]
    ),
    "array_of_struct": TypeRows(
        ft.Array(ft.Struct({"a": ft.Int64})), pa.list_(pa.struct([("a", pa.int64())])), [[{"a": 1}, {"a": 2}], []]
    ),
    "array_of_array": TypeRows(ft.Array(ft.Array(ft.Int64)), pa.list_(pa.list_(pa.int64())), [[[1, 2], [3]], [[]], []]),
    "set_of_array": TypeRows(ft.Set(ft.Array(ft.Int64)), pa.list_(pa.list_(pa.int64())), [[[1, 2]]]),
    "array_of_set": TypeRows(ft.Array(ft.Set(ft.Int64)), pa.list_(pa.list_(pa.int64())), [[[1], [3]]]),
}
"""Types that Feast can materialize beside nulls, by the name of the feature that has them in the view `kinds`."""

ALONE: dict[str, TypeRows] = {
    "int64_ends": TypeRows(ft.Int64, pa.int64(), [-(2**63), 2**63 - 1, 2**53 + 1]),
    "int64_null": TypeRows(ft.Int64, pa.int64(), [2**63 - 1, 2**53 + 1, None]),
    "int64_list": TypeRows(ft.Array(ft.Int64), pa.list_(pa.int64()), [[-(2**63), 2**63 - 1], [2**53 + 1]]),
    "nan": TypeRows(ft.Float64, pa.float64(), [math.nan, 1.0, None], _said_float),
    "nan_list": TypeRows(
        ft.Array(ft.Float64),
        pa.list_(pa.float64()),
        [[math.nan, 1.0], [None]],
        lambda value: [item and _said_float(item) for item in value],
    ),
    "map": TypeRows(ft.Map, _ARROW_MAP, [[("a", "x"), ("b", "")], []], dict),
    "array_of_map": TypeRows(
        ft.Array(ft.Map), pa.list_(_ARROW_MAP), [[[("a", "x")], [("b", "y")]], []], lambda v: [dict(m) for m in v]
    ),
    "zoned": TypeRows(ft.ZonedTimestamp, pa.timestamp("us", "+02:00"), MOMENTS, _said_moment),
    # JSON has no keys but text, so a push can only say null.
    "scalar_map": TypeRows(ft.ScalarMap, pa.map_(pa.int64(), pa.string()), [[(1, "x")]], lambda _: None),
}
"""Types and values that have a view of their own, since Feast materializes them with loss or not at all."""
