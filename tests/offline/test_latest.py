"""The newest row per key: for the engine by view names and half-open, for Feast by file names and closed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.errors import SourceColumnMissing
from store.kernel.definitions import Column
from store.offline import DuckDBOfflineStore
from store.offline.latest import TIME_COLUMNS, latest_rows
from tests.offline.feature_stores import config_for, instants, write
from tests.oracles.point_in_time import SourceRow, newest

KEYS = (Column("city", "INT64"), Column("shop", "INT64"))
VALUE = (Column("number", "INT64"),)


def source(**changes: Any) -> FileSource:
    options: dict[str, Any] = {
        "name": "stats",
        "path": "data/stats.parquet",
        "timestamp_field": "event_timestamp",
        "created_timestamp_column": "created",
    }
    return FileSource(**options | changes)


NEAR = st.one_of(st.none(), st.sampled_from([-1001, -1000, -1, 0, 1, 999, 1000, 1001, 2000]))
KEY = st.sampled_from([None, 1, 1, 2])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(KEY, KEY, NEAR, NEAR), max_size=20),
    is_ns=st.booleans(),
    bounds=st.tuples(*[st.one_of(st.none(), st.integers(-2, 3))] * 2),
    files=st.sampled_from([1, 1, 3]),
    tells_times=st.booleans(),
)
def test_newest_row_per_key_in_a_half_open_interval(
    tmp_path: Path,
    rows: list[tuple[Any, ...]],
    is_ns: bool,
    bounds: tuple[int | None, int | None],
    files: int,
    tells_times: bool,
) -> None:
    factor = 1 if is_ns else 1_000
    kind = pa.timestamp("ns" if is_ns else "us", "UTC")
    columns = {
        "city": pa.array([row[0] for row in rows], pa.int64()),
        "shop": pa.array([row[1] for row in rows], pa.int64()),
        "event_timestamp": pa.array([row[2] for row in rows], pa.int64()).cast(kind),
        "created": pa.array([row[3] for row in rows], pa.int64()).cast(kind),
        "number": pa.array(range(len(rows)), pa.int64()),
    }
    for old in (tmp_path / "data/parts").glob("*"):
        old.unlink()
    share = -(-len(rows) // files) or 1
    for number in range(files):
        write(
            tmp_path,
            {name: column[number * share : (number + 1) * share] for name, column in columns.items()},
            f"data/parts/{number}.parquet",
            write_statistics=tells_times,
        )
    unit = 1_000 if is_ns else 1
    units = [None if bound is None else bound * (1 if is_ns else 1_000) for bound in bounds]
    start_us, end_us = units
    latest = latest_rows(config_for(tmp_path), source(path="data/parts"), KEYS, VALUE, (start_us, end_us))
    batches = list(latest.batches)
    table = pa.Table.from_batches(batches)
    assert table.column_names == ["city", "shop", "number", *TIME_COLUMNS]
    assert [str(table.schema.field(name).type) for name in TIME_COLUMNS] == ["int64", "int32"] * 2
    assert latest.total == table.num_rows
    in_ns = [
        SourceRow(row[:2], *(None if t is None else t * factor for t in row[2:]), number)
        for number, row in enumerate(rows)
    ]
    ends = [None if bound is None else bound * 1_000 for bound in units]
    expected = {
        key: (
            row.value,
            *divmod(row.event or 0, 1_000),
            *((None, 0) if row.created is None else divmod(row.created, 1_000)),
        )
        for key, row in newest(in_ns, *ends).items()
    }
    found = {(row["city"], row["shop"]): tuple(row.values())[2:] for row in table.to_pylist()}
    assert found == expected
    assert unit in (1, 1_000)


def test_names_are_those_of_the_view_and_batches_are_bounded(repo: Path) -> None:
    count = 25_000
    write(repo, {"drv": pa.array(range(count)), "event_timestamp": instants(*[5] * count), "n": pa.array(range(count))})
    mapped = source(created_timestamp_column="", field_mapping={"drv": "driver_id", "n": "trips"})
    latest = latest_rows(
        config_for(repo), mapped, [Column("driver_id", "INT64")], [Column("trips", "INT64")], (None, None)
    )
    batches = list(latest.batches)
    assert latest.total == count == sum(batch.num_rows for batch in batches)
    assert max(batch.num_rows for batch in batches) <= 10_000
    assert batches[0].schema.names == ["driver_id", "trips", *TIME_COLUMNS]
    assert batches[0].column("__created_us").null_count == batches[0].num_rows


def test_a_view_without_keys_has_one_newest_row(repo: Path) -> None:
    write(repo, {"event_timestamp": instants(5, 7, None), "rate": pa.array([1, 2, 3])})
    latest = latest_rows(
        config_for(repo), source(created_timestamp_column=""), [], [Column("rate", "INT64")], (None, None)
    )
    assert pa.Table.from_batches(list(latest.batches)).column("rate").to_pylist() == [2]
    none = latest_rows(config_for(repo), source(created_timestamp_column=""), [], [Column("rate", "INT64")], (8, None))
    assert (none.total, [batch.num_rows for batch in none.batches]) == (0, [0])


def test_a_missing_feature_is_refused_by_name(repo: Path) -> None:
    write(repo, {"event_timestamp": instants(5)})
    with pytest.raises(SourceColumnMissing, match="'rate'"):
        latest_rows(config_for(repo), source(created_timestamp_column=""), [], [Column("rate", "INT64")], (None, None))


def test_feast_pulls_latest_and_all_rows_in_a_closed_interval(repo: Path) -> None:
    columns = {"drv": pa.array([1, 1, 2, 1]), "event_timestamp": instants(1, 5, 5, 9), "n": pa.array([1, 2, 3, 4])}
    write(repo, columns)
    plain = source(created_timestamp_column="")
    ends = (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 0, 5, tzinfo=UTC))
    config = config_for(repo)
    job = DuckDBOfflineStore.pull_latest_from_table_or_query(
        config, plain, ["drv"], ["n"], "event_timestamp", None, *ends
    )
    newest_rows = job.to_arrow()
    assert newest_rows.column_names == ["drv", "n", "event_timestamp"]
    assert sorted(newest_rows.column("n").to_pylist()) == [2, 3]
    job = DuckDBOfflineStore.pull_all_from_table_or_query(config, plain, ["drv"], ["n"], "event_timestamp", None, *ends)
    assert job.to_arrow().column("n").to_pylist() == [1, 2, 3]
    job = DuckDBOfflineStore.pull_all_from_table_or_query(config, plain, [], ["n"], "event_timestamp")
    assert job.to_arrow().equals(pq.read_table(repo / "data/stats.parquet", columns=["n", "event_timestamp"]))
