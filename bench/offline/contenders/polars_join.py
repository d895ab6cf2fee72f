"""Polars' `join_asof` as its user would write it for these files."""

from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from typing import Literal

import polars as pl

from bench.offline.contenders import Answer
from bench.offline.shapes import EVENT, KEY, ROW_ID, TTL_DAYS, feature_names
from bench.offline.task import Task


@dataclass
class PolarsJoin:
    """One lazy query: the entity rows sorted by time, joined to each view's files as they lie, and put back in order.

    The files are sorted by event time, as `join_asof` wants them, so they are declared sorted and never sorted.
    Features ride along: joining row numbers first and gathering features afterwards took 1.2 to 1.5 times as long.
    """

    task: Task
    entities: pl.LazyFrame
    engine: Literal["streaming", "in-memory"]
    keeps_order: bool = True
    versions: dict[str, str] = field(default_factory=lambda: {"polars": version("polars")})

    def run(self) -> Answer:
        """Returns the answer, converted to Arrow without a copy where Polars can."""
        query = self.entities.sort(EVENT)
        for view, path in enumerate(self.task.history):
            rows = pl.scan_parquet(path).select(KEY, EVENT, *feature_names(view))
            query = query.join_asof(
                rows.with_columns(pl.col(EVENT).set_sorted()),
                on=EVENT,
                by=KEY,
                tolerance=timedelta(days=TTL_DAYS),
                # With `by`, Polars cannot check this cheaply and would warn.
                check_sortedness=False,
            )
        return query.sort(ROW_ID).collect(engine=self.engine).to_arrow()


def prepare(task: Task) -> PolarsJoin:
    """Returns the contender, ready to run."""
    # Each engine where it was the faster one: streaming for short histories of many keys, else in memory.
    engine: Literal["streaming", "in-memory"] = "streaming" if task.bucket_us is None else "in-memory"
    return PolarsJoin(task, pl.read_parquet(task.entities).lazy(), engine)
