"""A key given twice is refused wherever it stands; everything else passes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.json_bodies import refuse_repeated_keys
from server.schemas import LookupBody, PushBody, decode
from store.errors import BadBody

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='":, {}é\\'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a":'), inner, max_size=3),
)


@given(st.dictionaries(st.text(alphabet='ab": '), values, max_size=4), st.sampled_from([(",", ":"), (" , ", " : ")]))
def test_an_object_without_repetition_passes(content: dict[str, Any], separators: tuple[str, str]) -> None:
    refuse_repeated_keys(json.dumps(content, separators=separators).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 1}',
        b'{"a":1,"a"\n:1}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"df": {"k": [1], "k": [2]}}',
        b'{"df": {"k": [{"x": 1, "x": 2}]}}',
        b'{"df": {"k": ["\\":", {"x": 1, "y": 1, "x": 2}]}}',
        b'{"a": {"b": {"c": 1, "c": 1}}}',
        b'{"a": 1e999, "b": 123456789012345678901234567890, "a": 1}',
    ],
)
def test_a_repeated_key_is_named(body: bytes) -> None:
    with pytest.raises(BadBody, match=r"key '[akxc]' is given twice"):
        refuse_repeated_keys(body)


def test_a_body_with_a_repeated_field_or_column_is_refused() -> None:
    with pytest.raises(BadBody, match="'features'"):
        decode(b'{"entities": {}, "features": ["a:b"], "features": ["c:d"]}', LookupBody)
    with pytest.raises(BadBody, match="'k'"):
        decode(b'{"push_source_name": "p", "df": {"k": [1], "k": [2]}}', PushBody)


def test_values_nested_without_end_are_refused_not_followed() -> None:
    deep = b'{"df": {"k": [' + b'{"x":' * 5_000 + b"1" + b"}" * 5_000 + b']}, "push_source_name": "p"}'
    with pytest.raises(BadBody, match="deeply"):
        decode(deep, PushBody)
