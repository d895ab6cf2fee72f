"""Rows come back from their bytes as they were, under the layout of the writer and under later ones."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import StoredRowError, WrongType
from store.kernel.codec import SCHEMA_TAGS, Body, Header, RowLayout, RowTimes, decode_header, encode_row
from store.kernel.decoding import Decoder
from store.kernel.definitions import Column
from store.kernel.values import ABSENT
from tests.kernel.strategies import columns, rows

instants_us = st.integers(-(2**62), 2**62)
nanoseconds = st.integers(0, 999)


def header_of(body: Body, body_start: int = 0) -> Header:
    """Returns the header of a row with a body."""
    return Header(RowTimes(0), is_pushed=False, has_nulls=body.has_nulls, schema_tag=0, body_start=body_start)


def same(left: object, right: object) -> bool:
    """Whether two plain values are the same bit for bit as far as Python shows it: NaN is NaN, -0.0 is not 0.0."""
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@given(st.data(), columns)
def test_every_value_round_trips(data: st.DataObject, declared: list[Column]) -> None:
    row = data.draw(rows(declared))
    layout = RowLayout.of(declared)
    body = layout.encoder()([row[column.name] for column in layout.columns])
    wanted = data.draw(st.permutations(declared))
    values = Decoder(layout, wanted).decode(b"head" + body.content, header_of(body, 4))
    assert all(same(value, row[column.name]) for value, column in zip(values, wanted, strict=True))


@given(st.data(), columns, columns)
def test_a_row_read_under_another_definition_keeps_what_both_have(
    data: st.DataObject, written: list[Column], wanted: list[Column]
) -> None:
    row = data.draw(rows(written))
    layout = RowLayout.of(written)
    body = layout.encoder()([row[column.name] for column in layout.columns])
    values = Decoder(layout, wanted).decode(body.content, header_of(body))
    types = {column.name: column.type_name for column in written}
    for column, value in zip(wanted, values, strict=True):
        if column.name not in types:
            assert value is ABSENT
        elif types[column.name] == column.type_name:
            assert same(value, row[column.name])


@pytest.mark.parametrize(
    ("stored", "wanted", "value", "expected"),
    [
        ("INT32", "INT64", -5, -5),
        ("INT64", "INT32", 2**31 - 1, 2**31 - 1),
        ("INT64", "INT32", 2**31, ABSENT),
        ("INT64", "DOUBLE", 2**53, float(2**53)),
        ("INT64", "DOUBLE", 2**53 + 1, ABSENT),
        ("DOUBLE", "FLOAT", 0.5, 0.5),
        ("DOUBLE", "FLOAT", 0.1, ABSENT),
        ("DOUBLE", "FLOAT", 1e300, ABSENT),
        ("DOUBLE", "INT64", 1.0, ABSENT),
        ("UUID", "STRING", "a", "a"),
        ("STRING", "UUID", "a", ABSENT),
        ("STRING", "INT64", "1", ABSENT),
        ("BOOL", "INT64", True, ABSENT),
        ("UNIX_TIMESTAMP", "INT64", 1, ABSENT),
        ("INT32_LIST", "DOUBLE_LIST", [1, 2], [1.0, 2.0]),
        ("DOUBLE_LIST", "FLOAT_LIST", [0.5, 0.1], ABSENT),
        ("INT64_LIST", "INT64_SET", [1], ABSENT),
        ("INT64", "INT64_LIST", 1, ABSENT),
        ("MAP", "STRUCT", b"x", ABSENT),
    ],
)
def test_a_retyped_feature_is_kept_only_where_nothing_is_lost(
    stored: str, wanted: str, value: object, expected: object
) -> None:
    layout = RowLayout.of([Column("f", stored)])
    body = layout.encoder()([value])
    assert Decoder(layout, [Column("f", wanted)]).decode(body.content, header_of(body)) == [expected]


@given(
    st.integers(0, SCHEMA_TAGS - 1),
    st.tuples(instants_us, nanoseconds),
    st.tuples(st.none() | instants_us, nanoseconds),
    st.booleans(),
    st.booleans(),
)
def test_a_header_round_trips(
    tag: int, at: tuple[int, int], made: tuple[int | None, int], pushed: bool, has_nulls: bool
) -> None:
    (event, event_ns), (created, ns) = at, made
    times = RowTimes(event, event_ns, created, ns if created is not None else 0)
    header = decode_header(encode_row(tag, times, Body(b"body", has_nulls), is_pushed=pushed))
    assert header[:4] == (times, pushed, has_nulls, tag)


def test_the_byte_format_stays_as_it_is() -> None:
    layout = RowLayout.of(
        [Column("b", "STRING"), Column("a", "INT64"), Column("c", "DOUBLE_LIST"), Column("d", "BOOL")]
    )
    row = encode_row(layout.tag, RowTimes(1, 2, 3, 4), layout.encoder()([7, None, "é", [1.5]]), is_pushed=True)
    assert row.hex() == (
        "2f" + f"{layout.tag:04x}" + "8000000000000001" + "8000000000000003" + "00020004"
        "02" + "0700000000000000" + "00" + "02c3a9" + "08000000000000f83f"
    )
    whole = encode_row(layout.tag, RowTimes(1), layout.encoder()([7, True, "é", [1.5]]), is_pushed=False)
    assert whole.hex() == (
        "20" + f"{layout.tag:04x}" + "80000000000000010700000000000000" + "01" + "02c3a9" + "08000000000000f83f"
    )
    assert layout.text == '[["a", "INT64"], ["d", "BOOL"], ["b", "STRING"], ["c", "DOUBLE_LIST"]]'
    assert RowLayout.parse(layout.text) == layout


@pytest.mark.parametrize("size", [0, 254, 255, 256, 70_000])
def test_long_values_round_trip_around_the_length_byte(size: int) -> None:
    layout = RowLayout.of([Column("f", "BYTES"), Column("g", "STRING")])
    body = layout.encoder()([b"x" * size, "end"])
    assert list(Decoder(layout, layout.columns).decode(body.content, header_of(body))) == [b"x" * size, "end"]


def test_a_cut_row_is_refused_at_every_length() -> None:
    layout = RowLayout.of([Column("f", "STRING"), Column("g", "INT64")])
    row = encode_row(layout.tag, RowTimes(1), layout.encoder()([5, "text"]), is_pushed=False)
    for length in range(len(row)):
        with pytest.raises(StoredRowError, match="cut short"):
            Decoder(layout, layout.columns).decode(row[:length], decode_header(row[:length]))


def test_a_newer_format_is_refused() -> None:
    row = bytearray(encode_row(1, RowTimes(1), Body(b"", has_nulls=False), is_pushed=False))
    row[0] = 0x30
    with pytest.raises(StoredRowError, match="format version 3"):
        decode_header(bytes(row))


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("INT32", 2**31),
        ("INT64", "5"),
        ("DOUBLE", "x"),
        ("STRING", 5),
        ("BYTES", "x"),
        ("INT64_LIST", ["x"]),
        ("FLOAT", 1e300),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(type_name: str, value: object) -> None:
    layout = RowLayout.of([Column("fine", "INT64"), Column("wrong", type_name)])
    values = [{"fine": 1, "wrong": value}[column.name] for column in layout.columns]
    with pytest.raises(WrongType, match="'wrong'"):
        layout.encoder()(values)
