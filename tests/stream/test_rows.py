"""Rows in the log: whatever Arrow types a source has, they come back as they were."""

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.kernel.log_entries import Events, decode_entry, encode_events
from store.stream.rows import logged_columns, logged_schema, parsed_schema, rows_as_json, table_of

INSTANTS = st.datetimes()
NANOSECONDS = st.integers(-(2**62), 2**62)
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float32": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "float64": (pa.float64(), st.floats(allow_nan=False)),
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text()),
    "large text": (pa.large_string(), st.text()),
    "bytes": (pa.binary(), st.binary()),
    "fixed bytes": (pa.binary(3), st.binary(min_size=3, max_size=3)),
    "nanoseconds": (pa.timestamp("ns"), NANOSECONDS),
    "microseconds": (pa.timestamp("us", "UTC"), st.integers(-(2**60), 2**60)),
    "seconds": (pa.timestamp("s", "Europe/Berlin"), st.integers(0, 2**31)),
    "date": (pa.date32(), st.dates(date(1, 1, 1))),
    "time": (pa.time64("us"), st.integers(0, 86_399_999_999)),
    "numbers": (pa.list_(pa.float64()), st.lists(st.floats(allow_nan=False))),
    "texts": (pa.list_(pa.string()), st.lists(st.none() | st.text())),
    "decimal": (pa.decimal128(10, 2), st.decimals(-1000, 1000, places=2)),
    "times": (pa.list_(pa.timestamp("us")), st.lists(INSTANTS)),
    "struct": (pa.struct([("a", pa.int32())]), st.fixed_dictionaries({"a": st.integers(0, 9)})),
    "map": (pa.map_(pa.string(), pa.int64()), st.lists(st.tuples(st.text(), st.integers(0, 9)), max_size=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
@settings(max_examples=25)
@given(data=st.data())
def test_a_column_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    kind, values = COLUMNS[name]
    listed = data.draw(st.lists(st.none() | values, min_size=1, max_size=4))
    table = pa.table({"x": pa.array(listed, kind), "n": pa.array(range(len(listed)))})
    tag, schema = logged_schema(table)
    events = Events("clicks", (), True, True, tag, logged_columns(table))
    said = decode_entry(encode_events(events))
    assert isinstance(said, Events)
    assert table_of(parsed_schema(schema), said.columns).equals(table)


def test_a_nan_is_no_null_and_a_dictionary_is_what_it_stands_for() -> None:
    table = pa.table({"x": [float("nan"), None], "d": pa.array(["a", None]).dictionary_encode()})
    back = table_of(parsed_schema(logged_schema(table)[1]), logged_columns(table))
    assert back.column("x").null_count == 1
    assert back.column("d").to_pylist() == ["a", None]
    assert back.schema.field("d").type == pa.string()


def test_a_row_as_json_is_one_that_a_push_takes() -> None:
    table = pa.table(
        {
            "at": pa.array(["2026-01-01T00:00:00Z"]).cast(pa.timestamp("us", "UTC")),
            "x": [float("inf")],
            "b": [b"\xff"],
            "d": pa.array([Decimal("1.50")]),
            "s": pa.array([{"a": [1]}]),
        }
    )
    (row,) = rows_as_json(table)
    assert row == '{"at":"2026-01-01T00:00:00+00:00","x":"Infinity","b":"/w==","d":"1.50","s":{"a":[1]}}'
