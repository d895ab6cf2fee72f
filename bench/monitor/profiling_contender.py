"""The process of one contender that profiles: it prepares, then runs whenever the parent says so.

Protocol, one line each way: the task as JSON, answered by `{}`; then `run`, answered by the measurement and by what was
found of each feature: count, nulls, min, max, mean, sd, and how many numbers lie in all buckets together.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from bench.monitor.profiling_data import DAY_US, DAYS, EVENT, KEY, START_US
from bench.usage import cpu_seconds, peak_bytes

Found = Mapping[str, Mapping[str, Any]]
_VIEW = "measured"


@dataclass(frozen=True, slots=True)
class Task:
    """What one contender is asked to do; `features` are the columns of the file to profile."""

    contender: str
    file: str
    features: list[str]
    threads: int
    scratch: str


def larder(task: Task) -> Callable[[], Found]:
    """Returns what `larder monitor profile` does with a view for a stretch of time, the kept file included."""
    from store.monitor.due import Asked
    from store.monitor.profiling import Profiler
    from store.monitor.subjects import Subject, SubjectKind

    settings = {"type": "store.offline.DuckDBOfflineStore", "threads": task.threads}
    profiler = Profiler(_store(task, settings), Path(task.scratch))
    asked = Asked(START_US, START_US + DAYS * DAY_US, 100_000 * DAY_US)

    def run() -> Found:
        outcome = profiler.run(Subject(SubjectKind.FEATURE_VIEW, _VIEW), asked)
        [profile] = outcome.profiles
        return {name: _of_column(column) for name, column in profile.columns.items()}

    return run


def _of_column(column: Any) -> dict[str, Any]:
    numbers = column.numbers
    shared = {"count": column.rows - column.nulls, "nulls": column.nulls}
    if numbers is None:
        return shared
    return shared | {
        "min": numbers.least,
        "max": numbers.greatest,
        "mean": numbers.mean,
        "sd": numbers.standard_deviation,
        "buckets": numbers.finite,
    }


def _store(task: Task, settings: Mapping[str, Any]) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64, Int32, Int64, String
    from feast.value_type import ValueType

    kinds = {pa.float64(): Float64, pa.int32(): Int32, pa.int64(): Int64, pa.string(): String}
    folder = Path(task.scratch)
    config = RepoConfig(
        project="bench",
        provider="local",
        registry={"path": str(folder / "registry.db")},
        offline_store=dict(settings),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    schema = pq.read_schema(task.file)
    user = Entity(name="user", join_keys=[KEY], value_type=ValueType.INT64)
    view = FeatureView(
        name=_VIEW,
        entities=[user],
        schema=[Field(name=KEY, dtype=Int64)]
        + [Field(name=name, dtype=kinds[schema.field(name).type]) for name in task.features],
        source=FileSource(name="rows", path=task.file, timestamp_field=EVENT),
    )
    store = FeatureStore(config=config)
    store.apply([user, view])
    return store


def feast(task: Task) -> Callable[[], Found]:
    """Returns what `feast monitor run` does with a view for the same stretch of time, one granularity."""
    from feast.monitoring.monitoring_service import MonitoringService

    service = MonitoringService(_store(task, {"type": "duckdb"}))
    start = datetime.fromtimestamp(START_US // 1_000_000, UTC).date()
    end = datetime.fromtimestamp((START_US + (DAYS - 1) * DAY_US) // 1_000_000, UTC).date()

    def run() -> Found:
        service.compute_metrics("bench", _VIEW, start_date=start, end_date=end, granularity="daily")
        rows = service.get_feature_metrics("bench", feature_view_name=_VIEW)
        return {row["feature_name"]: _of_row(row) for row in rows}

    return run


def _of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    shared = {"count": row["row_count"] - row["null_count"], "nulls": row["null_count"]}
    if row["feature_type"] != "numeric":
        return shared
    return shared | {"min": row["min_val"], "max": row["max_val"], "mean": row["mean"], "sd": row["stddev"]}


def select(task: Task) -> Callable[[], Found]:
    """Returns the baseline: basic statistics and a histogram of log buckets of each column, in one SELECT."""
    import duckdb

    schema = pq.read_schema(task.file)
    parts: list[str] = []
    for name in task.features:
        parts += _text_parts(name) if pat.is_string(schema.field(name).type) else _number_parts(name)
    sql = f"SELECT count(*), {', '.join(parts)} FROM read_parquet('{task.file}')"

    def run() -> Found:
        with duckdb.connect() as connection:
            connection.execute(f"SET threads = {task.threads}")
            connection.execute("SET preserve_insertion_order = false")
            [row] = connection.sql(sql).fetchall()
        rows, found = row[0], {}
        values = iter(row[1:])
        for name in task.features:
            count = next(values)
            shared = {"count": count, "nulls": rows - count}
            if pat.is_string(schema.field(name).type):
                _ = [next(values) for _ in range(5)]
                found[name] = shared
                continue
            low, high, mean, deviation, _, buckets = (next(values) for _ in range(6))
            found[name] = shared | {
                "min": low, "max": high, "mean": mean, "sd": deviation, "buckets": sum(buckets.values())
            }  # fmt: skip
        return found

    return run


def _number_parts(name: str) -> list[str]:
    # 64 buckets to each doubling, negative ones below and zero by itself, as integers.
    magnitude = f"floor(64 * log2(abs({name}))) + 70000"
    bucket = f"CASE WHEN {name} = 0 THEN 0 ELSE CAST(sign({name}) * ({magnitude}) AS INTEGER) END"
    return [
        f"count({name})", f"min({name})", f"max({name})", f"avg({name})", f"stddev_samp({name})",
        f"approx_count_distinct({name})", f"histogram({bucket})",
    ]  # fmt: skip


def _text_parts(name: str) -> list[str]:
    return [
        f"count({name})", f"approx_count_distinct({name})", f"approx_top_k({name}, 20)", f"min(length({name}))",
        f"max(length({name}))", f"avg(length({name}))",
    ]  # fmt: skip


CONTENDERS = {"larder": larder, "select": select, "feast": feast}


def main() -> None:
    """Serves one parent until it closes the pipe."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        task = Task(**json.loads(sys.stdin.readline()))
        pa.set_cpu_count(task.threads)
        run = CONTENDERS[task.contender](task)
        print("{}", file=out, flush=True)
        for _ in sys.stdin:
            cpu, start = cpu_seconds(), time.perf_counter()
            found = run()
            reply = {"wall_s": time.perf_counter() - start, "cpu_s": cpu_seconds() - cpu, "peak_bytes": peak_bytes()}
            print(json.dumps(reply | {"found": found}, default=float), file=out, flush=True)


if __name__ == "__main__":
    main()
