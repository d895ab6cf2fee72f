"""Entity keys as they are typed on a command line."""

from typing import Any

import pytest

from store.entity_key_text import parse_key_text, typed_key
from store.errors import InputError, WrongType
from store.kernel.definitions import Column


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("user_id=7", {"user_id": "7"}),
        ("driver=7,city=New York", {"driver": "7", "city": "New York"}),
        ('"name=Smith, John",city=Rome', {"name": "Smith, John", "city": "Rome"}),
        ("equation=a=b", {"equation": "a=b"}),
        ("empty=", {"empty": ""}),
    ],
)
def test_columns_and_values_are_taken_apart(text: str, expected: dict[str, str]) -> None:
    assert parse_key_text(text) == expected


@pytest.mark.parametrize("text", ["7", "=7", "a=1,", "a=1,a=2", '"a=1', "name=Smith, John"])
def test_a_key_that_says_no_columns_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="column"):
        parse_key_text(text)


@pytest.mark.parametrize(
    ("type_name", "text", "value"),
    [
        ("INT64", "-7", -7),
        ("INT32", "7", 7),
        ("STRING", " 7 ", " 7 "),
        ("STRING", "", ""),
        ("UUID", "x", "x"),
        ("BOOL", "True", True),
        ("BYTES", "AAE=", b"\0\1"),
        ("DOUBLE", "1.5", 1.5),
        ("UNIX_TIMESTAMP", "1970-01-01T01:00:00+01:00", 0),
        ("UNIX_TIMESTAMP", "1970-01-01T00:00:07", 7),
        ("UNIX_TIMESTAMP", "-7", -7),
    ],
)
def test_values_are_read_by_their_declared_type(type_name: str, text: str, value: Any) -> None:
    assert typed_key([Column("k", type_name)], {"k": text}) == {"k": value}


@pytest.mark.parametrize(
    ("type_name", "text"),
    [
        ("INT64", "seven"),
        ("INT64", ""),
        ("INT64", "1.0"),
        ("INT64", str(2**63)),
        ("INT32", str(2**31)),
        ("BOOL", "1"),
        ("BYTES", "?"),
        ("DOUBLE", "x"),
        ("UNIX_TIMESTAMP", "yesterday"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(type_name: str, text: str) -> None:
    with pytest.raises(WrongType, match=f"'k'.*{type_name}"):
        typed_key([Column("k", type_name)], {"k": text})
