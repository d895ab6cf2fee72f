"""Entity rows in every form that callers have them in."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Int64, String
from feast.value_type import ValueType

from store.errors import ConfigError, EntityRowsError, LarderError, SourceUnreadable
from store.offline.entity_sources import ParquetRows
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


@pytest.mark.parametrize(
    "text",
    [
        ["1970-01-01", "9999-12-31", "0001-01-01"],
        ["1970-01-01T00:00:00Z", "9999-12-31T00:00:00+00:00", " 0001-01-01T02:00:00+02:00 "],
        ["1970-01-01 00:00", "9999-12-31T00", "0001-01-01 00:00:00.000"],
        ["1970-01-01T01:00:00+0100", "9999-12-31T00:00:00z", "0001-01-01 00:00:00Z"],
    ],
)
def test_dates_and_the_times_of_always_and_never_are_times(store: FeatureStore, text: list[str]) -> None:
    rows = pa.table({"driver_id": [1, 1, 1], "event_timestamp": text})
    answer = store.get_historical_features(rows, FEATURES).to_arrow()
    expected = [datetime(*day, tzinfo=UTC) for day in ((1970, 1, 1), (9999, 12, 31), (1, 1, 1))]
    assert answer.column("event_timestamp").to_pylist() == expected
    assert answer.column("trips").to_pylist() == [None, 30, None]


def test_text_keeps_its_nanoseconds(store: FeatureStore) -> None:
    rows = pa.table({"driver_id": [1], "event_timestamp": ["1970-01-01T00:00:00.123456789Z"]})
    answer = store.get_historical_features(rows, FEATURES).to_arrow()
    assert answer.column("event_timestamp").cast(pa.int64()).to_pylist() == [123_456_789]


@pytest.mark.parametrize(
    "text", ["now", "today", "10:00", "01/02/2020", "", "NaT", "2020-01-01 10:00:00 EST", "2020-13-01", "2020-1-1", "5"]
)
def test_text_whose_time_would_be_guessed_is_refused(store: FeatureStore, text: str) -> None:
    rows = pa.table({"driver_id": [1, 1], "event_timestamp": ["2020-01-01", text]})
    with pytest.raises(EntityRowsError, match=f"'event_timestamp'.*'{text}'"):
        store.get_historical_features(rows, FEATURES)


@pytest.mark.parametrize("day", [date(2020, 1, 1), None])
@pytest.mark.parametrize("time", [datetime(1970, 1, 1, 9, tzinfo=UTC), pd.Timestamp(0), np.datetime64(0, "us")])
@pytest.mark.parametrize("name", ["event_timestamp", "label"])
def test_dates_beside_times_are_refused_and_nulls_are_not(
    store: FeatureStore, name: str, time: object, day: date | None
) -> None:
    columns = {"event_timestamp": pd.to_datetime(["2020-01-01"] * 2), name: pd.Series([time, day], dtype=object)}
    frame = pd.DataFrame({"driver_id": [1, 1], **columns})
    if day is None:
        assert store.get_historical_features(frame, FEATURES).to_arrow().column(name).null_count == 1
        return
    with pytest.raises(EntityRowsError, match=rf"{name!r} mixes dates such as .*2020, 1, 1"):
        store.get_historical_features(frame, FEATURES)


def test_integers_beyond_64_bits_are_refused_by_column(store: FeatureStore) -> None:
    frame = ROWS.to_pandas()
    for values in ([2**70, 1, 1, 1, 1], [2**63, -1, 1, 1, 1], [-(2**63) - 1, 1, 1, 1, 1]):
        with pytest.raises(EntityRowsError, match=r"column 'label' holds the integer .*64 bits"):
            store.get_historical_features(frame.assign(label=pd.Series(values, dtype=object)), FEATURES)
    largest = frame.assign(label=pd.Series([2**64 - 1, 0, 1, 1, 1], dtype="uint64"))
    answer = store.get_historical_features(largest, FEATURES).to_arrow()
    assert answer.column("label").to_pylist() == [2**64 - 1, 0, 1, 1, 1]


def test_what_a_frame_carries_beside_its_rows_is_left_alone(store: FeatureStore) -> None:
    frame = ROWS.to_pandas()
    frame.attrs = {"note": object()}
    answer = store.get_historical_features(frame, FEATURES).to_arrow()
    assert answer.column("trips").to_pylist() == TRIPS
    assert list(frame.attrs) == ["note"]


def test_a_parquet_file_with_columns_of_one_name_is_refused_by_name(repo: Path, store: FeatureStore) -> None:
    columns = [ROWS.column("driver_id"), *ROWS.columns]
    pq.write_table(pa.Table.from_arrays(columns, ["driver_id", *ROWS.column_names]), repo / "rows.parquet")
    with pytest.raises(EntityRowsError, match=r"rows\.parquet.*same name \['driver_id'\]"):
        store.get_historical_features("rows.parquet", FEATURES)


@pytest.mark.parametrize("is_in_place", [True, False])
def test_entity_rows_changed_after_they_were_checked_are_refused(
    repo: Path, store: FeatureStore, is_in_place: bool
) -> None:
    path = repo / "rows.parquet"
    pq.write_table(ROWS, path)
    job = store.get_historical_features("rows.parquet", FEATURES)
    target = path if is_in_place else repo / "new.parquet"
    pq.write_table(ROWS.slice(0, 2), target)
    target.replace(path)
    with pytest.raises(SourceUnreadable, match=r"rows\.parquet.*changed while it was read"):
        job.to_arrow()


def test_entity_rows_changed_between_two_blocks_are_refused(repo: Path, store: FeatureStore) -> None:
    path = repo / "rows.parquet"
    pq.write_table(ROWS, path)
    blocks = ParquetRows.open([str(path)]).blocks(2)
    assert next(blocks).num_rows == 2
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceUnreadable, match="changed while it was read"):
        list(blocks)


def test_a_query_that_fails_after_its_first_rows_is_refused(store: FeatureStore) -> None:
    query = (
        "SELECT CAST(CASE WHEN i = 150000 THEN 'many' ELSE '1' END AS INT) AS driver_id, "
        "TIMESTAMP '1970-01-01' AS event_timestamp FROM range(200000) t(i)"
    )
    with pytest.raises(EntityRowsError, match=r"single SELECT that runs .*many"):
        store.get_historical_features(query, FEATURES)


@pytest.mark.parametrize("folder", ["blocked", "blocked/below", "/proc/none"])
@pytest.mark.parametrize("form", ["reader", "query", "range"])
def test_a_spill_folder_that_cannot_be_used_is_named(repo: Path, folder: str, form: str) -> None:
    write(repo, {"driver_id": pa.array([1]), "event_timestamp": instants(HOUR), "trips": pa.array([1])})
    (repo / "blocked").write_text("a file where the folder should be")
    store = store_with(repo, [DRIVER, driver_view()], spill_folder=folder)
    query = "SELECT 1 AS driver_id, TIMESTAMP '1970-01-01' AS event_timestamp ORDER BY ALL"
    given = {"reader": as_reader(ROWS), "query": query, "range": None}[form]
    start = {"start_date": datetime(1970, 1, 1, tzinfo=UTC)} if form == "range" else {}
    with pytest.raises(ConfigError, match=rf"spill_folder '[^']*{folder}' cannot be used"):
        store.get_historical_features(given, FEATURES, **start)


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


def test_a_range_that_ends_before_it_starts_is_refused(store: FeatureStore) -> None:
    late, early = datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(EntityRowsError, match=r"start_date '1970-01-02.*after end_date '1970-01-01"):
        store.get_historical_features(features=FEATURES, start_date=late, end_date=early)
    future = datetime(2200, 1, 1, tzinfo=UTC)
    job = store.get_historical_features(features=FEATURES, start_date=future, end_date=future + timedelta(days=1))
    assert job.to_arrow().num_rows == 0


@pytest.mark.parametrize(
    ("start_ns", "end_ns", "found_ns"),
    [
        (999, 1_999, [999, 1_000, 1_999]),
        (1_000, 1_998, [1_000]),
        (1_500, 3_000, [1_999, 2_000]),
        (1_001, 1_999, [1_999]),
        (1_999, 1_999, [1_999]),
        (1_501, 1_502, []),
    ],
)
def test_a_range_is_exact_to_the_nanosecond(repo: Path, start_ns: int, end_ns: int, found_ns: list[int]) -> None:
    times = pa.array([999, 1_000, 1_999, 2_000]).cast(pa.timestamp("ns", "UTC"))
    write(repo, {"driver_id": [1] * 4, "event_timestamp": times, "trips": [1, 2, 3, 4]})
    start, end = (pd.Timestamp(moment, tz="UTC") for moment in (start_ns, end_ns))
    job = store_with(repo, [DRIVER, driver_view()]).get_historical_features(
        features=FEATURES, start_date=start, end_date=end
    )
    assert job.to_arrow().column("event_timestamp").cast(pa.int64()).to_pylist() == found_ns


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([2**53 + 1], [2.0]),
        ([1], ["1"]),
        ([b"1"], ["1"]),
        ([date(2020, 1, 1)], [datetime(2020, 1, 1, tzinfo=UTC)]),
    ],
)
def test_a_range_over_views_whose_keys_have_other_types_is_refused(
    repo: Path, left: list[object], right: list[object]
) -> None:
    for name, keys in (("left", left), ("right", right)):
        columns = {"driver_id": keys, "event_timestamp": instants(HOUR), "trips": [1]}
        write(repo, columns, f"data/{name}.parquet")
    views = [driver_view(f"data/{name}.parquet", name=name, features={"trips": Int64}) for name in ("left", "right")]
    store = store_with(repo, [DRIVER, *views])
    with pytest.raises(EntityRowsError, match=r"join key 'driver_id' is .* in feature view 'left' and .* in 'right'"):
        store.get_historical_features(
            features=["left:trips", "right:trips"], start_date=datetime(1970, 1, 1, tzinfo=UTC), full_feature_names=True
        )
