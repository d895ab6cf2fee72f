"""The contenders: each in a module of its own, so that a process imports only the one that it measures."""

import importlib
from pathlib import Path
from typing import Protocol, TypeAlias

import pyarrow as pa

from bench.offline.task import Task

Answer: TypeAlias = pa.Table | Path


class Contender(Protocol):
    """One way to make a training set."""

    keeps_order: bool
    """Whether the answer comes in the order of the entity rows; otherwise it is sorted before it is compared."""

    versions: dict[str, str]
    """The packages that do the work."""

    def run(self) -> Answer:
        """Returns the answer as a table, or the file that it was written to if the task names one."""


MODULES = {
    "larder": "larder",
    "feast": "feast_duckdb",
    "polars": "polars_join",
    "sql": "hand_sql",
    "plain": "plain_asof",
}

TITLES = {
    "larder": "Larder",
    "feast": "Feast's DuckDB store",
    "polars": "Polars join_asof",
    "sql": "hand-written DuckDB SQL",
    "plain": "plain ASOF JOIN",
}


def prepared(task: Task) -> Contender:
    """Returns the task's contender, imported and with its inputs loaded, so that `run` is what is timed."""
    module = importlib.import_module(f"{__name__}.{MODULES[task.contender]}")
    contender: Contender = module.prepare(task)
    return contender
