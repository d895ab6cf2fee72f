"""Which column types fit each other: keys that can be compared, and features widened to their declared types."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.types as pat

DECIMAL_DIGITS_MAX = 38
"""Of DuckDB's decimals."""

_UTC = "UTC"
_BINARIES = (pat.is_binary, pat.is_large_binary, pat.is_binary_view, pat.is_fixed_size_binary)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type of the values of a column: a dictionary's value type, else the type itself."""
    return kind.value_type if pat.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether values are text, in any of Arrow's layouts."""
    return bool(pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind))


def is_uuid(kind: pa.DataType) -> bool:
    """Whether values are UUIDs, which Parquet has as a logical type of their own."""
    return isinstance(kind, pa.UuidType)


def holds(kind: pa.DataType, test: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type or any type inside of it passes a test."""
    kind = plain_type(kind)
    return test(kind) or any(holds(kind.field(number).type, test) for number in range(kind.num_fields))


def is_instant(kind: pa.DataType) -> bool:
    """Whether values are points in time: timestamps, or dates (midnight in UTC)."""
    return bool(pat.is_timestamp(kind) or pat.is_date(kind))


def are_comparable(left: pa.DataType, right: pa.DataType) -> bool:
    """Whether keys of entity rows (left) can equal those of a source: numbers of any width, text in any layout.

    A column without a type (all null) fits any, and text fits UUIDs.
    """
    kinds = {_family(plain_type(left)), _family(plain_type(right))}
    if is_text(plain_type(left)) and is_uuid(right):
        return True
    return len(kinds) == 1 or "null" in kinds or kinds <= {"integer", "decimal"} or kinds <= {"integer", "float"}


def _family(kind: pa.DataType) -> str:
    tests = {
        "null": pat.is_null,
        "integer": pat.is_integer,
        "decimal": _is_decimal,
        "float": pat.is_floating,
        "text": is_text,
        "boolean": pat.is_boolean,
        "timestamp": pat.is_timestamp,
        "date": pat.is_date,
    }
    if any(is_binary(kind) for is_binary in _BINARIES):
        return "binary"
    return next((name for name, test in tests.items() if test(kind)), str(kind))


def _is_decimal(kind: pa.DataType) -> bool:
    """Whether values are decimals that DuckDB can hold."""
    return bool(pat.is_decimal(kind) and kind.precision <= DECIMAL_DIGITS_MAX)


def answer_type(delivered: pa.DataType, declared: pa.DataType | None) -> pa.DataType:
    """Returns the type in which a feature is answered: the declared one if that only widens, else as delivered.

    Timestamps keep the unit of the file (never fewer digits) and get the zone UTC where they are declared as
    timestamps; lists follow their values.
    """
    if declared is None or delivered.equals(declared):
        return delivered
    if pat.is_timestamp(declared) and is_instant(delivered):
        return pa.timestamp(delivered.unit if pat.is_timestamp(delivered) else "us", _UTC)
    if _is_list(delivered) and _is_list(declared):
        return pa.list_(answer_type(delivered.value_type, declared.value_type))
    return declared if _is_wider(delivered, declared) else delivered


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind))


def _is_wider(kind: pa.DataType, declared: pa.DataType) -> bool:
    """Whether each value of a type is also one of the declared type; integers of up to 64 bits count as doubles."""
    if pat.is_null(kind):
        return True
    if pat.is_integer(kind) and pat.is_integer(declared):
        grows = declared.bit_width > kind.bit_width
        return bool(grows and (pat.is_signed_integer(declared) or pat.is_unsigned_integer(kind)))
    if pat.is_floating(declared):
        is_narrower_float = pat.is_floating(kind) and declared.bit_width > kind.bit_width
        return bool(is_narrower_float or (pat.is_integer(kind) and declared.bit_width == 64))
    return is_text(kind) and is_text(declared)
