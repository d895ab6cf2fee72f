"""DuckDB's ASOF JOIN as its documentation shows it: all columns go through the sort. It leaves ties open."""

from dataclasses import dataclass, field
from importlib.metadata import version

import pyarrow as pa
import pyarrow.parquet as pq

from bench.offline.contenders import Answer
from bench.offline.contenders.duckdb_runs import answer, connect
from bench.offline.shapes import EVENT, KEY, ROW_ID, TTL_DAYS, feature_names
from bench.offline.task import Task


@dataclass
class PlainAsof:
    """One ASOF JOIN per view in one statement."""

    task: Task
    entities: pa.Table | None
    keeps_order: bool = True
    versions: dict[str, str] = field(default_factory=lambda: {"duckdb": version("duckdb")})

    def run(self) -> Answer:
        """Returns the answer in the order of the entity rows."""
        columns, joins = [], []
        for view, path in enumerate(self.task.history):
            names = feature_names(view)
            side = f"SELECT {KEY}, {EVENT} AS e, {', '.join(names)} FROM read_parquet('{path}')"
            joins.append(f"ASOF LEFT JOIN ({side}) h{view} ON q.{KEY} = h{view}.{KEY} AND q.{EVENT} >= h{view}.e")
            fresh = f"h{view}.e >= q.{EVENT} - INTERVAL {TTL_DAYS} DAY"
            columns += [f"CASE WHEN {fresh} THEN h{view}.{name} END AS {name}" for name in names]
        entities = f"q.{ROW_ID}, q.{KEY}, q.{EVENT}"
        sql = f"SELECT {entities}, {', '.join(columns)} FROM entities q {' '.join(joins)} ORDER BY q.{ROW_ID}"
        with connect(self.task, self.entities) as connection:
            return answer(connection, sql, self.task.output)


def prepare(task: Task) -> PlainAsof:
    """Returns the contender, ready to run."""
    return PlainAsof(task, None if task.is_entity_path else pq.read_table(task.entities))
