"""Windowed views beside plain ones in one request, under other names, and below on-demand views; what is refused."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import BatchFeatureView, Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.aggregation import Aggregation
from feast.data_format import DeltaFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from store.errors import DefinitionError, InputError, LarderError, SourceColumnMissing, UnknownObject
from store.offline.trained_row import trained_row
from store.offline.window_columns import check_declared_windows
from tests.offline.feature_stores import DRIVER, driver_view, instants, store_with, write

HOUR = 3_600_000_000
EVENTS = "data/trips.parquet"
SUM, COUNT, LAST = "fares:sum_fare", "fares:count_fare", "fares:last_fare"


def aggregation(column: str, function: str, name: str, hours: float = 2, hop_hours: float = 1) -> Aggregation:
    return Aggregation(
        column=column,
        function=function,
        time_window=timedelta(hours=hours),
        slide_interval=timedelta(hours=hop_hours),
        name=name,
    )


def windowed_view(features: dict[str, tuple[str, str, Any]], **changes: Any) -> BatchFeatureView:
    """A view of drivers: column, function and type by feature."""
    arguments: dict[str, Any] = {
        "name": "fares",
        "entities": [DRIVER],
        "online": True,
        "schema": [Field(name="driver_id", dtype=Int64)]
        + [Field(name=name, dtype=dtype) for name, (_, _, dtype) in features.items()],
        "source": FileSource(name="trips", path=EVENTS, timestamp_field="event_timestamp"),
        "aggregations": [aggregation(column, function, name) for name, (column, function, _) in features.items()],
    }
    return BatchFeatureView(**(arguments | changes))


def fares(**changes: Any) -> BatchFeatureView:
    features = {
        "sum_fare": ("fare", "sum", Float64),
        "count_fare": ("fare", "count", Int64),
        "last_fare": ("fare", "last", Float64),
    }
    return windowed_view(features, **changes)


def write_trips(repo: Path, path: str = EVENTS, **changes: Any) -> None:
    columns = {
        "driver_id": pa.array([1, 1, 1, 2]),
        "event_timestamp": instants(HOUR, 2 * HOUR, 3 * HOUR, 3 * HOUR),
        "fare": pa.array([1.5, 2.0, 4.0, 8.0]),
    }
    write(repo, columns | changes, path)


def rows(*given: tuple[int | None, float | None], **more: Any) -> pa.Table:
    times = [None if hours is None else int(hours * HOUR) for _, hours in given]
    keys = pa.array([key for key, _ in given], pa.int64())
    return pa.table({"driver_id": keys, "event_timestamp": instants(*times), **more})


def answers(store: FeatureStore, given: Any, features: Any, **options: Any) -> dict[str, list[Any]]:
    found = store.get_historical_features(entity_df=given, features=features, **options).to_arrow()
    return {name: found.column(name).to_pylist() for name in found.column_names}


# --- one request ---------------------------------------------------------------------------------


def test_a_key_without_events_counts_none_and_a_row_without_key_or_time_has_nothing(repo: Path) -> None:
    write_trips(repo)
    store = store_with(repo, [DRIVER, fares()])
    found = answers(store, rows((1, 3), (9, 3), (None, 3), (1, None), (1, 0.5)), [SUM, COUNT, LAST])
    assert found["count_fare"] == [3, 0, None, None, 0]
    assert found["sum_fare"] == [7.5, None, None, None, None]
    assert found["last_fare"] == [4.0, None, None, None, None]


def test_a_key_that_the_source_cannot_hold_counts_none(repo: Path) -> None:
    write_trips(repo, driver_id=pa.array([1, 1, 1, 2], pa.int32()))
    store = store_with(repo, [DRIVER, fares()])
    given = pa.table({"driver_id": pa.array([1.0, 2.0**40, None]), "event_timestamp": instants(*[3 * HOUR] * 3)})
    assert answers(store, given, [COUNT])["count_fare"] == [3, 0, None]


def test_plain_and_windowed_views_of_one_source_stand_side_by_side(repo: Path) -> None:
    write_trips(repo)
    plain = FeatureView(
        name="newest",
        entities=[DRIVER],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="fare", dtype=Float64)],
        source=FileSource(name="trips", path=EVENTS, timestamp_field="event_timestamp"),
    )
    daily = fares(name="daily", aggregations=[aggregation("fare", "max", "top", 24)], schema=[
        Field(name="driver_id", dtype=Int64), Field(name="top", dtype=Float64)
    ])  # fmt: skip
    store = store_with(repo, [DRIVER, fares(), plain, daily])
    found = answers(store, rows((1, 2), (2, 3)), [SUM, "newest:fare", "daily:top"])
    assert list(found)[2:] == ["sum_fare", "fare", "top"]
    assert (found["sum_fare"], found["fare"], found["top"]) == ([3.5, 8.0], [2.0, 8.0], [2.0, 8.0])


def test_on_demand_views_services_and_long_names_work_on_top(repo: Path) -> None:
    write_trips(repo)
    view = fares()

    @on_demand_feature_view(sources=[view], schema=[Field(name="mean_fare", dtype=Float64)], mode="python")
    def averaged(inputs: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(inputs["sum_fare"], inputs["count_fare"], strict=True)
        return {"mean_fare": [total / count if count else None for total, count in pairs]}

    service = FeatureService(name="drivers", features=[view[["count_fare"]], averaged])
    store = store_with(repo, [DRIVER, view, averaged, service])
    found = answers(store, rows((1, 3), (9, 3)), store.get_feature_service("drivers"), full_feature_names=True)
    assert found["fares__count_fare"] == [3, 0]
    assert found["averaged__mean_fare"] == [2.5, None]
    assert answers(store, rows((1, 3)), ["averaged:mean_fare", COUNT])["mean_fare"] == [2.5]


def test_one_view_is_asked_for_under_several_names_and_keys(repo: Path) -> None:
    write_trips(repo)
    view = fares()
    origin = view.with_name("origin").with_join_key_map({"driver_id": "from_driver"})
    other = view.with_name("other").with_join_key_map({"driver_id": "to_driver"})
    service = FeatureService(name="both", features=[origin[["sum_fare"]], other[["sum_fare", "count_fare"]]])
    store = store_with(repo, [DRIVER, view, service])
    given = pa.table(
        {"from_driver": pa.array([1, 2]), "to_driver": pa.array([2, 9]), "event_timestamp": instants(*[3 * HOUR] * 2)}
    )
    found = answers(store, given, store.get_feature_service("both"), full_feature_names=True)
    assert found["origin__sum_fare"] == [7.5, 8.0]
    assert found["other__sum_fare"] == [8.0, None]
    assert found["other__count_fare"] == [1, 0]


def test_columns_are_those_of_the_field_mapping(repo: Path) -> None:
    write_trips(repo, price=pa.array([100.0] * 4))
    source = FileSource(
        name="trips",
        path=EVENTS,
        timestamp_field="event_timestamp",
        # What the view calls `fare` is called `price` in the file, whose own `fare` is called something else.
        field_mapping={"price": "fare", "fare": "price"},
    )
    store = store_with(repo, [DRIVER, fares(source=source), fares(name="own")])
    found = answers(store, rows((1, 3)), [SUM, "own:sum_fare"], full_feature_names=True)
    assert (found["fares__sum_fare"], found["own__sum_fare"]) == ([300.0], [7.5])


def test_events_of_a_delta_table_count(repo: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    columns = {
        "driver_id": pa.array([1, 1]),
        "event_timestamp": instants(2 * HOUR, 3 * HOUR),
        "fare": pa.array([1.0, 2.0]),
    }
    deltalake.write_deltalake(str(repo / "data" / "trips"), pa.table(columns))
    deltalake.write_deltalake(str(repo / "data" / "trips"), pa.table(columns), mode="append")
    source = FileSource(name="trips", path="data/trips", timestamp_field="event_timestamp", file_format=DeltaFormat())
    store = store_with(repo, [DRIVER, fares(source=source)])
    assert answers(store, rows((1, 3)), [SUM, COUNT])["sum_fare"] == [6.0]


@pytest.mark.parametrize(
    ("keys", "value_type", "dtype"),
    [
        (pa.array(["ä", "b", "ä"]), ValueType.STRING, String),
        (pa.array([b"\x00", b"b", b"\x00"]), ValueType.BYTES, Bytes),
        (pa.array([True, False, True]), ValueType.BOOL, Bool),
        (pa.array([2**31 - 1, 0, 2**31 - 1], pa.int32()), ValueType.INT32, Int32),
        (instants(1_000_000, 0, 1_000_000), ValueType.UNIX_TIMESTAMP, UnixTimestamp),
    ],
)
def test_keys_are_of_any_type(repo: Path, keys: pa.Array, value_type: ValueType, dtype: Any) -> None:
    entity = Entity(name="thing", join_keys=["thing"], value_type=value_type)
    write(repo, {"thing": keys, "event_timestamp": instants(*[HOUR] * 3), "fare": pa.array([1.0, 2.0, 4.0])}, EVENTS)
    schema = [Field(name="thing", dtype=dtype), Field(name="sum_fare", dtype=Float64)]
    view = fares(entities=[entity], schema=schema, aggregations=[aggregation("fare", "sum", "sum_fare")])
    store = store_with(repo, [entity, view])
    given = pa.table({"thing": keys.slice(0, 2), "event_timestamp": instants(2 * HOUR, 2 * HOUR)})
    assert answers(store, given, [SUM])["sum_fare"] == [5.0, 2.0]


def test_values_keep_the_declared_type_which_may_be_wider(repo: Path) -> None:
    day = pa.array([10, 11, 12, 13], pa.date32())
    write_trips(
        repo,
        small=pa.array([3, 1, 2, None], pa.int16()),
        single=pa.array([0.5, 0.25, 1.5, 2.5], pa.float32()),
        raw=pa.array([b"b", b"\xff", b"", b"a"]),
        is_new=pa.array([True, False, None, True]),
        day=day,
        label=pa.array(["x", "y", "x", "z"]).dictionary_encode(),
    )
    features: dict[str, tuple[str, str, Any]] = {
        "least": ("small", "min", Int64),
        "narrow": ("small", "max", Int32),
        "half": ("single", "first", Float32),
        "halves": ("single", "last_2", Array(Float64)),
        "greatest": ("raw", "max", Bytes),
        "all_new": ("is_new", "min", Bool),
        "days": ("day", "last_2", Array(UnixTimestamp)),
        "labels": ("label", "last_3", Array(String)),
        "share": ("is_new", "mean", Float64),
    }
    store = store_with(repo, [DRIVER, windowed_view(features)])
    found = store.get_historical_features(rows((1, 3), (9, 3)), [f"fares:{name}" for name in features]).to_arrow()
    kinds = [pa.int64(), pa.int32(), pa.float32(), pa.list_(pa.float64()), pa.binary(), pa.bool_()]
    assert [found.schema.field(name).type for name in features][:6] == kinds
    first = found.slice(0, 1).to_pylist()[0]
    assert [first[name] for name in features] == [
        1,
        3,
        0.5,
        [1.5, 0.25],
        b"\xff",
        False,
        [datetime(1970, 1, 13, tzinfo=UTC), datetime(1970, 1, 12, tzinfo=UTC)],
        ["x", "y", "x"],
        0.5,
    ]
    assert all(found.slice(1).to_pylist()[0][name] is None for name in features)


def test_rows_come_from_the_view_where_only_a_range_of_times_is_given(repo: Path) -> None:
    write_trips(repo)
    store = store_with(repo, [DRIVER, fares()])
    found = store.get_historical_features(
        entity_df=None,
        features=[COUNT],
        start_date=datetime(1970, 1, 1, 2, tzinfo=UTC),
        end_date=datetime(1970, 1, 1, 3, tzinfo=UTC),
    ).to_arrow()
    assert found.column("driver_id").to_pylist() == [1, 1, 2]
    assert found.column("count_fare").to_pylist() == [2, 3, 1]


def test_a_manifest_names_the_windowed_view_and_changes_with_its_windows(repo: Path) -> None:
    write_trips(repo)
    store = store_with(repo, [DRIVER, fares()])
    job = store.get_historical_features(entity_df=rows((1, 3)), features=[COUNT])
    assert "that can count for 'fares'" in job.to_sql()
    [before] = job.manifest()["views"]
    store.apply([fares(aggregations=[*fares().aggregations[:1], *(
        aggregation("fare", a.function, a.name, 3) for a in fares().aggregations[1:]
    )])])  # fmt: skip
    [after] = store.get_historical_features(entity_df=rows((1, 3)), features=[COUNT]).manifest()["views"]
    assert before["name"] == after["name"] == "fares"
    assert before["fingerprint"] != after["fingerprint"]


def test_the_distinct_values_of_a_large_window_are_estimated_and_its_percentile_near(repo: Path) -> None:
    count = 30_000
    write(
        repo,
        {
            "driver_id": pa.array([1] * count),
            "event_timestamp": instants(*[HOUR] * count),
            "fare": pa.array([float(n) for n in range(count)]),
        },
        EVENTS,
    )
    features: dict[str, tuple[str, str, Any]] = {
        "different": ("fare", "count_distinct", Int64),
        "high": ("fare", "approx_percentile_90", Float64),
    }
    store = store_with(repo, [DRIVER, windowed_view(features)])
    found = answers(store, rows((1, 1)), ["fares:different", "fares:high"])
    assert abs(found["different"][0] - count) < 0.05 * count
    assert abs(found["high"][0] - 0.9 * count) < 0.011 * 0.9 * count


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "function", "dtype", "words"),
    [
        ("nothing", "count", Int64, ["'fares'", "'f'", "'nothing'", "does not have", "field_mapping"]),
        ("name", "sum", Float64, ["'fares'", "'name'", "string", "sum is of numbers"]),
        ("name", "approx_percentile_50", Float64, ["'name'", "approx_percentile_50 is of numbers"]),
        ("at", "mean", Float64, ["'at'", "timestamp", "mean is of numbers"]),
        ("marks", "count", Int64, ["'marks'", "list", "numbers, truths, text"]),
        ("price", "max", Float64, ["'price'", "decimal", "DOUBLE"]),
        ("fare", "sum", Int64, ["'f'", "INT64", "double", "Float64"]),
        ("fare", "max", Int64, ["'f'", "INT64", "'fare'", "double"]),
        ("name", "first", Int64, ["'f'", "INT64", "string"]),
        ("count", "min", Int32, ["'f'", "INT32", "int64"]),
        ("count", "last_2", Array(Int32), ["'f'", "INT32_LIST", "int64", "Array"]),
    ],
)
def test_what_a_column_cannot_give_is_refused_before_any_scan_and_at_apply(
    repo: Path, column: str, function: str, dtype: Any, words: list[str]
) -> None:
    write_trips(
        repo,
        name=pa.array(["a"] * 4),
        at=instants(1, 2, 3, 4),
        marks=pa.array([[1]] * 4),
        price=pa.array([1, 2, 3, 4]).cast(pa.decimal128(21, 2)),
        count=pa.array([1, 2, 3, 4]),
    )
    view = windowed_view({"f": (column, function, dtype)})
    store = store_with(repo, [DRIVER, view])
    refused = (DefinitionError, SourceColumnMissing)
    with pytest.raises(refused) as at_retrieval:
        store.get_historical_features(entity_df=rows((1, 3)), features=["fares:f"])
    with pytest.raises(refused) as at_apply:
        check_declared_windows(store.config, view)
    for said in (str(at_retrieval.value), str(at_apply.value)):
        for word in words:
            assert word in said, said


def test_a_source_without_files_has_nothing_to_say_at_apply(repo: Path) -> None:
    write_trips(repo)
    store = store_with(repo, [DRIVER, fares()])
    (repo / EVENTS).unlink()
    check_declared_windows(store.config, fares())
    with pytest.raises(LarderError, match=r"trips\.parquet"):
        store.get_historical_features(entity_df=rows((1, 3)), features=[SUM])


@pytest.mark.parametrize("dtype", [Int64, Float64])
def test_a_sum_beyond_64_bits_is_refused_with_feature_and_row(repo: Path, dtype: Any) -> None:
    write_trips(repo, fare=pa.array([2**62, 2**62, 0, -(2**63)]))
    store = store_with(repo, [DRIVER, windowed_view({"total": ("fare", "sum", dtype)})])
    assert answers(store, rows((1, 1), (2, 3)), ["fares:total"])["total"] == [2**62, -(2**63)]
    with pytest.raises(InputError, match=r"'fares'.*'total'.*'driver_id': 1.*64 bits"):
        answers(store, rows((2, 3), (1, 2)), ["fares:total"])


def test_a_join_key_is_no_feature_of_a_windowed_view(repo: Path) -> None:
    write_trips(repo)
    store = store_with(repo, [DRIVER, fares()])
    view = store.get_feature_view("fares")
    view.features = [*view.features, Field(name="driver_id", dtype=Int64)]
    with pytest.raises(UnknownObject, match="'driver_id'"):
        store._get_provider().offline_store.get_historical_features(
            store.config, [view], ["fares:driver_id"], rows((1, 3)).rename_columns(["driver_id", "event_timestamp"]),
            store.registry, store.project, full_feature_names=True,
        )  # fmt: skip


# --- explain -------------------------------------------------------------------------------------


def test_the_trained_row_of_a_windowed_view_has_the_time_of_its_newest_event(repo: Path) -> None:
    write_trips(repo)
    store = store_with(repo, [DRIVER, fares()])
    view = store.get_feature_view("fares")
    found = trained_row(store.config, store.registry, view, {"driver_id": 1}, int(2.5 * HOUR))
    assert dict(found.values) == {"sum_fare": 3.5, "count_fare": 2, "last_fare": 2.0}
    assert found.times is not None
    assert found.times.event_us == 2 * HOUR
    empty = trained_row(store.config, store.registry, view, {"driver_id": 1}, 20 * HOUR)
    assert dict(empty.values) == {"sum_fare": None, "count_fare": 0, "last_fare": None}
    assert empty.times is None


def test_pandas_rows_and_driver_views_go_together(repo: Path) -> None:
    write_trips(repo)
    write(repo, {"driver_id": pa.array([1]), "event_timestamp": instants(HOUR), "trips": pa.array([7])})
    store = store_with(repo, [DRIVER, driver_view(), fares()])
    frame = pd.DataFrame({"driver_id": [1], "event_timestamp": pd.to_datetime([3 * HOUR], unit="us", utc=True)})
    found = store.get_historical_features(frame, ["driver_stats:trips", COUNT]).to_df()
    assert found[["trips", "count_fare"]].to_numpy().tolist() == [[7, 3]]
