"""Each bad input is refused before any heavy work, by a message that names the thing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore, FileSource, RequestSource
from feast.field import Field
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Int64

from store.errors import (
    ConfigError,
    DefinitionError,
    EntityRowsError,
    InputError,
    MissingJoinKey,
    OutOfSpace,
    SourceColumnMissing,
    SourceUnreadable,
    WrongType,
)
from store.offline import DuckDBOfflineStore
from store.offline.budget import bytes_of
from store.offline.jobs import LarderRetrievalJob
from tests.offline.feature_stores import DRIVER, config_for, driver_view, instants, store_with, write

HOUR = 3_600_000_000
FEATURES = ["driver_stats:trips"]


@pytest.fixture
def store(repo: Path) -> FeatureStore:
    columns = {"driver_id": pa.array([1]), "event_timestamp": instants(HOUR), "trips": pa.array([1])}
    write(repo, columns)
    return store_with(repo, [DRIVER, driver_view()])


def rows(**changes: Any) -> pa.Table:
    columns = {"driver_id": pa.array([1]), "event_timestamp": instants(HOUR)} | changes
    return pa.table({name: column for name, column in columns.items() if column is not None})


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("SELECT 1 AS driver_id", EntityRowsError, ["no timestamp column", "driver_id"]),
        (Path("rows.parquet"), EntityRowsError, ["rows.parquet", "pyarrow Table"]),
        (rows(driver_id=None), MissingJoinKey, ["'driver_stats'", "'driver_id'", "['event_timestamp']"]),
        (rows(driver_id=pa.array(["1"])), WrongType, ["'driver_id'", "string", "int64"]),
        (rows(driver_id=pa.array([True])), WrongType, ["'driver_id'", "bool", "int64"]),
        (rows(driver_id=pa.array([1.5])), WrongType, ["'driver_id'", "double", "1.5"]),
        (rows(event_timestamp=None), EntityRowsError, ["no timestamp column", "['driver_id']"]),
        (
            rows(event_timestamp=None, a=instants(1), b=instants(2)),
            EntityRowsError,
            ["several timestamp columns ['a', 'b']"],
        ),
        (rows(event_timestamp=pa.array([5])), EntityRowsError, ["'event_timestamp'", "int64", "timestamp"]),
        (
            rows(event_timestamp=pa.array([-(2**62)]).cast(pa.timestamp("us"))),
            EntityRowsError,
            ["'event_timestamp'", "years 1 to 9999"],
        ),
        (rows(event_timestamp=pa.array(["soon"])), EntityRowsError, ["'event_timestamp'", "soon"]),
        (rows(trips=pa.array([1])), EntityRowsError, ["'driver_stats:trips'", "'trips'", "full_feature_names"]),
        (
            pa.Table.from_arrays(
                [pa.array([1]), pa.array([1]), instants(1)], ["driver_id", "driver_id", "event_timestamp"]
            ),
            EntityRowsError,
            ["same name ['driver_id']"],
        ),
    ],
)
def test_unfit_entity_rows_are_refused(
    store: FeatureStore, given: Any, error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        store.get_historical_features(given, FEATURES)
    assert [word for word in words if word not in str(caught.value)] == []


def test_no_entity_rows_at_all_are_refused_with_what_to_pass(store: FeatureStore) -> None:
    with pytest.raises(EntityRowsError, match="there is no start_date; pass entity rows as `entity_df`"):
        store.get_historical_features(features=FEATURES, end_date=datetime(2020, 1, 1, tzinfo=UTC))


def test_the_only_timestamp_column_is_taken_whatever_its_name(store: FeatureStore) -> None:
    answer = store.get_historical_features(rows(event_timestamp=None, seen=instants(HOUR)), FEATURES).to_arrow()
    assert answer.column("trips").to_pylist() == [1]


@pytest.mark.parametrize("is_object", [True, False])
def test_a_mixture_of_naive_and_aware_times_is_refused(store: FeatureStore, is_object: bool) -> None:
    aware = datetime(2020, 1, 1, tzinfo=UTC)
    times: list[Any] = [aware.replace(tzinfo=None), aware]
    column = pd.Series(times if is_object else [str(time) for time in times], dtype=object)
    with pytest.raises(EntityRowsError, match=r"'event_timestamp'.*zone"):
        store.get_historical_features(pd.DataFrame({"driver_id": [1, 1], "event_timestamp": column}), FEATURES)


def test_a_column_of_mixed_values_is_refused(store: FeatureStore) -> None:
    frame = pd.DataFrame({"driver_id": [1, "x"], "event_timestamp": pd.to_datetime(["2020-01-01"] * 2, utc=True)})
    with pytest.raises(EntityRowsError, match="driver_id"):
        store.get_historical_features(frame, FEATURES)


def test_a_request_field_missing_from_arrow_rows_is_refused(repo: Path, store: FeatureStore) -> None:
    @on_demand_feature_view(
        sources=[driver_view(), RequestSource(name="asked", schema=[Field(name="bonus", dtype=Int64)])],
        schema=[Field(name="more", dtype=Int64)],
        mode="python",
    )
    def with_more(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"more": [a + b for a, b in zip(inputs["trips"], inputs["bonus"], strict=True)]}

    store.apply([with_more], partial=True)
    with pytest.raises(MissingJoinKey, match="'with_more': request field 'bonus' missing"):
        store.get_historical_features(rows(), ["with_more:more"])


def test_a_missing_or_torn_source_is_refused_by_name(repo: Path, store: FeatureStore) -> None:
    path = repo / "data/stats.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceUnreadable, match=r"stats\.parquet"):
        store.get_historical_features(rows(), FEATURES)
    path.unlink()
    with pytest.raises(SourceUnreadable, match=r"stats\.parquet"):
        store.get_historical_features(rows(), FEATURES)
    with pytest.raises(OSError, match=r"stats\.parquet"):
        DuckDBOfflineStore().validate_data_source(store.config, store.get_feature_view("driver_stats").batch_source)


def test_damage_inside_a_source_is_found_when_it_is_read(repo: Path) -> None:
    count = 20_000
    path = write(repo, {
        "driver_id": pa.array([1] * count), "event_timestamp": instants(*range(count)), "trips": pa.array(range(count)),
    })  # fmt: skip
    store = store_with(repo, [DRIVER, driver_view()])
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    path.write_bytes(content)
    job = store.get_historical_features(rows(), FEATURES)
    with pytest.raises(SourceUnreadable, match=r"stats\.parquet"):
        job.to_arrow()


@pytest.mark.parametrize("lost", ["driver_id", "event_timestamp", "made", "n_trips"])
def test_a_source_without_a_declared_column_is_refused(repo: Path, lost: str) -> None:
    columns = {
        "driver_id": pa.array([1]), "event_timestamp": instants(HOUR), "made": instants(HOUR), "n_trips": pa.array([1]),
    }  # fmt: skip
    write(repo, columns)
    view = driver_view(created="made", field_mapping={"n_trips": "trips"})
    store = store_with(repo, [DRIVER, view])
    write(repo, {name: column for name, column in columns.items() if name != lost})
    with pytest.raises(SourceColumnMissing) as caught:
        store.get_historical_features(rows(), FEATURES)
    assert "'driver_stats'" in str(caught.value)
    assert f"column {lost!r}" in str(caught.value)
    assert "stats.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"event_timestamp": pa.array(["2020-01-01"])}, ["'event_timestamp'", "string", "timestamp"]),
        ({"Trips": pa.array([2])}, ["['trips', 'Trips']", "case"]),
        ({"file_row_number": pa.array([2])}, ["'file_row_number'", "rename"]),
        ({"trips": pa.array([[1]], pa.list_(pa.duration("s")))}, ["'trips'", "list<", "duration", "integers"]),
        ({"trips": pa.array([{"a": 1}], pa.struct({"a": pa.decimal256(50, 0)}))}, ["'trips'", "struct<", "38 digits"]),
    ],
)
def test_a_source_that_cannot_be_read_exactly_is_refused(
    repo: Path, store: FeatureStore, columns: dict[str, Any], words: list[str]
) -> None:
    stats = {"driver_id": pa.array([1]), "event_timestamp": instants(HOUR), "trips": pa.array([1])}
    write(repo, stats | columns)
    with pytest.raises(SourceUnreadable) as caught:
        store.get_historical_features(rows(), FEATURES)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_source_column_without_a_name_is_refused(repo: Path, store: FeatureStore) -> None:
    write(repo, {"driver_id": pa.array([1]), "event_timestamp": instants(HOUR), "": pa.array([1])})
    store = store_with(repo, [DRIVER, driver_view(field_mapping={"": "trips"})])
    with pytest.raises(SourceUnreadable, match=r"'driver_stats': source file .* has a column called ''.* rename"):
        store.get_historical_features(rows(), FEATURES)


@pytest.mark.parametrize("rows_max", [0, -1])
def test_batches_of_no_rows_are_refused_before_any_work(repo: Path, store: FeatureStore, rows_max: int) -> None:
    job = store.get_historical_features(rows(), FEATURES)
    assert isinstance(job, LarderRetrievalJob)
    (repo / "data/stats.parquet").unlink()  # so that any work would fail
    with pytest.raises(InputError, match=f"rows_max is {rows_max}, expected at least 1"):
        job.to_arrow_batches(rows_max)


def test_a_memory_limit_beyond_any_machine_is_refused(repo: Path) -> None:
    assert bytes_of("1000TB") == 10**15
    for amount in ("1001TB", "9999999999TB"):
        with pytest.raises(ConfigError, match=f"memory_limit '{amount}' is more than a petabyte"):
            bytes_of(amount)
    with pytest.raises(ValueError, match="petabyte"):
        store_with(repo, [DRIVER], memory_limit="9999999999TB")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (FileSource(path="s3://bucket/x.parquet", timestamp_field="t"), "remote"),
        (RequestSource(name="asked", schema=[]), "RequestSource"),
    ],
)
def test_a_source_of_another_kind_is_refused(repo: Path, source: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        DuckDBOfflineStore().validate_data_source(config_for(repo), source)


def test_no_memory_and_no_room_to_spill_is_said_so(repo: Path) -> None:
    count = 3_000_000
    columns = {"driver_id": pa.array(range(count)), "event_timestamp": instants(*range(count))}
    write(repo, columns | {"trips": pa.array(range(count))})
    store = store_with(repo, [DRIVER, driver_view()], memory_limit="20MB", spill_folder="data/blocked")
    (repo / "data/blocked").write_text("a file where the folder should be")
    given = pa.table({"driver_id": range(500_000), "event_timestamp": instants(*[count] * 500_000)})
    with pytest.raises(OutOfSpace, match=r"memory_limit|spill_folder"):
        store.get_historical_features(given, FEATURES).to_arrow()


def test_a_failed_save_leaves_nothing_behind(repo: Path, store: FeatureStore) -> None:
    job = store.get_historical_features(rows(), FEATURES)
    (repo / "data/saved").mkdir()
    torn = repo / "data/stats.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(SourceUnreadable, match=r"stats\.parquet"):
        job.persist(SavedDatasetFileStorage(path="data/saved/one.parquet"))
    assert list((repo / "data/saved").iterdir()) == []
