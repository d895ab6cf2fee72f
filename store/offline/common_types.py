"""One type for a column whose type differs from file to file, as Arrow's type and as DuckDB's name for it."""

from collections.abc import Iterable
from functools import reduce

import pyarrow as pa
import pyarrow.types as pat

from store.kernel.source_scan import identifier
from store.offline.column_types import DECIMAL_DIGITS_MAX, is_text, plain_type

_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
_UTC = "UTC"

_NAMES = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("ns"): "TIMESTAMP_NS",
    pa.timestamp("us", _UTC): "TIMESTAMPTZ",
    pa.timestamp("ns", _UTC): "TIMESTAMPTZ_NS",
}


def read_type(kind: pa.DataType, is_int96: bool = False) -> pa.DataType:
    """Returns the type in which DuckDB reads a column of a type: layouts of the same values become one.

    Args:
        is_int96: whether it is Spark's old timestamp type, which DuckDB reads in microseconds.
    """
    kind = plain_type(kind)
    if is_text(kind):
        return pa.string()
    if pat.is_timestamp(kind):
        unit = "ns" if kind.unit == "ns" and not is_int96 else "us"
        return pa.timestamp(unit, _UTC if kind.tz else None)
    if pat.is_large_binary(kind) or pat.is_binary_view(kind) or pat.is_fixed_size_binary(kind):
        return pa.binary()
    if pat.is_date(kind):
        return pa.date32()
    if pat.is_float16(kind):
        return pa.float32()
    if pat.is_decimal(kind) and kind.precision <= DECIMAL_DIGITS_MAX:
        return pa.decimal128(kind.precision, kind.scale)
    if _is_list(kind):
        return pa.list_(read_type(kind.value_type))
    if pat.is_struct(kind):
        return pa.struct([pa.field(field.name, read_type(field.type)) for field in kind.fields])
    if pat.is_map(kind):
        return pa.map_(read_type(kind.key_type), read_type(kind.item_type))
    return kind


def common_type(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """Returns the narrowest type that holds the values of all given ones (as `read_type` gives them).

    Integers widen; with floats they become doubles, as pandas makes of integers with a null among them. Times get the
    finest unit, and the zone UTC if any has a zone; dates become times. Lists, maps and structs follow their values,
    and a struct has the fields of all.

    Returns:
        None if there is none: text against numbers, say, or a decimal against a double.
    """
    found: pa.DataType | None = reduce(_common_or_none, kinds)
    return found


def common_key_type(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """Returns the type in which keys of all given types (as `read_type` gives them) are compared, None if none is.

    pandas makes floats of integers with a null among them, and no other float can equal an integer key: so floats
    beside integers become integers.
    """
    kinds = list(kinds)
    common = common_type(kinds)
    if common is not None and pat.is_floating(common) and any(map(pat.is_integer, kinds)):
        return common_type([pa.int64(), *filter(pat.is_integer, kinds)])
    return common


def _common_or_none(left: pa.DataType | None, right: pa.DataType | None) -> pa.DataType | None:
    return None if left is None or right is None else _common(left, right)


def _common(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if left.equals(right) or pat.is_null(right):
        return left
    if pat.is_null(left):
        return right
    if pat.is_integer(left) and pat.is_integer(right):
        return _common_integer(left, right)
    if _is_number(left) and _is_number(right):
        return pa.float64()
    if _is_exact(left) and _is_exact(right):
        return _common_decimal(left, right)
    if _is_instant(left) and _is_instant(right):
        units = {getattr(kind, "unit", "us") for kind in (left, right)}
        zones = {getattr(kind, "tz", None) for kind in (left, right)}
        return pa.timestamp("ns" if "ns" in units else "us", _UTC if _UTC in zones else None)
    return _common_nested(left, right)


def _common_integer(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    wide, narrow = sorted((left, right), key=lambda kind: int(kind.bit_width), reverse=True)
    if pat.is_signed_integer(wide) == pat.is_signed_integer(narrow):
        return wide
    if pat.is_signed_integer(wide) and wide.bit_width > narrow.bit_width:
        return wide
    bits = max(kind.bit_width for kind in (left, right) if pat.is_unsigned_integer(kind))
    return {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}.get(bits)


def _common_decimal(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    scales = [getattr(kind, "scale", 0) for kind in (left, right)]
    whole = max(
        kind.precision - kind.scale if pat.is_decimal(kind) else _INTEGER_DIGITS[kind.bit_width]
        for kind in (left, right)
    )
    digits = whole + max(scales)
    return pa.decimal128(digits, max(scales)) if digits <= DECIMAL_DIGITS_MAX else None


def _common_nested(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if _is_list(left) and _is_list(right):
        value = _common(left.value_type, right.value_type)
        return None if value is None else pa.list_(value)
    if pat.is_map(left) and pat.is_map(right):
        key, item = _common(left.key_type, right.key_type), _common(left.item_type, right.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pat.is_struct(left) and pat.is_struct(right):
        fields = {field.name: field.type for field in left.fields}
        for field in right.fields:
            fields[field.name] = _common_or_none(fields.get(field.name, field.type), field.type)
        return None if None in fields.values() else pa.struct(list(fields.items()))
    return None


def sql_type(kind: pa.DataType) -> str | None:
    """Returns DuckDB's name of a type that `read_type` gave, None for one that has none here."""
    if kind in _NAMES:
        return _NAMES[kind]
    if pat.is_decimal128(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if _is_list(kind):
        value = sql_type(kind.value_type)
        return None if value is None else f"{value}[]"
    if pat.is_map(kind):
        key, item = sql_type(kind.key_type), sql_type(kind.item_type)
        return None if key is None or item is None else f"MAP({key}, {item})"
    if pat.is_struct(kind):
        types = [sql_type(field.type) for field in kind.fields]
        parts = ", ".join(f"{identifier(field.name)} {name}" for field, name in zip(kind.fields, types, strict=True))
        return None if None in types or not types else f"STRUCT({parts})"
    return None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind) or pat.is_list_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pat.is_integer(kind) or pat.is_floating(kind))


def _is_exact(kind: pa.DataType) -> bool:
    return bool(pat.is_integer(kind) or pat.is_decimal128(kind))


def _is_instant(kind: pa.DataType) -> bool:
    return bool(pat.is_timestamp(kind) or pat.is_date(kind))
