"""The process of one contender of the training part: it prepares, then runs whenever the parent says so.

Protocol, one line each way: the task as JSON, answered by `{}`; then `run`, answered by the measurement. With `sample`
after it, the answers to the row ids of the task come along.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.offline.shapes import EVENT, KEY, ROW_ID
from bench.usage import cpu_seconds, peak_bytes
from bench.windows.training_data import AGGREGATES, VALUE

_VIEW = "spending"


@dataclass(frozen=True, slots=True)
class Task:
    """What one contender is asked to do.

    Attributes:
        windows: windows and hops in microseconds.
        sample: row ids whose answers are compared.
    """

    contender: str
    events: str
    entities: str
    windows: list[list[int]]
    threads: int
    memory_limit: str | None
    scratch: str
    sample: list[int]


def larder(task: Task) -> Callable[[], pa.Table]:
    """Returns the retrieval through Feast's own FeatureStore."""
    from feast import BatchFeatureView, Entity, FeatureStore, Field, FileSource, RepoConfig
    from feast.aggregation import Aggregation
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    folder = Path(task.scratch)
    settings: dict[str, Any] = {"type": "store.offline.DuckDBOfflineStore", "threads": task.threads}
    if task.memory_limit:
        settings |= {"memory_limit": task.memory_limit, "spill_folder": str(folder)}
    config = RepoConfig(
        project="bench",
        provider="local",
        registry={"path": str(folder / "registry.db")},
        offline_store=settings,
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    names = _names(task)
    kinds = {"count": Int64}
    aggregations = [
        Aggregation(
            column=VALUE,
            function=function,
            time_window=timedelta(microseconds=window_us),
            slide_interval=timedelta(microseconds=hop_us),
            name=f"{function}_{place}",
        )
        for place, (window_us, hop_us) in enumerate(task.windows)
        for function in AGGREGATES
    ]
    view = BatchFeatureView(
        name=_VIEW,
        entities=[Entity(name="user", join_keys=[KEY], value_type=ValueType.INT64)],
        online=True,
        schema=[Field(name=KEY, dtype=Int64)]
        + [Field(name=name, dtype=kinds.get(name.split("_")[0], Float64)) for name in names],
        source=FileSource(name="events", path=task.events, timestamp_field=EVENT),
        aggregations=aggregations,
    )
    store = FeatureStore(config=config)
    store.apply([Entity(name="user", join_keys=[KEY], value_type=ValueType.INT64), view])
    entities = pq.read_table(task.entities)
    features = [f"{_VIEW}:{name}" for name in names]
    return lambda: store.get_historical_features(entity_df=entities, features=features).to_arrow()


def constant_range(task: Task) -> Callable[[], pa.Table]:
    """Returns the baseline: a frame of constant width, so without hops, over events and entity rows together."""
    frames, columns = [], []
    for place, (window_us, _) in enumerate(task.windows):
        frames.append(f"w{place} AS (PARTITION BY k ORDER BY us RANGE BETWEEN {window_us} PRECEDING AND CURRENT ROW)")
        columns += [f"{function}(v) OVER w{place} AS {function}_{place}" for function in AGGREGATES]
    rows = (
        f"SELECT NULL::BIGINT AS id, {KEY} AS k, epoch_us({EVENT}) AS us, {VALUE} AS v FROM '{task.events}' "
        f"UNION ALL SELECT {ROW_ID}, {KEY}, epoch_us({EVENT}), NULL FROM '{task.entities}'"
    )
    sql = (
        f"SELECT id AS {ROW_ID}, k AS {KEY}, make_timestamp(us) AS {EVENT}, {', '.join(_names(task))} FROM "
        f"(SELECT id, k, us, {', '.join(columns)} FROM ({rows}) WINDOW {', '.join(frames)}) WHERE id IS NOT NULL"
    )

    def run() -> pa.Table:
        with duckdb.connect() as connection:
            connection.execute(f"SET threads = {task.threads}")
            connection.execute("SET preserve_insertion_order = false")
            connection.execute(f"SET temp_directory = '{task.scratch}'")
            if task.memory_limit:
                connection.execute(f"SET memory_limit = '{task.memory_limit}'")
            return connection.sql(sql).to_arrow_table()

    return run


CONTENDERS = {"larder": larder, "range": constant_range}


def _names(task: Task) -> list[str]:
    return [f"{function}_{place}" for place in range(len(task.windows)) for function in AGGREGATES]


def main() -> None:
    """Serves one parent until it closes the pipe."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        task = Task(**json.loads(sys.stdin.readline()))
        pa.set_cpu_count(task.threads)
        run = CONTENDERS[task.contender](task)
        print("{}", file=out, flush=True)
        for line in sys.stdin:
            cpu, start = cpu_seconds(), time.perf_counter()
            answer = run()
            reply: dict[str, Any] = {"wall_s": time.perf_counter() - start, "cpu_s": cpu_seconds() - cpu}
            reply |= {"peak_bytes": peak_bytes(), "rows": answer.num_rows}
            if "sample" in line:
                some = answer.filter(pc.is_in(answer.column(ROW_ID), pa.array(task.sample)))
                columns = [some.column(name).to_pylist() for name in _names(task)]
                reply["sample"] = list(zip(some.column(ROW_ID).to_pylist(), zip(*columns, strict=True), strict=True))
            del answer
            print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
