"""Larder, through Feast's own FeatureStore."""

from importlib.metadata import version

from bench.offline.contenders.feast_repo import FeastContender, feast_contender
from bench.offline.task import Task


def prepare(task: Task) -> FeastContender:
    """Returns the contender, ready to run."""
    settings = {"type": "store.offline.DuckDBOfflineStore", "threads": task.threads}
    if task.memory_limit:
        settings |= {"memory_limit": task.memory_limit, "spill_folder": str(task.folder)}
    versions = {name: version(name) for name in ("larder", "feast", "duckdb", "pyarrow")}
    return feast_contender(task, settings, versions, keeps_order=True)
