"""What Feast gets back from the offline store: an answer that runs when it is asked for."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
from feast.data_format import DeltaFormat
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage

from store.errors import InputError
from store.offline.on_demand import BatchedOnDemandView
from store.offline.saved import DescribedBatches, save_as_parquet
from store.offline.saved_delta import save_as_delta
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

        Raises:
            InputError: `rows_max` is below 1.
        """
        if rows_max < 1:
            raise InputError(f"rows_max is {rows_max!r}, expected at least 1; leave it out for {PERSIST_BATCH_ROWS}")
        return self._batches(rows_max)

    def _batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:
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
        described = self._described()
        for _ in described:
            pass
        return described.manifest()

    def to_parquet(self, path: str | Path, *, allow_overwrite: bool = False) -> dict[str, Any]:
        """Writes the answer as one Parquet file, whole or not at all, with its manifest in it, and returns that.

        The whole answer is never in memory.

        Args:
            path: of the file, or of a folder that is there: it is `training_set.parquet` in it then. A relative one is
                taken from the repo folder.

        Raises:
            SavedDatasetLocationAlreadyExists: the file is there and may not be overwritten, or the folder has others.
            OutOfSpace: no room; an earlier file then stays as it was.
        """
        target = Path(resolve_path(self._config, str(path)))
        return save_as_parquet(target, self._described(), allow_overwrite=allow_overwrite)

    def to_delta(self, path: str | Path, *, allow_overwrite: bool = False) -> dict[str, Any]:
        """Writes the answer as the one content of a Delta table, by one commit, and returns its manifest.

        The whole answer is never in memory. Earlier versions of the table stay in its log.

        Args:
            path: of the table's folder; a relative one is taken from the repo folder.

        Raises:
            SavedDatasetLocationAlreadyExists: the table is there and may not be overwritten, or something else is.
            SourceUnreadable: the table that is there cannot be read.
            DefinitionError: the `deltalake` package is missing, or reads the path as another one.
            WrongType: a column or value that no Delta table can hold.
            OutOfSpace: no room; an earlier version then stays as it was.
            OfflineStoreError: the commit failed, as it does when another writer was faster.
        """
        target = Path(resolve_path(self._config, str(path)))
        return save_as_delta(target, self._described(), allow_overwrite=allow_overwrite)

    def _described(self) -> DescribedBatches:
        return DescribedBatches(self._inputs(), self.to_arrow_batches())

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,  # noqa: ARG002 - part of Feast's interface
    ) -> None:
        """Writes the answer as `to_parquet` does, or as `to_delta` does where the storage's format is Delta.

        Raises:
            SavedDatasetLocationAlreadyExists: the place is taken.
            LarderError: what `to_parquet` and `to_delta` raise.
        """
        destination = file_source(storage.to_data_source(), "saved dataset")
        save = self.to_delta if isinstance(destination.file_format, DeltaFormat) else self.to_parquet
        save(destination.path, allow_overwrite=allow_overwrite)


class _Held:
    """An answer that is one batch already in memory."""

    sql = ""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def table(self) -> pa.Table:
        return pa.Table.from_batches([self._batch])

    def batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - it was cut to size before
        yield self._batch
