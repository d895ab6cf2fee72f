"""The baseline: the best SQL that we could write by hand for DuckDB, with the semantics of a point-in-time join."""

from dataclasses import dataclass, field
from importlib.metadata import version

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from bench.offline.contenders import Answer
from bench.offline.contenders.duckdb_runs import answer, connect
from bench.offline.shapes import CREATED, EVENT, KEY, ROW_ID, START_US, feature_names
from bench.offline.task import TTL_US, Task

# Event time, created time and row number in one number, so that one `max` decides as the semantics do: the newest
# event, then the latest created, then the last row. 46 bits are two years of microseconds, 30 a billion rows.
ROW_BITS = 30
TIME_BITS = 46


@dataclass
class HandSql:
    """Three steps: which row of a view answers each entity row, over narrow columns; fetch those; put views together.

    For long histories the first step joins on key and time bucket: an entity row looks into the bucket of its time and
    the one before. Whatever it finds there is newer than all that it does not look at. The few that find nothing
    look again in buckets as wide as the time to live, which miss nothing. For short histories a join on the key alone
    is faster. Both beat DuckDB's ASOF JOIN, which sorts the history.
    """

    task: Task
    entities: pa.Table | None
    keeps_order: bool = True
    versions: dict[str, str] = field(default_factory=lambda: {"duckdb": version("duckdb")})

    def run(self) -> Answer:
        """Returns the answer in the order of the entity rows."""
        with connect(self.task, self.entities) as connection:
            for view, path in enumerate(self.task.history):
                self._match(connection, path)
                _fetch(connection, view, path)
            views = range(len(self.task.history))
            features = ", ".join(name for view in views for name in feature_names(view))
            joins = " ".join(f"LEFT JOIN answer_{view} USING ({ROW_ID})" for view in views)
            rows = f"SELECT {ROW_ID}, {KEY}, {EVENT}, {features} FROM entities {joins} ORDER BY {ROW_ID}"
            return answer(connection, rows, self.task.output)

    def _match(self, connection: duckdb.DuckDBPyConnection, path: str) -> None:
        """Creates the table `matched`: one row `row_id, place` per entity row that has an answer."""
        rows = f"SELECT {ROW_ID}, {KEY}, epoch_us({EVENT}) AS t FROM entities"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE matched AS {self._matches(path, rows, self.task.bucket_us)}")
        if self.task.bucket_us is not None:
            left = f"SELECT * FROM ({rows}) ANTI JOIN matched USING ({ROW_ID})"
            connection.execute(f"INSERT INTO matched {self._matches(path, left, TTL_US)}")

    def _matches(self, path: str, rows: str, bucket_us: int | None) -> str:
        history = (
            f"SELECT {KEY}, epoch_us({EVENT}) AS e, epoch_us({CREATED}) AS c, file_row_number AS place "
            f"FROM read_parquet('{path}', file_row_number = true)"
        )
        using = KEY
        if bucket_us is not None:
            history = f"SELECT *, e // {bucket_us} AS bucket FROM ({history})"
            rows = f"SELECT *, t // {bucket_us} - unnest([0, 1]) AS bucket FROM ({rows})"
            using = f"{KEY}, bucket"
        known = " AND c <= t" if self.task.is_cut_by_created else ""
        rank = (
            f"((e - {START_US})::UHUGEINT << {TIME_BITS + ROW_BITS}) | ((c - {START_US})::UHUGEINT << {ROW_BITS}) "
            "| place::UHUGEINT"
        )
        return (
            f"SELECT {ROW_ID}, (max({rank}) & {2**ROW_BITS - 1}::UHUGEINT)::BIGINT AS place "
            f"FROM ({rows}) JOIN ({history}) USING ({using}) "
            f"WHERE e <= t AND e >= t - {TTL_US}{known} GROUP BY {ROW_ID}"
        )


def _fetch(connection: duckdb.DuckDBPyConnection, view: int, path: str) -> None:
    connection.execute(
        f"CREATE TEMP TABLE answer_{view} AS SELECT {ROW_ID}, {', '.join(feature_names(view))} "
        f"FROM read_parquet('{path}', file_row_number = true) JOIN matched ON file_row_number = place"
    )


def prepare(task: Task) -> HandSql:
    """Returns the contender, ready to run."""
    return HandSql(task, None if task.is_entity_path else pq.read_table(task.entities))
