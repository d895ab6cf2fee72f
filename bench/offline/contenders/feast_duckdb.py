"""Feast's own DuckDB store, as `feast[duckdb]` installs it."""

import warnings
from importlib.metadata import version

import ibis

from bench.offline.contenders import Answer
from bench.offline.contenders.feast_repo import FeastContender, feast_contender
from bench.offline.task import Task


class FeastDuckDB(FeastContender):
    """A retrieval by Feast, without the warnings of the libraries under it."""

    def run(self) -> Answer:
        """Returns what `get_historical_features` answers."""
        with warnings.catch_warnings():
            # Ibis calls names of DuckDB that version 2 calls old.
            warnings.simplefilter("ignore")
            return super().run()


def prepare(task: Task) -> FeastContender:
    """Returns the contender, ready to run."""
    settings: dict[str, int | str] = {"threads": task.threads}
    if task.memory_limit:
        settings |= {"memory_limit": task.memory_limit, "temp_directory": str(task.folder)}
    # Feast works on Ibis's default backend and has no setting for it.
    ibis.set_backend(ibis.duckdb.connect(**settings))
    versions = {name: version(name) for name in ("feast", "ibis-framework", "duckdb", "pyarrow")}
    plain = feast_contender(task, {"type": "duckdb"}, versions, keeps_order=False)
    return FeastDuckDB(plain.task, plain.store, plain.entity_df, plain.keeps_order, plain.versions)
