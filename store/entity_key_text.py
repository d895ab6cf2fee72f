"""Entity keys as people type them on a command line: `col=value[,col=value]`, each value read by its declared type."""

import base64
import csv
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from store.clock import to_us
from store.errors import InputError, WrongType, shown
from store.feast_values import plain_from_request
from store.kernel.definitions import Column
from store.kernel.keys import INT_TYPES, TEXT_TYPES, KeyValue, encode_value

_BOOLEANS = {"true": True, "false": False}
_EXPECTED = {"BOOL": "true or false", "BYTES": "base64", "UNIX_TIMESTAMP": "an ISO 8601 instant or epoch seconds"}


def parse_key_text(text: str) -> dict[str, str]:
    """Returns the columns of an entity key and the texts of their values, in the order given; none for an empty text.

    A part that holds a comma is quoted as in CSV: `"name=Smith, John",city=Rome`.

    Raises:
        InputError: a part without `=`, a column without a name or given twice, or quotes that do not end.
    """
    expected = 'write it as column=value[,column=value], a part with a comma in quotes ("column=a,b")'
    if not text:
        return {}
    try:
        parts = next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InputError(f"key {shown(text)} cannot be read ({error}); {expected}") from error
    found: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"key {shown(text)}: {shown(part)} names no column and value; {expected}")
        if name in found:
            raise InputError(f"key {shown(text)} gives column {name!r} twice; give it once")
        found[name] = value
    return found


def typed_key(columns: Sequence[Column], texts: Mapping[str, str]) -> dict[str, KeyValue]:
    """Returns the values of some join keys as their declared types have them, by column.

    Raises:
        WrongType: a text that says no value of its column's type; it is named with the type.
    """
    return {column.name: _typed(column, texts[column.name]) for column in columns}


def _typed(column: Column, text: str) -> KeyValue:
    try:
        [value] = plain_from_request(column, [_read(column.type_name, text)])
        # What no key can hold, an integer beyond its bits for one, is refused here as it would be in a lookup.
        encode_value(column.name, column.type_name, value)
    except (ValueError, OverflowError) as error:
        raise WrongType(
            f"join key {column.name!r}: {shown(text)} is no {column.type_name}; "
            f"write {_EXPECTED.get(column.type_name, 'a value of that type')}"
        ) from error
    key_value: KeyValue = value
    return key_value


def _read(type_name: str, text: str) -> Any:
    if type_name in TEXT_TYPES:
        return text
    text = text.strip()
    if type_name == "UNIX_TIMESTAMP" and not text.lstrip("+-").isdecimal():
        return to_us(datetime.fromisoformat(text)) // 1_000_000
    if type_name in INT_TYPES:
        return int(text)
    if type_name == "BOOL":
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    return base64.b64decode(text, validate=True) if type_name == "BYTES" else float(text)
