"""Whole columns become the very bytes that rows become one by one."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.arrow_rows import TIME_COLUMNS, encode_batch
from store.errors import TooLarge, WrongType
from store.kernel.codec import RowLayout, encode_row
from store.kernel.definitions import Column, ViewDefinition
from store.limits import REDIS_KEY_BYTES_MAX
from store.packed_columns import packed_rows

TAG = 0xFEDC
INT64 = st.integers(-(2**63), 2**63 - 1)
SECONDS = st.integers(-(2**31), 2**33)
# Texts around the length at which one byte no longer tells it.
TEXT = st.text(max_size=8) | st.integers(253, 257).map("x".__mul__)

TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "INT32": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "INT64": (pa.int64(), INT64),
    "DOUBLE": (pa.float64(), st.floats()),
    "FLOAT": (pa.float32(), st.floats(width=32)),
    "BOOL": (pa.bool_(), st.booleans()),
    "UNIX_TIMESTAMP": (pa.timestamp("us", "UTC"), SECONDS.map(lambda s: s * 1_000_000 + 7)),
    "STRING": (pa.string(), TEXT),
    "UUID": (pa.string(), TEXT),
    "BYTES": (pa.binary(), TEXT.map(str.encode)),
    "INT64_LIST": (pa.list_(pa.int64()), st.lists(INT64, max_size=40)),
    "INT32_SET": (pa.list_(pa.int32()), st.lists(st.integers(-5, 5), max_size=3)),
    "DOUBLE_LIST": (pa.list_(pa.float64()), st.lists(st.floats() | st.none(), max_size=3)),
    "FLOAT_LIST": (pa.large_list(pa.float32()), st.lists(st.floats(width=32), max_size=70)),
    "BOOL_LIST": (pa.list_(pa.bool_()), st.lists(st.booleans(), max_size=3)),
    "STRING_LIST": (pa.list_(pa.string()), st.lists(TEXT, max_size=3)),
    "UNIX_TIMESTAMP_LIST": (pa.list_(pa.timestamp("s")), st.lists(SECONDS, max_size=3)),
    "MAP": (pa.map_(pa.string(), pa.int64()), st.dictionaries(TEXT, INT64, max_size=2)),
}
KEY_TYPES = ("INT32", "INT64", "STRING", "UUID", "BYTES", "BOOL", "DOUBLE", "FLOAT", "UNIX_TIMESTAMP")


def arrow(type_name: str, values: list[Any]) -> pa.Array:
    arrow_type, _ = TYPES[type_name]
    if type_name == "UNIX_TIMESTAMP":
        return pa.array(values, pa.int64()).cast(arrow_type)
    if type_name == "UNIX_TIMESTAMP_LIST":
        return pa.array(values, pa.list_(pa.int64())).cast(arrow_type)
    return pa.array(values, arrow_type)


@st.composite
def batches(draw: st.DrawFn) -> tuple[ViewDefinition, pa.RecordBatch]:
    keys = [Column(f"k{i}", t) for i, t in enumerate(draw(st.lists(st.sampled_from(KEY_TYPES), max_size=2)))]
    features = [Column(f"f{i}", t) for i, t in enumerate(draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=12)))]
    count = draw(st.integers(0, 6))

    def of(strategy: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    has_created, has_ns = draw(st.sampled_from([st.none(), INT64, INT64 | st.none()])), draw(st.booleans())
    left = st.integers(0, 999) if has_ns else st.just(0)
    event, created = of(INT64), of(has_created)
    times = [event, of(left), created, [draw(left | st.none()) if c is None else draw(left) for c in created]]
    columns = {column.name: arrow(column.type_name, of(TYPES[column.type_name][1] | st.none())) for column in features}
    columns |= {column.name: arrow(column.type_name, of(TYPES[column.type_name][1] | st.none())) for column in keys}
    columns |= {name: pa.array(values, pa.int64()) for name, values in zip(TIME_COLUMNS, times, strict=True)}
    batch = pa.RecordBatch.from_pydict(columns)
    start = draw(st.integers(0, count))
    return ViewDefinition("shop", "view", tuple(keys), tuple(features), 0, None), batch.slice(start)


@settings(max_examples=400, deadline=None)
@given(given_batch=batches())
def test_columns_become_the_bytes_that_rows_become(given_batch: tuple[ViewDefinition, pa.RecordBatch]) -> None:
    definition, batch = given_batch
    layout = RowLayout.of(definition.features)
    expected = [
        (row.key, encode_row(TAG, row.times, row.body, is_pushed=False))
        for row in encode_batch(definition, layout, batch)
    ]
    packed = packed_rows(definition, layout, TAG, batch)
    assert list(zip(packed.keys.to_pylist(), packed.rows.to_pylist(), strict=True)) == expected


def batch_of(key: Any, feature: Any) -> pa.RecordBatch:
    times = dict(zip(TIME_COLUMNS, ([1], [0], [None], [0]), strict=True))
    return pa.RecordBatch.from_pydict(
        {"k": key, "f": feature} | {name: pa.array(values, pa.int64()) for name, values in times.items()}
    )


def packed(type_name: str, key: Any, feature: Any) -> None:
    features = (Column("f", type_name),)
    definition = ViewDefinition("shop", "view", (Column("k", "STRING"),), features, 0, None)
    packed_rows(definition, RowLayout.of(features), TAG, batch_of(key, feature))


@pytest.mark.parametrize(
    ("type_name", "feature"),
    [
        ("INT32", pa.array([2**31])),
        ("INT64", pa.array(["a"])),
        ("INT64_LIST", pa.array([[1, None]])),
        ("STRING_LIST", pa.array([["a", None]])),
    ],
)
def test_what_does_not_fit_is_refused_by_column(type_name: str, feature: pa.Array) -> None:
    with pytest.raises(WrongType, match=f"'f' .*{type_name}"):
        packed(type_name, pa.array(["a"]), feature)


def test_a_key_beyond_the_bound_is_refused() -> None:
    overhead = len(b"4:shop:{1:ks65500:}")
    packed("INT64", pa.array(["x" * (REDIS_KEY_BYTES_MAX - overhead)]), pa.array([1]))
    with pytest.raises(TooLarge, match=rf"\('k',\) takes {REDIS_KEY_BYTES_MAX + 1} bytes"):
        packed("INT64", pa.array(["x" * (REDIS_KEY_BYTES_MAX - overhead + 1)]), pa.array([1]))
