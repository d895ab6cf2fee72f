"""What Feast gets back from the offline store: an answer that runs when it is asked for."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage

from store.errors import OutOfSpace
from store.files import publish
from store.offline.sources import file_source, resolve_path

PERSIST_BATCH_ROWS = 100_000
"""Rows written together as one row group: large enough to compress, small enough to hold."""


class Answer(Protocol):
    """An answer that is ready to run, as often as it is asked for."""

    @property
    def sql(self) -> str:
        """Returns what runs inside DuckDB, as text."""

    def table(self) -> pa.Table:
        """Returns the answer whole."""

    def batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:
        """Yields the answer in order, in batches of at most `rows_max` rows; at least one, if an empty one."""


class LarderRetrievalJob(RetrievalJob):
    """A retrieval whose checks are done and whose work is not: each call of a `to_...` method runs it."""

    def __init__(
        self,
        answer: Answer,
        config: RepoConfig,
        *,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        full_feature_names: bool = False,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        """Keeps what Feast's base class asks for."""
        self._answer = answer
        self._config = config
        self._on_demand_feature_views = on_demand_feature_views or []
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's interface
        return self._answer.table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:  # noqa: ARG002 - Feast's interface
        frame: pd.DataFrame = self._answer.table().to_pandas()
        return frame

    def to_arrow_batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:
        """Yields the answer in order, on-demand features included, in batches of at most `rows_max` rows.

        Shapes: at least one batch, which is empty if there are no rows. On-demand views are applied batch by batch:
        they are row-wise by contract.
        """
        for batch in self._answer.batches(rows_max):
            if not self._on_demand_feature_views:
                yield batch
                continue
            whole = self._of_one_batch(batch).to_arrow().combine_chunks()
            yield from whole.to_batches() or [pa.RecordBatch.from_pylist([], schema=whole.schema)]

    def _of_one_batch(self, batch: pa.RecordBatch) -> "LarderRetrievalJob":
        return LarderRetrievalJob(
            _Held(batch),
            self._config,
            on_demand_feature_views=self._on_demand_feature_views,
            full_feature_names=self._full_feature_names,
            metadata=self._metadata,
        )

    @property
    def full_feature_names(self) -> bool:
        """Whether features are called `view__feature` in the answer."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Returns the on-demand views to apply to the answer."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Returns what was asked for: features, keys, and the range of times."""
        return self._metadata

    def to_sql(self) -> str:
        """Returns the statements that run inside DuckDB."""
        return self._answer.sql

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,  # noqa: ARG002 - part of Feast's interface
    ) -> None:
        """Writes the answer to one Parquet file, which is whole or not there.

        Raises:
            SavedDatasetLocationAlreadyExists: the file is there and may not be overwritten, or is a folder.
            OutOfSpace: no room; an earlier file then stays as it was.
        """
        path = Path(resolve_path(self._config, file_source(storage.to_data_source(), "saved dataset").path))
        if path.is_dir() or (path.exists() and not allow_overwrite):
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        if self._on_demand_feature_views:
            # Their output types may depend on the rows (a batch of nulls has none), so they run on the whole.
            write_parquet(path, iter(self.to_arrow().to_batches(max_chunksize=PERSIST_BATCH_ROWS)))
        else:
            write_parquet(path, self._answer.batches(PERSIST_BATCH_ROWS))


class _Held:
    """An answer that is one batch already in memory."""

    sql = ""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def table(self) -> pa.Table:
        return pa.Table.from_batches([self._batch])

    def batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - it was cut to size before
        yield self._batch


def write_parquet(path: Path, batches: Iterator[pa.RecordBatch]) -> None:
    """Writes batches of one schema as a Parquet file under its final name only when it is whole and synced.

    Raises:
        OutOfSpace: no room; nothing half-written stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write_batches(file, batches)
            file.flush()
            os.fsync(file.fileno())
        # A scratch file is private; the finished one has the permissions that any new file would have.
        scratch.chmod(0o666 & ~_umask())
        publish(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"no room to write {str(path)!r}; free some, nothing was written") from error
        raise
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _write_batches(file: Any, batches: Iterator[pa.RecordBatch]) -> None:
    first = next(batches, None)
    if first is None:
        first = pa.RecordBatch.from_pylist([], schema=pa.schema([]))
    with pq.ParquetWriter(file, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _umask() -> int:
    """Returns the process's file mode mask without changing it (the only portable call would, for a moment)."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
