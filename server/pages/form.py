"""The form that looks a key up: what was typed, as the values that a lookup takes."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from server.limits import FORM_FIELDS_MAX, PAGE_QUERY_CHARS_MAX
from store.errors import BadBody, TooLarge, WrongType, shown
from store.kernel.definitions import Column
from store.limits import LOOKUP_FEATURES_MAX

KEY_PREFIX: Final = "key."
"""Stands before the names of columns in the form, so that a column may be called like a field of its own."""

INTEGERS: Final = frozenset({"INT32", "INT64"})
FLOATS: Final = frozenset({"FLOAT", "DOUBLE"})
_BOOLEANS: Final = {"true": True, "false": False}
_AS_TYPED: Final = frozenset({"STRING", "BYTES", "UNIX_TIMESTAMP", "UUID", "TIME_UUID", "DECIMAL"})
_EXPECTED: Final = (
    {"BOOL": "true or false"} | dict.fromkeys(INTEGERS, "a whole number") | dict.fromkeys(FLOATS, "a number")
)


def fields_of(body: bytes) -> dict[str, str]:
    """Returns the fields of a posted form.

    Raises:
        BadBody: not a form, a field given twice, or more fields than a form of ours has.
    """
    try:
        given = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=bool(body), errors="strict",
            max_num_fields=FORM_FIELDS_MAX,
        )  # fmt: skip
    except ValueError as error:
        raise BadBody(f"form: it cannot be read ({error}); send it from the page") from error
    fields = dict(given)
    if len(fields) < len(given):
        raise BadBody("form: a field is given twice; send it from the page")
    return fields


def references_of(text: str) -> list[str]:
    """Returns the features that a text lists, one in a line.

    Raises:
        TooLarge: more than one lookup takes.
    """
    references = [line.strip() for line in text.splitlines() if line.strip()]
    if len(references) > LOOKUP_FEATURES_MAX:
        raise TooLarge(f"features: {len(references)} lines, at most {LOOKUP_FEATURES_MAX} are taken; ask for fewer")
    return references


def entities_from(columns: Mapping[str, Column], fields: Mapping[str, str]) -> dict[str, list[Any]]:
    """Returns the one entity row that was typed, as a lookup takes it; nothing in a field that is no text is a null.

    Raises:
        BadBody: a field that is missing, or one that is none of these columns.
        WrongType: a text that says no value of its column's type.
    """
    typed = {name.removeprefix(KEY_PREFIX): text for name, text in fields.items() if name.startswith(KEY_PREFIX)}
    if typed.keys() != columns.keys():
        raise BadBody(f"form: fields {shown(sorted(typed))} came, expected {shown(sorted(columns))}; choose anew")
    return {name: [_value(column, typed[name])] for name, column in columns.items()}


def _value(column: Column, text: str) -> Any:
    kind = column.type_name
    if kind == "STRING":
        return text
    text = text.strip()
    if not text:
        return None
    try:
        if kind in INTEGERS:
            return int(text)
        if kind in FLOATS:
            return float(text)
        if kind == "BOOL":
            return _BOOLEANS[text.lower()]
        return text if kind in _AS_TYPED else json.loads(text)
    except (ValueError, KeyError, RecursionError) as error:
        typed = shown(text[:PAGE_QUERY_CHARS_MAX])
        raise WrongType(f"{column.name!r}: {typed} is no {kind}; write {_EXPECTED.get(kind, 'it as JSON')}") from error
