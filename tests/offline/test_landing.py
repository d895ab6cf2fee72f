"""Landing: each write is one new file, whole or not there, part of the source and after all earlier ones."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService, FeatureStore
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination

from store.clock import restart_clock
from store.errors import PushedRowsError, SourceError
from store.offline import DuckDBOfflineStore
from store.offline.landing import append_file, land_rows
from tests.offline.feature_stores import DRIVER, config_for, driver_view, instants, store_with, write

HOUR = 3_600_000_000


def stats(driver: int, hour: int, trips: int) -> dict[str, Any]:
    return {
        "driver_id": pa.array([driver]),
        "event_timestamp": instants(hour * HOUR),
        "n": pa.array([trips], pa.int32()),
    }


@pytest.fixture
def store(repo: Path) -> FeatureStore:
    write(repo, stats(1, 1, 10))
    return store_with(repo, [DRIVER, driver_view(field_mapping={"n": "trips"})])


def trips_at(store: FeatureStore, hour: int) -> Any:
    given = pa.table({"driver_id": [1], "event_timestamp": instants(hour * HOUR)})
    return store.get_historical_features(given, ["driver_stats:trips"]).to_arrow().column("trips").to_pylist()[0]


def test_a_pushed_row_is_part_of_the_source_and_stands_last(repo: Path, store: FeatureStore) -> None:
    for trips in (20, 30):
        frame = pd.DataFrame(
            {"driver_id": [1], "event_timestamp": [pd.Timestamp(HOUR, unit="us", tz="UTC")], "n": [trips]}
        )
        store.write_to_offline_store("driver_stats", frame)
    assert trips_at(store, 1) == 30
    landed = sorted((repo / "data/stats.parquet.landed").glob("*.parquet"))
    assert [pq.read_table(path).column("n").to_pylist() for path in landed] == [[20], [30]]
    assert pq.read_schema(landed[0]).equals(pq.read_schema(repo / "data/stats.parquet"))
    assert pq.read_table(repo / "data/stats.parquet").num_rows == 1


def test_landed_files_of_a_folder_stand_beside_it_and_outside_other_sources(repo: Path) -> None:
    write(repo, stats(1, 1, 10), "data/many/one.parquet")
    view = driver_view("data/many", field_mapping={"n": "trips"})
    store = store_with(repo, [DRIVER, view])
    DuckDBOfflineStore.offline_write_batch(store.config, view, pa.table(stats(1, 1, 20)), None)
    assert len(list((repo / "data/many.landed").glob("*.parquet"))) == 1
    # Another source, a file inside the folder, has landed rows of its own, which are none of the folder's.
    inner = driver_view("data/many/one.parquet", name="inner", field_mapping={"n": "trips"})
    DuckDBOfflineStore.offline_write_batch(store.config, inner, pa.table(stats(1, 1, 99)), None)
    assert trips_at(store, 1) == 20


def test_arrival_order_survives_a_clock_that_goes_back(
    repo: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = store.get_feature_view("driver_stats").batch_source
    for trips, year in ((20, "2030"), (30, "2013")):
        monkeypatch.setenv("LARDER_CLOCK", f"{year}-01-01T00:00:00Z")
        restart_clock(repo, datetime(int(year), 1, 1, tzinfo=UTC))
        land_rows(store.config, source, pa.table(stats(1, 1, trips)))
    assert trips_at(store, 1) == 30


def test_many_writers_lose_nothing(repo: Path, store: FeatureStore) -> None:
    source = store.get_feature_view("driver_stats").batch_source
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda i: land_rows(store.config, source, pa.table(stats(1, i, i))), range(64)))
    assert len(set(paths)) == 64
    found = {trips for path in paths for trips in pq.read_table(path).column("n").to_pylist()}
    assert found == set(range(64))
    assert trips_at(store, 63) == 63


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"n": None}, ["missing ['n']"]),
        ({"surplus": pa.array([1])}, ["unknown ['surplus']"]),
        ({"n": pa.array(["x"])}, ["'n'", "string", "int32"]),
        ({"n": pa.array([1.5])}, ["'n'", "double", "int32"]),
        ({"n": pa.array([2**40])}, ["'n'", "int64", "int32"]),
        ({"n": pa.array([True])}, ["'n'", "bool"]),
        ({"event_timestamp": pa.array(["soon"])}, ["'event_timestamp'", "soon"]),
        ({"event_timestamp": pa.array([1001], pa.timestamp("ns", "UTC"))}, ["'event_timestamp'", "timestamp[ns"]),
    ],
)
def test_unfit_rows_are_refused_and_nothing_is_written(
    repo: Path, store: FeatureStore, columns: dict[str, Any], words: list[str]
) -> None:
    source = store.get_feature_view("driver_stats").batch_source
    given = {name: column for name, column in (stats(1, 1, 1) | columns).items() if column is not None}
    with pytest.raises(PushedRowsError) as caught:
        land_rows(store.config, source, pa.table(given))
    assert [word for word in words if word not in str(caught.value)] == []
    assert not (repo / "data/stats.parquet.landed").exists()


def test_rows_under_view_names_with_text_times_and_an_index_are_fitted(repo: Path, store: FeatureStore) -> None:
    source = store.get_feature_view("driver_stats").batch_source
    frame = pd.DataFrame({"trips": [7], "event_timestamp": ["1970-01-01T02:00:00Z"], "driver_id": [1]}, index=[5])
    land_rows(store.config, source, pa.Table.from_pandas(frame))
    assert trips_at(store, 2) == 7


def test_a_landed_file_older_than_a_feature_reads_as_null(repo: Path, store: FeatureStore) -> None:
    source = store.get_feature_view("driver_stats").batch_source
    land_rows(store.config, source, pa.table(stats(1, 5, 50)))
    write(repo, stats(1, 1, 10) | {"rating": pa.array([1.5])})
    from feast.types import Float64, Int64

    view = driver_view(field_mapping={"n": "trips"}, features={"trips": Int64, "rating": Float64})
    store.apply([view], partial=True)
    given = pa.table({"driver_id": [1, 1], "event_timestamp": instants(HOUR, 9 * HOUR)})
    answer = store.get_historical_features(given, ["driver_stats:rating", "driver_stats:trips"]).to_arrow()
    assert answer.column("rating").to_pylist() == [1.5, None]
    assert answer.column("trips").to_pylist() == [10, 50]


def test_a_folder_that_cannot_be_made_is_named(repo: Path, store: FeatureStore) -> None:
    (repo / "data" / "stats.parquet.landed").write_text("no folder")
    frame = pd.DataFrame({"driver_id": [1], "event_timestamp": [pd.Timestamp(HOUR, unit="us", tz="UTC")], "n": [20]})
    with pytest.raises(SourceError, match=r"stats\.parquet\.landed"):
        store.write_to_offline_store("driver_stats", frame)


def test_a_half_written_file_is_never_seen(repo: Path, store: FeatureStore) -> None:
    folder = repo / "data/stats.parquet.landed"
    folder.mkdir()
    (folder / ".00000000000000000001-aa.parquet.x1").write_bytes(b"PAR1 half")
    (folder / ".half.parquet").write_bytes(b"PAR1 half")
    assert trips_at(store, 1) == 10
    table = pa.table({"n": [1]})
    append_file(store.config, folder / "logs", table)
    assert len(list((folder / "logs").glob("*"))) == 2  # the file and the lock of publishing


@pytest.mark.filterwarnings("ignore::DeprecationWarning:feast")
def test_logged_features_are_appended_and_read_back(repo: Path, store: FeatureStore) -> None:
    destination = FileLoggingDestination(path="data/logs")
    service = FeatureService(
        name="served",
        features=[store.get_feature_view("driver_stats")],
        logging_config=LoggingConfig(destination=destination),
    )
    store.apply([service], partial=True)
    from feast.feature_logging import FeatureServiceLoggingSource

    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    for number in (1, 2):
        values = {"driver_id": number, "driver_stats__trips": number, "driver_stats__trips__status": 2}
        row = {field.name: values.get(field.name) for field in schema}
        row["__log_timestamp"] = datetime(2020, 1, number, tzinfo=UTC)
        row["__log_date"] = row["__log_timestamp"].date()
        row["driver_stats__trips__timestamp"] = row["__log_timestamp"]
        row["__request_id"] = str(number)
        logs = pa.Table.from_pylist([row], schema=schema)
        DuckDBOfflineStore.write_logged_features(
            store.config,
            logs,
            FeatureServiceLoggingSource(service, store.project),
            service.logging_config,
            store.registry,
        )
    assert len(list((repo / "data/logs").glob("*.parquet"))) == 2
    job = store._get_provider().retrieve_feature_service_logs(
        service, datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 3, tzinfo=UTC), store.config, store.registry
    )
    assert sorted(job.to_arrow().column("driver_stats__trips").to_pylist()) == [1, 2]


def test_columns_and_types_are_told_for_files_folders_and_globs(repo: Path) -> None:
    write(repo, stats(1, 1, 10), "data/many/one.parquet")
    expected = [("driver_id", "int64"), ("event_timestamp", "timestamp[us, tz=UTC]"), ("n", "int32")]
    for path in ("data/many/one.parquet", "data/many", "data/many/*.parquet", str(repo / "data/many")):
        source = driver_view(path).batch_source
        tell = DuckDBOfflineStore().get_table_column_names_and_types_from_data_source
        assert list(tell(config_for(repo), source)) == expected
