"""Entity rows in every form that callers have them in."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Int64, String
from feast.value_type import ValueType

from store.errors import EntityRowsError, LarderError, SourceUnreadable
from tests.offline.feature_stores import DRIVER, driver_view, instants, store_with, write

HOUR = 3_600_000_000
FEATURES = ["driver_stats:trips"]


@pytest.fixture
def store(repo: Path) -> FeatureStore:
    write(
        repo,
        {
            "driver_id": pa.array([1, 1, 2, None]),
            "event_timestamp": instants(HOUR, 3 * HOUR, 2 * HOUR, HOUR),
            "trips": pa.array([10, 30, 20, 0]),
        },
    )
    return store_with(repo, [DRIVER, driver_view()])


ROWS = pa.table(
    {
        "driver_id": pa.array([2, 1, 1, None, 3], pa.int64()),
        "event_timestamp": instants(2 * HOUR, 2 * HOUR, 9 * HOUR, HOUR, HOUR),
        "label": pa.array(["a", "b", None, "d", "e"]),
    }
)
TRIPS = [20, 10, 30, None, None]


def as_reader(rows: pa.Table) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=2))


def test_rows_come_as_table_frame_reader_path_folder_glob_or_query(repo: Path, store: FeatureStore) -> None:
    folder = repo / "rows"
    folder.mkdir()
    pq.write_table(ROWS.slice(0, 3), folder / "1.parquet", row_group_size=2)
    pq.write_table(ROWS.slice(3), folder / "2.parquet")
    pq.write_table(ROWS, repo / "rows.parquet")
    forms: list[Any] = [
        ROWS, ROWS.to_pandas(), as_reader(ROWS), ROWS.combine_chunks().to_batches()[0],
        "rows.parquet", repo / "rows.parquet", "rows", "rows/*.parquet", Path("rows"),
        "SELECT * FROM 'rows.parquet'", "FROM read_parquet('rows/*.parquet', filename = false)",
    ]  # fmt: skip
    for form in forms:
        job = store.get_historical_features(form, FEATURES)
        for _ in range(2):  # also what can only be gone through once
            answer = job.to_arrow()
            assert answer.column("trips").to_pylist() == TRIPS, form
            assert answer.column("label").to_pylist() == ROWS.column("label").to_pylist()
            assert answer.column_names == ["driver_id", "event_timestamp", "label", "trips"]


def test_a_query_sees_files_from_the_repo_folder_and_computes_rows(store: FeatureStore) -> None:
    query = """
        SELECT driver_id, event_timestamp + INTERVAL 1 HOUR AS event_timestamp, count(*) AS n
        FROM 'data/stats.parquet' WHERE driver_id IS NOT NULL GROUP BY ALL ORDER BY ALL
    """
    answer = store.get_historical_features(query, FEATURES).to_arrow()
    assert answer.column("trips").to_pylist() == [10, 30, 20]
    assert answer.column("n").to_pylist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT 1; SELECT 2", ["SELECT and SELECT", "single SELECT"]),
        ("COPY (SELECT 1) TO 'out.csv'", ["COPY", "single SELECT"]),
        ("DELETE FROM rows", ["DELETE", "single SELECT"]),
        ("SELECT * FROM nowhere", ["nowhere", "single SELECT"]),
        ("SELECT driver_id FRO rows", ["single SELECT"]),
        ("no/such/file.parquet", ["no/such/file.parquet", "neither a Parquet file"]),
        ("", ["neither a Parquet file"]),
        ("SELECT 1 AS driver_id", ["no timestamp column"]),
    ],
)
def test_text_that_is_no_single_select_and_no_path_is_refused(store: FeatureStore, text: str, words: list[str]) -> None:
    with pytest.raises(EntityRowsError) as caught:
        store.get_historical_features(text, FEATURES)
    assert [word for word in words if word not in str(caught.value)] == []


def test_files_that_do_not_fit_each_other_or_are_torn_are_refused_by_name(repo: Path, store: FeatureStore) -> None:
    folder = repo / "rows"
    folder.mkdir()
    pq.write_table(ROWS, folder / "1.parquet")
    cases: list[tuple[pa.Table, str]] = [
        (ROWS.drop_columns(["label"]), "has columns"),
        (ROWS.set_column(0, "driver_id", pa.array(["x"] * 5)), "in the first file"),
    ]
    for table, words in cases:
        pq.write_table(table, folder / "2.parquet")
        with pytest.raises(LarderError, match=rf"2\.parquet.*{words}"):
            store.get_historical_features("rows", FEATURES)
    (folder / "2.parquet").write_bytes((folder / "1.parquet").read_bytes()[:-30])
    with pytest.raises(SourceUnreadable, match=r"2\.parquet"):
        store.get_historical_features("rows", FEATURES)


def test_times_as_text_are_parsed_in_every_form(repo: Path, store: FeatureStore) -> None:
    text = ["1970-01-01T02:00:00Z", "1970-01-01T02:00:00Z", "1970-01-01 09:00:00+00:00", None, "1970-01-01T01:00:00Z"]
    rows = ROWS.set_column(1, "event_timestamp", pa.array(text))
    pq.write_table(rows, repo / "rows.parquet", row_group_size=2)
    for form in (rows, as_reader(rows), "rows.parquet"):
        answer = store.get_historical_features(form, FEATURES).to_arrow()
        assert answer.column("trips").to_pylist() == TRIPS
        assert pa.types.is_timestamp(answer.schema.field("event_timestamp").type)


@pytest.mark.parametrize("form", ["table", "frame", "reader", "path", "query"])
def test_no_rows_get_an_empty_answer_of_the_right_types(repo: Path, store: FeatureStore, form: str) -> None:
    none = ROWS.slice(0, 0)
    pq.write_table(none, repo / "rows.parquet")
    forms = {
        "table": none, "frame": none.to_pandas(), "reader": as_reader(none), "path": "rows.parquet",
        "query": "FROM 'rows.parquet'",
    }  # fmt: skip
    job = store.get_historical_features(forms[form], FEATURES)
    answer = job.to_arrow()
    assert (answer.num_rows, answer.column_names) == (0, ["driver_id", "event_timestamp", "label", "trips"])
    assert answer.schema.field("trips").type == pa.int64()
    assert [batch.num_rows for batch in job.to_arrow_batches(10)] == [0]
    assert job.to_df().empty


def test_a_range_of_time_gives_a_row_per_key_and_event_time(store: FeatureStore) -> None:
    job = store.get_historical_features(
        features=FEATURES, start_date=datetime(1970, 1, 1, 1, tzinfo=UTC), end_date=datetime(1970, 1, 1, 2, tzinfo=UTC)
    )
    answer = job.to_arrow()
    assert answer.column_names == ["driver_id", "event_timestamp", "trips"]
    assert answer.column("driver_id").to_pylist() == [1, 2]  # in order of time; both ends belong to the range
    assert answer.column("trips").to_pylist() == [10, 20]
    assert answer.column("event_timestamp").to_pylist()[0] == datetime(1970, 1, 1, 1, tzinfo=UTC)


def test_a_range_without_an_end_ends_at_the_clock(
    repo: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", "1970-01-01T02:30:00+00:00")
    answer = store.get_historical_features(features=FEATURES, start_date=datetime(1970, 1, 1, tzinfo=UTC)).to_arrow()
    assert answer.column("trips").to_pylist() == [10, 20]
    later = store.get_historical_features(
        features=FEATURES, start_date=datetime(1970, 1, 1, tzinfo=UTC), end_date=datetime(2200, 1, 1, tzinfo=UTC)
    )
    assert later.to_arrow().num_rows == 2  # a row from the future is not yet there to be asked for


def test_a_range_takes_the_rows_of_all_views_and_refuses_views_of_other_keys(repo: Path) -> None:
    write(repo, {"driver_id": [1], "event_timestamp": instants(HOUR), "trips": [10]})
    more = {"driver_id": [1, 1, 2], "event_timestamp": instants(HOUR, 2 * HOUR, HOUR), "stops": [1, 2, 3]}
    write(repo, more, "data/stops.parquet")
    city = Entity(name="city", join_keys=["city_id"], value_type=ValueType.STRING)
    write(repo, {"city_id": ["x"], "event_timestamp": instants(HOUR), "rain": [1]}, "data/rain.parquet")
    rain = FeatureView(
        name="rain",
        entities=[city],
        schema=[Field(name="city_id", dtype=String), Field(name="rain", dtype=Int64)],
        source=FileSource(name="rain", path="data/rain.parquet", timestamp_field="event_timestamp"),
    )
    stops = driver_view("data/stops.parquet", name="stops", features={"stops": Int64})
    store = store_with(repo, [DRIVER, city, driver_view(ttl=timedelta(hours=1)), stops, rain])
    start = datetime(1970, 1, 1, tzinfo=UTC)
    answer = store.get_historical_features(features=[*FEATURES, "stops:stops"], start_date=start).to_arrow()
    assert answer.drop_columns(["event_timestamp"]).to_pylist() == [
        {"driver_id": 1, "trips": 10, "stops": 1},
        {"driver_id": 2, "trips": None, "stops": 3},
        {"driver_id": 1, "trips": 10, "stops": 2},
    ]
    with pytest.raises(EntityRowsError, match=r"same join keys.*'city_id'"):
        store.get_historical_features(features=[*FEATURES, "rain:rain"], start_date=start)
    with pytest.raises(EntityRowsError, match="no start_date"):
        store.get_historical_features(features=FEATURES)
    with pytest.raises(ValueError, match="both entity_df and start_date"):
        store.get_historical_features(ROWS, FEATURES, start_date=start)


def test_rows_larger_than_a_block_are_answered_whole_and_in_order(repo: Path) -> None:
    count = 120_000
    write(
        repo,
        {
            "driver_id": pa.array([number % 100 for number in range(1_000)]),
            "event_timestamp": instants(*(number * HOUR for number in range(1_000))),
            "trips": pa.array(range(1_000)),
        },
    )
    store = store_with(repo, [DRIVER, driver_view()], memory_limit="100MB", threads=1)
    hours = [number * 7 % 1_000 for number in range(count)]
    frame = pd.DataFrame({
        "driver_id": [hour % 100 for hour in hours],
        "event_timestamp": pd.to_datetime(pd.Series(hours) * 3600, unit="s", utc=True),
    })  # fmt: skip
    answer = store.get_historical_features(frame, FEATURES).to_arrow()
    assert answer.column("trips").to_pylist() == hours
