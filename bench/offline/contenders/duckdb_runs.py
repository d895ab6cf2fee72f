"""What the contenders written in DuckDB's SQL share: a fresh connection for each run, and where the answer goes."""

from pathlib import Path

import duckdb
import pyarrow as pa

from bench.offline.contenders import Answer
from bench.offline.task import Task


def connect(task: Task, entities: pa.Table | None) -> duckdb.DuckDBPyConnection:
    """Returns a connection in which `entities` names the entity rows.

    Args:
        entities: the rows in memory, None for the task's file.
    """
    connection = duckdb.connect()
    connection.execute(f"SET threads = {task.threads}")
    # Lets a join of up to so many rows prune the other side's scan by value; 50 by default.
    connection.execute("SET dynamic_or_filter_threshold = 5000")
    if task.memory_limit:
        connection.execute(f"SET memory_limit = '{task.memory_limit}'")
        connection.execute(f"SET temp_directory = '{task.folder}'")
    if entities is None:
        connection.execute(f"CREATE VIEW entities AS FROM read_parquet('{task.entities}')")
    else:
        connection.register("entities", entities)
    return connection


def answer(connection: duckdb.DuckDBPyConnection, sql: str, output: str | None) -> Answer:
    """Returns the rows of a SELECT as a table, or the file that they were written to."""
    if output is None:
        return connection.sql(sql).to_arrow_table()
    connection.execute(f"COPY ({sql}) TO '{output}' (FORMAT parquet)")
    return Path(output)
