"""Columns of every type come as they are, and columns whose type differs by file in the one that holds them all."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from feast.types import Array, Int64, Map, String, UnixTimestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import PushedRowsError, SourceUnreadable
from store.offline.common_types import common_type, read_type, sql_type
from store.offline.landing import land_rows
from tests.offline.feature_stores import DRIVER, driver_view, instants, store_with, write
from tests.offline.reading import needed, opened, rows_of

HOUR = 3_600_000_000
MOMENT = datetime(2024, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


def decimals(precision: int, scale: int, *values: str | None) -> pa.Array:
    return pa.array([None if v is None else Decimal(v) for v in values], pa.decimal128(precision, scale))


@pytest.mark.parametrize(
    ("column", "declared"),
    [
        (pa.array([{"a": 1, "b": ["x", None]}]), Map),
        (pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int64())), Map),
        (pa.array([[[1, None], [], None]]), Array(Array(Int64))),
        (pa.array([[{"a": {"b": [1.5]}}]]), Map),
        (decimals(38, 10, "12345678901234567890.0123456789"), String),
        (pa.array(["x"]).dictionary_encode(), String),
        (pa.array([b"\x00\xff"]), String),
        (pa.array([MOMENT], pa.timestamp("us", "UTC")), UnixTimestamp),
        (pa.array([MOMENT.replace(microsecond=0)], pa.timestamp("s", "UTC")), UnixTimestamp),
        (pa.array([MOMENT.replace(microsecond=123000)], pa.timestamp("ms", "Asia/Kolkata")), UnixTimestamp),
        (pa.array([1_704_112_215_123_456_789], pa.timestamp("ns", "UTC")), UnixTimestamp),
        (pa.array([True]), String),
    ],
)
def test_a_feature_of_any_type_comes_with_its_value(repo: Path, column: pa.Array, declared: Any) -> None:
    nulls = pa.nulls(1, column.type)
    columns = {"driver_id": pa.array([1, 2]), "event_timestamp": instants(HOUR, HOUR)}
    write(repo, columns | {"trips": pa.concat_arrays([column, nulls])})
    store = store_with(repo, [DRIVER, driver_view(features={"trips": declared})])
    given = pa.table({"driver_id": [2, 1, 3], "event_timestamp": instants(HOUR, HOUR, HOUR)})
    found = store.get_historical_features(given, ["driver_stats:trips"]).to_arrow().column("trips")
    assert found.to_pylist() == [None, *column.to_pylist(), None]


@pytest.mark.parametrize(
    ("columns", "kind", "values"),
    [
        ((pa.array([1], pa.int8()), pa.array([2**40])), pa.int64(), [1, 2**40]),
        ((pa.array([1], pa.uint8()), pa.array([-2], pa.int8())), pa.int16(), [1, -2]),
        ((pa.array([1], pa.uint32()), pa.array([-2], pa.int16())), pa.int64(), [1, -2]),
        ((pa.array([1]), pa.array([None, 1.5])), pa.float64(), [1.0, None, 1.5]),
        ((pa.array([1.5], pa.float32()), pa.array([2.5])), pa.float64(), [1.5, 2.5]),
        ((pa.nulls(1), pa.array(["x"])), pa.string(), [None, "x"]),
        (
            (pa.array(["x"]), pa.array(["y"]).dictionary_encode(), pa.array(["z"], pa.large_string())),
            pa.string(), ["x", "y", "z"],
        ),
        (
            (decimals(5, 2, "1.25"), decimals(10, 4, "2.0625")),
            pa.decimal128(10, 4), [Decimal("1.25"), Decimal("2.0625")],
        ),
        ((decimals(5, 2, "1.25"), pa.array([7], pa.int16())), pa.decimal128(7, 2), [Decimal("1.25"), Decimal(7)]),
        (
            (pa.array([date(2024, 1, 1)]), pa.array([MOMENT], pa.timestamp("us", "UTC"))),
            pa.timestamp("us", "UTC"), [datetime(2024, 1, 1, tzinfo=UTC), MOMENT],
        ),
        (
            (pa.array([MOMENT], pa.timestamp("us")), pa.array([MOMENT], pa.timestamp("ns", "Asia/Kolkata"))),
            pa.timestamp("ns", "UTC"), [MOMENT, MOMENT],
        ),
        ((pa.array([[1]], pa.list_(pa.int8())), pa.array([[2**40, None]])), pa.list_(pa.int64()), [[1], [2**40, None]]),
        (
            (pa.array([{"a": 1}]), pa.array([{"b": "x", "a": 1.5}])),
            pa.struct([("a", pa.float64()), ("b", pa.string())]), [{"a": 1.0, "b": None}, {"a": 1.5, "b": "x"}],
        ),
        (
            (
                pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
                pa.array([[("b", 1)]], pa.map_(pa.string(), pa.int64())),
            ),
            pa.map_(pa.string(), pa.int64()), [[("a", 1)], [("b", 1)]],
        ),
    ],
)  # fmt: skip
def test_a_column_whose_type_differs_by_file_comes_in_the_type_that_holds_all(
    repo: Path, columns: tuple[pa.Array, ...], kind: pa.DataType, values: list[Any]
) -> None:
    for number, column in enumerate(columns):
        times = instants(*range(len(column)))
        write(repo, {"event_timestamp": times, "n": column}, f"data/stats/{number}.parquet")
    source = opened(repo)
    found = rows_of(source, needed("n")).column("n")
    assert read_type(found.type).equals(read_type(kind))
    assert found.to_pylist() == values
    assert read_type(source.schema.field("n").type).equals(read_type(kind))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.array([1]), pa.array(["x"])),
        (pa.array([True]), pa.array([1])),
        (pa.array([1], pa.uint64()), pa.array([1])),
        (decimals(38, 0, "1"), decimals(38, 10, "1")),
        (decimals(5, 2, "1"), pa.array([1.5])),
        (pa.array([[1]]), pa.array([1])),
        (pa.array([{"a": 1}]), pa.array([{"a": "x"}])),
        (pa.array([date(2024, 1, 1)]), pa.array(["2024-01-01"])),
    ],
)
def test_types_without_one_that_holds_both_are_refused_with_column_and_files(
    repo: Path, left: pa.Array, right: pa.Array
) -> None:
    for name, column in (("a", left), ("b", right)):
        write(repo, {"event_timestamp": instants(1), "n": column, "m": pa.array([1])}, f"data/stats/{name}.parquet")
    with pytest.raises(SourceUnreadable) as caught:
        rows_of(opened(repo), needed("n"))
    stored = [str(pq.read_schema(repo / f"data/stats/{name}.parquet").field("n").type) for name in ("a", "b")]
    for word in ("'n'", "a.parquet", "b.parquet", *stored):
        assert word in str(caught.value)
    # A query that does not need the column has no business with it.
    assert rows_of(opened(repo), needed("m")).column("m").to_pylist() == [1, 1]


@pytest.mark.parametrize("column", [pa.array([1], pa.duration("us")), pa.array([1]).cast(pa.decimal256(60, 2))])
def test_a_type_that_duckdb_takes_for_another_is_refused(repo: Path, column: pa.Array) -> None:
    write(repo, {"event_timestamp": instants(1), "n": column}, "data/stats/a.parquet")
    with pytest.raises(SourceUnreadable, match=r"'n' of source file '.*a\.parquet' has type"):
        rows_of(opened(repo), needed("n"))


def test_keys_that_pandas_made_floats_in_one_file_are_the_integers_of_the_others(repo: Path) -> None:
    big = 2**53 + 1
    write(repo, {"event_timestamp": instants(1), "k": pa.array([big]), "n": pa.array([1])}, "data/stats/a.parquet")
    floats = pa.array([7.0, None, 1.5, float("nan"), float("inf"), 1e30])
    columns = {"event_timestamp": instants(*range(6)), "k": floats, "n": pa.array(range(6))}
    write(repo, columns, "data/stats/b.parquet")
    found = rows_of(opened(repo), needed("n", keys=("k",))).column("k")
    assert found.type == pa.int64()
    assert found.to_pylist() == [big, 7, None, None, None, None, None]


def test_pushed_rows_fit_the_type_that_holds_all_files(repo: Path) -> None:
    for number, kind in enumerate((pa.int32(), pa.int64())):
        columns = {"driver_id": pa.array([1]), "event_timestamp": instants(number), "trips": pa.array([1], kind)}
        write(repo, columns, f"data/stats/{number}.parquet")
    store = store_with(repo, [DRIVER, driver_view("data/stats")])
    source = store.get_feature_view("driver_stats").batch_source
    rows = {"driver_id": [1], "event_timestamp": instants(5), "trips": [2**40]}
    land_rows(store.config, source, pa.table(rows))
    assert trips(store) == [2**40]
    with pytest.raises(PushedRowsError, match="'trips'"):
        land_rows(store.config, source, pa.table(rows | {"trips": ["x"]}))


def trips(store: FeatureStore) -> list[Any]:
    given = pa.table({"driver_id": [1], "event_timestamp": instants(HOUR)})
    found: list[Any] = (
        store.get_historical_features(given, ["driver_stats:trips"]).to_arrow().column("trips").to_pylist()
    )
    return found


@pytest.mark.parametrize("kind", ["s", "ms", "us", "ns", "date", "int96"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_event_times_of_every_unit_and_zone_mean_the_same_instant(repo: Path, kind: str, zone: str | None) -> None:
    midnight = datetime(2024, 1, 1, tzinfo=UTC)
    if kind == "date":
        column = pa.array([midnight.date()])
    else:
        column = pa.array([midnight], pa.timestamp("us", "UTC")).cast(
            pa.timestamp("us" if kind == "int96" else kind, "UTC")
        )
        column = column.cast(pa.timestamp(column.type.unit, zone))
    path = repo / "data/stats/a.parquet"
    path.parent.mkdir()
    table = pa.table({"event_timestamp": column, "n": [1]})
    pq.write_table(table, path, use_deprecated_int96_timestamps=kind == "int96")
    assert rows_of(opened(repo), needed("n")).column("e").to_pylist() == [int(midnight.timestamp()) * 10**9]


SIMPLE = st.sampled_from([
    pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
    pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.binary(), pa.date32(),
    pa.timestamp("ms"), pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.decimal128(5, 2), pa.decimal128(38, 10),
    pa.dictionary(pa.int8(), pa.string()),
])  # fmt: skip
KINDS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.tuples(inner, inner).map(lambda pair: pa.struct([("a", pair[0]), ("b", pair[1])])),
        inner.filter(lambda kind: not pa.types.is_null(kind)).map(lambda kind: pa.map_(pa.string(), kind)),
    ),
    max_leaves=3,
).map(read_type)


@settings(max_examples=150, deadline=None)
@given(kinds=st.lists(KINDS, min_size=1, max_size=3))
def test_the_common_type_holds_each_of_its_types_and_can_be_told_duckdb(kinds: list[pa.DataType]) -> None:
    common = common_type(kinds)
    if common is None:
        return
    assert common_type([common, *kinds]).equals(common)
    assert common_type([kinds[0]] * 2).equals(kinds[0])
    name = sql_type(common)
    if name is not None:
        found = duckdb.sql(f"SELECT CAST(NULL AS {name}) AS x").to_arrow_table().schema.field("x").type
        assert read_type(found).equals(common)
