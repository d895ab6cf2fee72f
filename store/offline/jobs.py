"""What Feast gets back from the offline store: an answer that runs when it is asked for."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
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
from store.files import is_disk_full, publish
from store.offline.digest import TableDigest
from store.offline.manifest import MANIFEST_KEY, manifest_of
from store.offline.on_demand import BatchedOnDemandView
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
        on_demand_feature_views: Sequence[OnDemandFeatureView | BatchedOnDemandView] = (),
        full_feature_names: bool = False,
        metadata: RetrievalMetadata | None = None,
        inputs: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Keeps what Feast's base class asks for.

        Args:
            inputs: returns what the answer is about to be made of, for its manifest.
        """
        self._answer = answer
        self._config = config
        self._on_demand_feature_views = [
            view if isinstance(view, BatchedOnDemandView) else BatchedOnDemandView(view)
            for view in on_demand_feature_views
        ]
        self._full_feature_names = full_feature_names
        self._metadata = metadata
        self._inputs = inputs

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's interface
        return self._answer.table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:  # noqa: ARG002 - Feast's interface
        frame: pd.DataFrame = self._answer.table().to_pandas()
        return frame

    def to_arrow_batches(self, rows_max: int = PERSIST_BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yields the answer in order, on-demand features included, in batches of at most `rows_max` rows.

        The whole answer is never in memory. A stream that is left early ends the retrieval.

        Shapes: at least one batch, which is empty if there are no rows; all have the same schema.
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
        return self._on_demand_feature_views  # type: ignore[return-value]  # they stand in for Feast's

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Returns what was asked for: features, keys, and the range of times."""
        return self._metadata

    def to_sql(self) -> str:
        """Returns the statements that run inside DuckDB, with notes on what happens between them."""
        return self._answer.sql

    def manifest(self) -> dict[str, Any]:
        """Runs the retrieval, keeps nothing of it, and returns its manifest (see `store.offline.read_manifest`)."""
        inputs, digest = self._inputs(), None
        row_count, schema = 0, pa.schema([])
        for batch in self.to_arrow_batches():
            digest = digest or TableDigest(batch.schema)
            digest.add(batch)
            row_count, schema = row_count + batch.num_rows, batch.schema
        assert digest is not None, "an answer has at least one batch"
        return manifest_of(inputs, schema, row_count, digest.hexdigest())

    def to_parquet(self, path: str | Path, *, allow_overwrite: bool = False) -> dict[str, Any]:
        """Writes the answer as one Parquet file, whole or not at all, with its manifest in it, and returns that.

        The whole answer is never in memory.

        Args:
            path: of the file; a relative one is taken from the repo folder.

        Raises:
            SavedDatasetLocationAlreadyExists: the file is there and may not be overwritten, or is a folder.
            OutOfSpace: no room; an earlier file then stays as it was.
        """
        target = Path(resolve_path(self._config, str(path)))
        if target.is_dir() or (target.exists() and not allow_overwrite):
            raise SavedDatasetLocationAlreadyExists(location=str(target))
        return write_training_set(target, self._inputs(), self.to_arrow_batches())

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,  # noqa: ARG002 - part of Feast's interface
    ) -> None:
        """Writes the answer as `to_parquet` does.

        Raises:
            SavedDatasetLocationAlreadyExists: the file is there and may not be overwritten, or is a folder.
            OutOfSpace: no room; an earlier file then stays as it was.
        """
        path = file_source(storage.to_data_source(), "saved dataset").path
        self.to_parquet(path, allow_overwrite=allow_overwrite)


class _Held:
    """An answer that is one batch already in memory."""

    sql = ""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def table(self) -> pa.Table:
        return pa.Table.from_batches([self._batch])

    def batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - it was cut to size before
        yield self._batch


def write_training_set(path: Path, inputs: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
    """Writes batches of one schema as a Parquet file, under its final name only when it is whole and synced.

    Returns the manifest, which stands in the file's footer.

    Raises:
        OutOfSpace: no room; nothing half-written stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            manifest = _write_batches(file, inputs, batches)
            file.flush()
            os.fsync(file.fileno())
        # A scratch file is private; the finished one has the permissions that any new file would have.
        scratch.chmod(0o666 & ~_umask())
        publish(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        if is_disk_full(error):
            raise OutOfSpace(f"no room to write {str(path)!r}; free some, nothing was written") from error
        raise
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return manifest


def _write_batches(file: Any, inputs: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
    first = next(batches)
    digest, row_count = TableDigest(first.schema), 0
    with pq.ParquetWriter(file, first.schema) as writer:
        batch: pa.RecordBatch | None = first
        while batch is not None:
            writer.write_batch(batch)
            digest.add(batch)
            row_count += batch.num_rows
            batch = next(batches, None)
        manifest = manifest_of(inputs, first.schema, row_count, digest.hexdigest())
        writer.add_key_value_metadata({MANIFEST_KEY: json.dumps(manifest)})
    return manifest


def _umask() -> int:
    """Returns the process's file mode mask without changing it (the only portable call would, for a moment)."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
