"""What a retrieval answers beyond the join itself: names, types, aliases, sources, on-demand views, saved files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource, StreamFeatureView
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from store.errors import DefinitionError, SourceUnreadable
from store.limits import RETRIEVAL_THREADS_MAX
from store.offline import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from store.offline.connection import ConnectionSettings, connected
from tests.offline.feature_stores import DRIVER, driver_view, instants, store_with, write

HOUR = 3_600_000_000


def rows(*hours: int, **columns: Any) -> pa.Table:
    return pa.table(
        {"driver_id": pa.array([1] * len(hours), pa.int64()), "event_timestamp": instants(*(h * HOUR for h in hours))}
        | columns
    )


def stats(*hours: int, **columns: Any) -> dict[str, Any]:
    given = {"driver_id": pa.array([1] * len(hours)), "event_timestamp": instants(*(h * HOUR for h in hours))}
    return given | (columns or {"trips": pa.array([h * 10 for h in hours])})


def test_classes_are_defined_where_feast_looks_for_them() -> None:
    assert DuckDBOfflineStore.__module__ == DuckDBOfflineStoreConfig.__module__ == "store.offline"


def test_settings_reach_duckdb_and_spill_beside_the_repo(repo: Path) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view()], threads=1, memory_limit="200MB", spill_folder="data/spill")
    answer = store.get_historical_features(rows(2), ["driver_stats:trips"]).to_arrow()
    assert answer.column("trips").to_pylist() == [20]
    with pytest.raises(ValueError, match="memory_limit 'plenty'"):
        DuckDBOfflineStoreConfig(memory_limit="plenty")
    for threads in (0, RETRIEVAL_THREADS_MAX + 1):
        with pytest.raises(ValueError, match="threads"):
            DuckDBOfflineStoreConfig(threads=threads)
    assert DuckDBOfflineStoreConfig(threads=RETRIEVAL_THREADS_MAX).threads == RETRIEVAL_THREADS_MAX


def test_duplicate_rows_extra_columns_and_their_types_come_back_as_they_were(repo: Path) -> None:
    write(repo, stats(1, 5))
    store = store_with(repo, [DRIVER, driver_view()])
    given = rows(
        6, 2, 2, 0,
        label=pa.array(["a", "b", "b", None]).dictionary_encode(),
        weights=pa.array([[1.5], [], None, [2.5]], pa.list_(pa.float32())),
        rid=pa.array([7, 7, 7, 7], pa.uint8()),
    )  # fmt: skip
    answer = store.get_historical_features(given, ["driver_stats:trips"]).to_arrow()
    assert answer.select(given.column_names).equals(given, check_metadata=True)
    assert answer.column("trips").to_pylist() == [50, 10, 10, None]


@pytest.mark.parametrize("name", ["rn", "select", "a b", 'x"y', "é", "x_y", "k0", "e", "ptr", "rid", "v", "t", "f1"])
def test_a_feature_may_be_called_anything(repo: Path, name: str) -> None:
    write(repo, stats(1, 2, **{name: pa.array(["one", "two"])}))
    store = store_with(repo, [DRIVER, driver_view(features={name: String})])
    job = store.get_historical_features(rows(1, 9), [f"driver_stats:{name}"])
    assert job.to_arrow().column(name).to_pylist() == ["one", "two"]
    assert f'"{name.replace(chr(34), chr(34) * 2)}" AS f0' in job.to_sql()


def test_columns_come_in_declared_types_where_that_only_widens(repo: Path) -> None:
    columns = {
        "small": pa.array([7], pa.int16()),
        "single": pa.array([1.5], pa.float32()),
        "double": pa.array([0.1], pa.float64()),
        "whole": pa.array([3], pa.int32()),
        "naive": instants(HOUR, unit="ns", zone=None),
        "list": pa.array([[1, None]], pa.list_(pa.int32())),
        "coded": pa.array(["x"]).dictionary_encode(),
        "empty": pa.nulls(1),
    }
    declared = {
        "small": Int64, "single": Float64, "double": Float32, "whole": Float64, "naive": UnixTimestamp,
        "list": Array(Int64), "coded": String, "empty": Int32,
    }  # fmt: skip
    write(repo, stats(1, **columns))
    store = store_with(repo, [DRIVER, driver_view(features=declared)])
    answer = store.get_historical_features(rows(2), [f"driver_stats:{name}" for name in declared]).to_arrow()
    kinds = {name: answer.schema.field(name).type for name in declared}
    assert kinds == {
        "small": pa.int64(), "single": pa.float64(), "double": pa.float64(), "whole": pa.float64(),
        "naive": pa.timestamp("ns", "UTC"), "list": pa.list_(pa.int64()), "coded": pa.string(), "empty": pa.int32(),
    }  # fmt: skip
    assert answer.column("list").to_pylist() == [[1, None]]


def test_zero_entity_rows_give_an_empty_answer_of_the_right_types(repo: Path) -> None:
    write(repo, stats(1))
    store = store_with(repo, [DRIVER, driver_view()])
    answer = store.get_historical_features(rows(), ["driver_stats:trips"]).to_arrow()
    assert answer.num_rows == 0
    assert answer.schema.field("trips").type == pa.int64()
    frame = pd.DataFrame({"driver_id": [], "event_timestamp": []})
    assert store.get_historical_features(frame, ["driver_stats:trips"]).to_df().empty


def test_one_view_under_two_names_with_mapped_join_keys(repo: Path) -> None:
    write(repo, {**stats(1, 1), "driver_id": pa.array([1, 2]), "trips": pa.array([10, 20])})
    view = driver_view()
    store = store_with(repo, [DRIVER, view])
    first = view.with_name("first").with_join_key_map({"driver_id": "first_id"})
    second = view.with_name("second").with_join_key_map({"driver_id": "second_id"})
    service = FeatureService(name="pair", features=[first, second])
    store.apply([service], partial=True)
    given = pa.table({"first_id": [1, 2], "second_id": [2, None], "event_timestamp": instants(HOUR, HOUR)})
    answer = store.get_historical_features(given, service, full_feature_names=True).to_arrow()
    assert answer.column("first__trips").to_pylist() == [10, 20]
    assert answer.column("second__trips").to_pylist() == [20, None]


def test_a_view_without_entities_answers_its_newest_row(repo: Path) -> None:
    write(repo, {"event_timestamp": instants(HOUR, 3 * HOUR), "rate": pa.array([1.0, 3.0])}, "data/rates.parquet")
    view = FeatureView(
        name="rates", entities=[], schema=[Field(name="rate", dtype=Float64)],
        source=FileSource(name="rates_source", path="data/rates.parquet", timestamp_field="event_timestamp"),
    )  # fmt: skip
    store = store_with(repo, [view])
    answer = store.get_historical_features(rows(0, 1, 2, 3), ["rates:rate"]).to_arrow()
    assert answer.column("rate").to_pylist() == [None, 1.0, 1.0, 3.0]


def test_field_mapping_and_several_views_in_one_retrieval(repo: Path) -> None:
    write(repo, {"drv": pa.array([1]), "event_timestamp": instants(HOUR), "n trips": pa.array([5])})
    write(repo, stats(1, 2), "data/other.parquet")
    mapped = driver_view(name="mapped", field_mapping={"drv": "driver_id", "n trips": "trips"})
    store = store_with(repo, [DRIVER, mapped, driver_view("data/other.parquet", name="other")])
    answer = store.get_historical_features(rows(2), ["other:trips", "mapped:trips"], full_feature_names=True).to_arrow()
    assert answer.column("mapped__trips").to_pylist() == [5]
    assert answer.column("other__trips").to_pylist() == [20]


@pytest.mark.parametrize("path", ["data/many", "data/many/*.parquet", "data/many/**/*.parquet"])
def test_folders_and_globs_are_read_in_path_order(repo: Path, path: str) -> None:
    write(repo, stats(1, trips=pa.array([1])), "data/many/b.parquet")
    write(repo, {"trips": pa.array([2]), **stats(1, other=pa.array(["x"]))}, "data/many/a.parquet")
    write(repo, stats(1, trips=pa.array([9])), "data/many/.scratch.parquet")
    store = store_with(repo, [DRIVER, driver_view("data/many/b.parquet")])
    store.apply([driver_view(path)], partial=True)
    answer = store.get_historical_features(rows(1), ["driver_stats:trips"]).to_arrow()
    assert answer.column("trips").to_pylist() == [1]


def test_a_file_name_with_pattern_characters_means_itself(repo: Path) -> None:
    write(repo, stats(1, trips=pa.array([1])), "data/q[1]*.parquet")
    write(repo, stats(1, trips=pa.array([2])), "data/q1.parquet")
    store = store_with(repo, [DRIVER, driver_view("data/q[1]*.parquet")])
    assert store.get_historical_features(rows(1), ["driver_stats:trips"]).to_arrow()["trips"].to_pylist() == [1]


def test_text_times_are_parsed_as_utc(repo: Path) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view()])
    for texts in (
        ["1970-01-01T01:30:00Z"],
        ["1970-01-01 01:30:00"],
        ["1970-01-01T02:30:00+01:00"],
        ["1970-01-01 01:30"],
    ):
        frame = pd.DataFrame({"driver_id": [1], "event_timestamp": texts})
        answer = store.get_historical_features(frame, ["driver_stats:trips"]).to_arrow()
        assert answer.column("trips").to_pylist() == [10]
        assert answer.column("event_timestamp").to_pylist()[0] == datetime(1970, 1, 1, 1, 30, tzinfo=UTC)
    far = pa.table({"driver_id": [1], "event_timestamp": ["9999-12-31T23:59:59Z"]})
    assert store.get_historical_features(far, ["driver_stats:trips"]).to_arrow()["trips"].to_pylist() == [20]


def test_integer_keys_that_pandas_made_floats_still_match(repo: Path) -> None:
    write(repo, stats(1))
    store = store_with(repo, [DRIVER, driver_view()])
    times = pd.to_datetime(["1970-01-02", "1970-01-02"], utc=True)
    frame = pd.DataFrame({"driver_id": [1, None], "event_timestamp": times})
    assert store.get_historical_features(frame, ["driver_stats:trips"]).to_arrow()["trips"].to_pylist() == [10, None]


@pytest.mark.parametrize("kind", [pa.int32(), pa.int8(), pa.null()])
def test_key_types_of_other_widths_and_all_null_keys_fit(repo: Path, kind: pa.DataType) -> None:
    write(repo, stats(1))
    store = store_with(repo, [DRIVER, driver_view()])
    is_null = kind == pa.null()
    given = pa.table({"driver_id": pa.array([None if is_null else 1], kind), "event_timestamp": instants(HOUR)})
    answer = store.get_historical_features(given, ["driver_stats:trips"]).to_arrow()
    assert answer.column("trips").to_pylist() == [None if is_null else 10]


def test_an_all_null_key_column_in_the_source_fits_text(repo: Path) -> None:
    rider = Entity(name="rider", join_keys=["rider_id"], value_type=ValueType.STRING)
    write(repo, {"rider_id": pa.array(["x"]), "event_timestamp": instants(HOUR), "trips": pa.array([1])})
    source = FileSource(name="riders", path="data/stats.parquet", timestamp_field="event_timestamp")
    schema = [Field(name="rider_id", dtype=String), Field(name="trips", dtype=Int64)]
    store = store_with(repo, [rider, FeatureView(name="riders", entities=[rider], schema=schema, source=source)])
    write(repo, {"rider_id": pa.nulls(1), "event_timestamp": instants(HOUR), "trips": pa.array([1])})
    given = pa.table({"rider_id": ["x"], "event_timestamp": instants(HOUR)})
    assert store.get_historical_features(given, ["riders:trips"]).to_arrow()["trips"].to_pylist() == [None]


@on_demand_feature_view(
    sources=[
        driver_view(),
        RequestSource(name="asked", schema=[Field(name="bonus", dtype=Int64)]),
    ],
    schema=[Field(name="trips_and_bonus", dtype=Int64)],
)
def with_bonus(inputs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"trips_and_bonus": inputs["trips"] + inputs["bonus"]})


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # Feast's own, at apply
def test_on_demand_features_come_whole_and_batch_by_batch(repo: Path) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view(), with_bonus])
    given = rows(1, 2, 1, bonus=pa.array([1, 2, 3]))
    job = store.get_historical_features(given, ["with_bonus:trips_and_bonus"])
    assert job.to_arrow().column("trips_and_bonus").to_pylist() == [11, 22, 13]
    batches = list(job.to_arrow_batches(2))
    assert [batch.num_rows for batch in batches] == [2, 1]
    assert pa.Table.from_batches(batches).column("trips_and_bonus").to_pylist() == [11, 22, 13]


def test_batches_together_are_the_whole_answer(repo: Path) -> None:
    hours = list(range(50))
    write(repo, stats(*hours[::7]))
    store = store_with(repo, [DRIVER, driver_view(ttl=timedelta(hours=3))])
    job = store.get_historical_features(rows(*reversed(hours)), ["driver_stats:trips"])
    for rows_max in (1, 7, 50, 1000):
        batches = list(job.to_arrow_batches(rows_max))
        assert max(batch.num_rows for batch in batches) <= rows_max
        assert pa.Table.from_batches(batches).equals(job.to_arrow())


def test_a_stream_may_be_left_early(repo: Path) -> None:
    write(repo, stats(1))
    store = store_with(repo, [DRIVER, driver_view()])
    job = store.get_historical_features(rows(*range(100)), ["driver_stats:trips"])
    stream = job.to_arrow_batches(10)
    assert next(stream).num_rows == 10
    stream.close()
    assert job.to_arrow().num_rows == 100


@pytest.mark.filterwarnings("ignore:Stream feature views are experimental:RuntimeWarning")
def test_a_stream_view_answers_from_its_batch_source(repo: Path) -> None:
    write(repo, stats(1, 2))
    plain = driver_view()
    view = StreamFeatureView(
        name="pushed", entities=[DRIVER], timestamp_field="event_timestamp", schema=plain.schema,
        source=PushSource(name="push", batch_source=plain.batch_source),
    )  # fmt: skip
    store = store_with(repo, [DRIVER, view])
    answer = store.get_historical_features(rows(1, 3), ["pushed:trips"]).to_arrow()
    assert answer.column("trips").to_pylist() == [10, 20]


def test_times_in_the_old_spark_form_are_read_in_microseconds(repo: Path) -> None:
    path = repo / "data/stats.parquet"
    pq.write_table(pa.table(stats(1, 2)), path, use_deprecated_int96_timestamps=True)
    store = store_with(repo, [DRIVER, driver_view()])
    answer = store.get_historical_features(rows(1, 3), ["driver_stats:trips"]).to_arrow()
    assert answer.column("trips").to_pylist() == [10, 20]


def test_a_connection_reads_the_declared_files_and_nothing_else(repo: Path) -> None:
    declared = str(write(repo, stats(1), "data/one.parquet"))
    other = str(write(repo, stats(2), "data/two.parquet"))
    with connected(ConnectionSettings(), [declared]) as connection:
        assert connection.sql(f"SELECT count(*) FROM '{declared}'").fetchall() == [(1,)]
        for statement in (f"FROM '{other}'", "SET threads = 1", f"COPY (SELECT 1) TO '{repo}/out.csv'", "LOAD httpfs"):
            with pytest.raises(duckdb.Error, match=r"disabled|locked"):
                connection.execute(statement)


def test_metadata_says_features_keys_and_range(repo: Path) -> None:
    write(repo, stats(1))
    store = store_with(repo, [DRIVER, driver_view()])
    metadata = store.get_historical_features(rows(3, 1, label=pa.array(["a", "b"])), ["driver_stats:trips"]).metadata
    assert (metadata.features, metadata.keys) == (["driver_stats:trips"], ["driver_id", "label"])
    assert metadata.min_event_timestamp == datetime(1970, 1, 1, 1, tzinfo=UTC)
    assert metadata.max_event_timestamp == datetime(1970, 1, 1, 3, tzinfo=UTC)


@pytest.mark.filterwarnings("ignore:Saving dataset is an experimental feature:RuntimeWarning")
def test_a_saved_dataset_is_written_once_and_read_back(repo: Path) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view()])
    job = store.get_historical_features(rows(2, 1), ["driver_stats:trips"])
    storage = SavedDatasetFileStorage(path="data/saved.parquet")
    dataset = store.create_saved_dataset(from_=job, name="saved", storage=storage)
    assert dataset.to_df()["trips"].tolist() == [20, 10]
    assert pq.read_table(repo / "data/saved.parquet").equals(job.to_arrow())
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)
    assert [path.name for path in (repo / "data").iterdir() if path.name.startswith(".")] == []


def test_a_source_that_changes_between_planning_and_the_end_is_refused(repo: Path) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view()])
    job = store.get_historical_features(rows(2), ["driver_stats:trips"])
    stream = job.to_arrow_batches(1)
    write(repo, stats(1, 2, trips=pa.array([5, 6])))
    for run in (job.to_arrow, lambda: next(stream)):
        with pytest.raises(SourceUnreadable, match=r"stats\.parquet' was changed"):
            run()
    (repo / "data/stats.parquet").unlink()
    with pytest.raises(SourceUnreadable, match="changed or removed"):
        job.to_arrow()


def test_the_first_and_last_nanosecond_are_times_like_others(repo: Path) -> None:
    last = 2**63 - 1
    far = pa.array([0, last, -last]).cast(pa.timestamp("ns", "UTC"))
    columns = {"driver_id": pa.array([1, 1, 2]), "event_timestamp": far, "trips": pa.array([1, 2, 3])}
    write(repo, columns | {"created": pa.array([last, 1, 1]).cast(pa.timestamp("ns", "UTC"))})
    store = store_with(repo, [DRIVER, driver_view(created="created")])
    asked = pa.table({"driver_id": [1, 1, 2], "event_timestamp": instants(253_402_300_799_000_000, 1, 1)})
    answer = store.get_historical_features(asked, ["driver_stats:trips"]).to_arrow()
    assert answer.column("trips").to_pylist() == [2, 1, 3]


def test_whole_numbers_declared_as_floating_point_are_rounded(repo: Path) -> None:
    write(repo, stats(1, trips=pa.array([2**53 + 1])))
    store = store_with(repo, [DRIVER, driver_view(features={"trips": Float64})])
    assert store.get_historical_features(rows(1), ["driver_stats:trips"]).to_arrow()["trips"].to_pylist() == [2.0**53]


def test_the_statements_shown_reach_back_by_the_ttl(repo: Path) -> None:
    write(repo, stats(1, 5))
    store = store_with(repo, [DRIVER, driver_view(ttl=timedelta(hours=2))])
    shown = store.get_historical_features(rows(6, 9), ["driver_stats:trips"]).to_sql()
    assert f'"event_timestamp" >= make_timestamptz({4 * HOUR})' in shown
    assert f'"event_timestamp" <= make_timestamptz({9 * HOUR})' in shown


def test_a_negative_ttl_is_refused_by_name(repo: Path) -> None:
    write(repo, stats(1))
    store = store_with(repo, [DRIVER, driver_view(ttl=timedelta(seconds=-5))])
    with pytest.raises(DefinitionError, match="'driver_stats': its ttl -1 day, 23:59:55 is negative"):
        store.get_historical_features(rows(1), ["driver_stats:trips"])


@on_demand_feature_view(
    sources=[driver_view(), RequestSource(name="asked", schema=[Field(name="bonus", dtype=Int64)])],
    schema=[Field(name="greater", dtype=Int64)],
    mode="python",
    singleton=True,
)
def greater_of_both(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"greater": max(inputs["trips"], inputs["bonus"])}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # Feast's own, at apply
def test_a_function_of_one_row_gets_one_row_at_a_time(repo: Path) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view(), greater_of_both])
    asked = rows(1, 2, bonus=pa.array([100, 1]))
    for full in (False, True):
        job = store.get_historical_features(asked, ["greater_of_both:greater"], full_feature_names=full)
        assert job.to_arrow().column("greater_of_both__greater" if full else "greater").to_pylist() == [100, 20]
