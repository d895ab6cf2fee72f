"""Redis names are injective, carry their project as a prefix of its own, and share a slot per entity key."""

import fnmatch
import re
import struct
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from store.errors import InputError, TooLarge, WrongType
from store.kernel.definitions import Column
from store.kernel.keys import (
    encode_value,
    entity_key_encoder,
    entity_keys_pattern,
    layouts_key,
    lease_key,
    project_pattern,
    project_prefix,
    row_field,
    split_entity_key,
    views_key,
)
from store.limits import REDIS_KEY_BYTES_MAX

projects = st.text("abc_1:", min_size=1, max_size=6)
names = st.text("ab{}:1", min_size=1, max_size=4)
typed_values = st.one_of(
    st.tuples(st.just("INT64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("STRING"), st.text("ab{}:1,sib?", max_size=6)),
    st.tuples(st.just("BYTES"), st.binary(max_size=6)),
    st.tuples(st.just("BOOL"), st.booleans()),
    st.tuples(st.just("DOUBLE"), st.floats(allow_nan=False)),
)
entity_keys = st.dictionaries(names, typed_values, max_size=3)


def encode(project: str, entity: dict[str, tuple[str, object]]) -> bytes:
    encoder = entity_key_encoder(project, [Column(name, type_name) for name, (type_name, _) in entity.items()])
    encoded = encoder.encode([entity[name][1] for name in encoder.names])  # type: ignore[misc]
    assert encoded is not None
    return encoded


@given(projects, entity_keys, projects, entity_keys)
def test_different_entity_keys_have_different_names(p: str, left: dict, q: str, right: dict) -> None:  # type: ignore[type-arg]
    def canonical(entity: dict[str, tuple[str, object]]) -> set[tuple[str, str, object]]:
        return {(name, kind, value + 0.0 if kind == "DOUBLE" else value) for name, (kind, value) in entity.items()}  # type: ignore[operator]

    assert (encode(p, left) == encode(q, right)) == ((p, canonical(left)) == (q, canonical(right)))


@given(projects, entity_keys)
def test_an_entity_key_is_taken_apart_into_its_values(project: str, entity: dict) -> None:  # type: ignore[type-arg]
    expected = {name: encode_value(name, type_name, value) for name, (type_name, value) in entity.items()}
    assert split_entity_key(project, encode(project, entity)) == expected


@given(
    st.sampled_from(["INT32", "INT64", "UNIX_TIMESTAMP", "STRING"]),
    st.lists(st.none() | st.integers(-(2**63) - 1, 2**63) | st.integers(-5, 5) | st.booleans() | st.just("x")),
    st.booleans(),
)
def test_many_keys_at_once_are_those_one_by_one(type_name: str, values: list[Any], is_composite: bool) -> None:
    columns = [Column("k", type_name), Column("l", "BOOL")][: 1 + is_composite]
    encoder = entity_key_encoder("p", columns)
    rows = [(value, True)[: len(columns)] for value in values]
    try:
        expected = [encoder.encode(row) for row in rows]
    except WrongType as error:
        with pytest.raises(WrongType, match=re.escape(str(error))):
            encoder.encode_all(list(zip(*rows, strict=True)), len(rows))
        return
    assert encoder.encode_all([list(column) for column in zip(*rows, strict=True)] or [[]], len(rows)) == expected


@given(names, st.integers(0, 2**40), names, st.integers(0, 2**40))
def test_rows_of_different_views_and_generations_have_different_fields(v: str, g: int, w: str, h: int) -> None:
    assert (row_field(v, g) == row_field(w, h)) == ((v, g) == (w, h))


@given(st.binary(max_size=4), st.binary(max_size=4), st.integers(0, 2**20), st.integers(0, 2**20))
def test_no_fields_number_begins_another(v: bytes, w: bytes, g: int, h: int) -> None:
    if g != h:
        assert row_field("", g) + v != row_field("", h) + w


def test_keys_without_join_keys_are_all_the_same() -> None:
    encoder = entity_key_encoder("p", [])
    assert encoder.encode_all([], 2) == [encoder.encode(())] * 2


@given(projects, projects, entity_keys)
def test_no_entity_key_is_taken_for_another_projects(p: str, q: str, entity: dict) -> None:  # type: ignore[type-arg]
    assume(p != q)
    assert split_entity_key(p, encode(q, entity)) is None


@pytest.mark.parametrize("key", [views_key("p"), layouts_key("p"), lease_key("p", "v")])
def test_what_is_no_entity_key_is_not_taken_apart(key: bytes) -> None:
    assert split_entity_key("p", key) is None


@pytest.mark.parametrize("content", [b"", b"1:k", b"1:ki5", b"1:ks9:x", b"9:ki5,", b"1:kx5,", b"1:k?", b"1:kf00"])
def test_a_damaged_entity_key_is_not_taken_apart(content: bytes) -> None:
    parts = split_entity_key("p", b"1:p:{" + content + b"}")
    assert parts is None or parts == {}


@given(projects, projects, entity_keys)
def test_no_project_prefix_covers_another_project(p: str, q: str, entity: dict) -> None:  # type: ignore[type-arg]
    assume(p != q)
    assert not encode(q, entity).startswith(project_prefix(p))


@given(entity_keys)
def test_the_hash_tag_is_never_empty_and_the_same_for_all_keys_of_an_entity(entity: dict) -> None:  # type: ignore[type-arg]
    key = encode("p", entity)
    tag = key[key.index(b"{") + 1 : key.index(b"}")]
    assert tag
    assert (key + b"more")[key.index(b"{") + 1 : (key + b"more").index(b"}")] == tag


def test_a_name_is_readable() -> None:
    encoder = entity_key_encoder("flights", [Column("origin", "STRING"), Column("dest", "STRING")])
    assert encoder.names == ("dest", "origin")
    assert encoder.encode(["BOS", "JFK"]) == b"7:flights:{4:dests3:BOS6:origins3:JFK}"
    assert entity_key_encoder("flights", []).encode([]) == b"7:flights:{0:}"
    assert row_field("plane_facts", 12) == b"\x0cplane_facts"


def test_int32_and_int64_are_one_key() -> None:
    narrow, wide = (entity_key_encoder("p", [Column("k", t)]).encode([5]) for t in ("INT32", "INT64"))
    assert narrow == wide


def test_a_float_key_is_the_one_that_feast_rounds_to_32_bits() -> None:
    encoder = entity_key_encoder("p", [Column("k", "FLOAT")])
    rounded = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert encoder.encode([0.1]) == encoder.encode([rounded]) != encoder.encode([0.2])
    assert encoder.encode([1e300]) != encoder.encode([0.1])


def test_a_null_part_makes_no_key() -> None:
    encoder = entity_key_encoder("p", [Column("a", "INT64"), Column("b", "STRING")])
    assert encoder.encode([None, "x"]) is None


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("INT64", "5"),
        ("INT64", True),
        ("INT64", 5.0),
        ("INT64", 2**63),
        ("INT32", 2**31),
        ("STRING", 5),
        ("STRING", "\ud800"),
        ("BOOL", 1),
        ("BYTES", "x"),
        ("DOUBLE", "1"),
        ("MAP", {}),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(type_name: str, value: object) -> None:
    with pytest.raises(WrongType, match="'k'"):
        entity_key_encoder("p", [Column("k", type_name)]).encode([value])  # type: ignore[list-item]


def test_a_key_is_bounded() -> None:
    encoder = entity_key_encoder("p", [Column("k", "BYTES")])
    overhead = len(encoder.encode([b"x" * 60_000]) or b"") - 60_000
    assert encoder.encode([b"x" * (REDIS_KEY_BYTES_MAX - overhead)])
    with pytest.raises(TooLarge):
        encoder.encode([b"x" * (REDIS_KEY_BYTES_MAX - overhead + 1)])


def test_a_project_that_would_break_the_hash_tag_is_refused() -> None:
    with pytest.raises(InputError):
        project_prefix("a{b")


def test_patterns_take_special_characters_literally() -> None:
    assert entity_keys_pattern("a*b?[c]") == b"7:a\\*b\\?\\[c\\]:{*"
    assert fnmatch.fnmatchcase("4:shop:views:2", project_pattern("shop").decode())
    assert not fnmatch.fnmatchcase("7:webshop:views:2", project_pattern("shop").decode())
