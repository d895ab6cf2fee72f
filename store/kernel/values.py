"""Feature values as plain Python, and which change of type keeps them: what the row codec stores.

| Feast types | plain value |
|---|---|
| INT32, INT64, UNIX_TIMESTAMP (epoch seconds, as Feast has it) | int |
| DOUBLE, FLOAT | float |
| BOOL | bool |
| STRING, JSON, UUID, TIME_UUID, DECIMAL | str |
| BYTES, PDF_BYTES, IMAGE_BYTES | bytes |
| `*_LIST` and `*_SET` of those | list, in the order given |
| maps, structs, nested collections, zoned timestamps | bytes: the serialized Feast `Value` |

A null is None. `ABSENT` stands for a feature that a stored row was written without.
"""

import math
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final


class Absent(Enum):
    """The type of `ABSENT`; an enum, so that type checkers can tell it from a value."""

    ABSENT = auto()


ABSENT: Final = Absent.ABSENT

INTEGERS: Final = {"INT32": 32, "INT64": 64, "UNIX_TIMESTAMP": 64}
FLOATS: Final = {"FLOAT": 32, "DOUBLE": 64}
TEXTS: Final = frozenset({"STRING", "JSON", "UUID", "TIME_UUID", "DECIMAL"})
BLOBS: Final = frozenset({"BYTES", "PDF_BYTES", "IMAGE_BYTES"})
FIXED_FORMATS: Final = {"INT32": "i", "INT64": "q", "UNIX_TIMESTAMP": "q", "FLOAT": "f", "DOUBLE": "d", "BOOL": "?"}
"""Types of fixed width, with their format in the `struct` module."""

_EXACT_FLOAT_INTEGER_MAX = 2**53
"""Beyond this not every integer has a double of its own."""


def element_type(type_name: str) -> str | None:
    """Returns the element type of a list or set of plain values, None for every other type."""
    for suffix in ("_LIST", "_SET"):
        element = type_name.removesuffix(suffix)
        if element != type_name and (element in FIXED_FORMATS or element in TEXTS or element in BLOBS):
            return element
    return None


def is_opaque(type_name: str) -> bool:
    """Whether values of this type are stored as serialized Feast `Value` messages."""
    known = type_name in FIXED_FORMATS or type_name in TEXTS or type_name in BLOBS
    return not known and element_type(type_name) is None


Cast = Callable[[Any], Any]


def lossless_cast(stored: str, wanted: str) -> Cast | None:
    """Returns a function from a stored plain value to the wanted type, or None where no cast can be lossless.

    The function returns `ABSENT` for a value that does not fit: such a value would not be what was written.
    """
    if stored == wanted:
        return _unchanged
    stored_element, wanted_element = element_type(stored), element_type(wanted)
    if stored_element and wanted_element:
        if stored.endswith("_SET") != wanted.endswith("_SET"):
            return None
        cast = lossless_cast(stored_element, wanted_element)
        return _each(cast) if cast else None
    if stored in INTEGERS and wanted in INTEGERS and "UNIX_TIMESTAMP" not in (stored, wanted):
        return _int32_or_absent if wanted == "INT32" else _unchanged
    if stored in ("INT32", "INT64") and wanted == "DOUBLE":
        return _double_or_absent
    if stored in FLOATS and wanted in FLOATS:
        return _float32_or_absent if wanted == "FLOAT" else _unchanged
    if stored in TEXTS and wanted == "STRING":
        return _unchanged
    if stored in BLOBS and wanted in BLOBS:
        return _unchanged
    return None


def _unchanged(value: Any) -> Any:
    return value


def _each(cast: Cast) -> Cast:
    def cast_list(values: list[Any]) -> Any:
        result = [cast(value) for value in values]
        return ABSENT if ABSENT in result else result

    return cast_list


def _int32_or_absent(value: int) -> int | Absent:
    return value if -(2**31) <= value < 2**31 else ABSENT


def _double_or_absent(value: int) -> float | Absent:
    return float(value) if abs(value) <= _EXACT_FLOAT_INTEGER_MAX else ABSENT


def _float32_or_absent(value: float) -> float | Absent:
    if math.isnan(value):
        return value
    try:
        rounded = float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return ABSENT
    return value if rounded == value else ABSENT
