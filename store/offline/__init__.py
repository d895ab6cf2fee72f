"""The offline store: exact training sets from Parquet through DuckDB, as a Feast plug-in.

Feast finds the configuration class by the module of the store class, so both are defined here.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import Field, StrictStr, field_validator

from store.batch_aggregations import keep_aggregations
from store.clock import from_us, to_us
from store.definitions_from_feast import batch_source_of
from store.errors import DefinitionError, EntityRowsError, MissingJoinKey
from store.limits import RETRIEVAL_THREADS_MAX, SERVED_LOG_DAYS_MAX
from store.offline.budget import bytes_of
from store.offline.entity_rows import EntityRows, entity_rows
from store.offline.jobs import LarderRetrievalJob
from store.offline.landing import append_file, land_rows, read_logs
from store.offline.latest import all_rows_answer, newest_answer
from store.offline.manifest import inputs_of, read_manifest
from store.offline.on_demand import BatchedOnDemandView, added_columns
from store.offline.range_rows import rows_between
from store.offline.requested import plan_histories, requested_view
from store.offline.retrieval import HistoricalAnswer
from store.offline.settings import settings_of
from store.offline.source_columns import NeededColumns, needed_columns, scan_of
from store.offline.sources import file_source, open_source, resolve_path
from store.transformations_from_feast import keep_transformations

keep_aggregations()
keep_transformations()

__all__ = ["DuckDBOfflineStore", "DuckDBOfflineStoreConfig", "read_manifest"]


class DuckDBOfflineStoreConfig(FeastConfigBaseModel):
    """Settings under `offline_store:` in feature_store.yaml."""

    type: StrictStr = "store.offline.DuckDBOfflineStore"
    """How Feast finds this plug-in."""

    threads: Annotated[int, Field(ge=1, le=RETRIEVAL_THREADS_MAX, strict=True)] | None = None
    """Threads of one retrieval, at most 256; all cores by default."""

    memory_limit: StrictStr | None = None
    """Memory of one retrieval, such as `4GB`, beyond which it spills to disk; 80 % of the machine's by default."""

    spill_folder: StrictStr | None = None
    """Where it spills; the system's temporary folder by default. Relative paths are taken from the repo folder."""

    served_log_days: Annotated[int, Field(ge=1, le=SERVED_LOG_DAYS_MAX, strict=True)] = 30
    """For how many days served vectors are kept, where a feature service declares that they are logged."""

    @field_validator("memory_limit")
    @classmethod
    def _check_memory_limit(cls, value: str | None) -> str | None:
        if value is not None:
            bytes_of(value)
        return value


class DuckDBOfflineStore(OfflineStore):
    """Point-in-time retrieval and landing over Parquet files.

    Source: the semantics are section 3.1 of the design; the interface is Feast's `OfflineStore`.
    """

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(  # noqa: PLR0913, PLR0917 - the signature is Feast's
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Returns the retrieval of features as they were at the time of each entity row, checked and ready to run.

        Args:
            entity_df: a pandas DataFrame, an Arrow table or reader of batches, the path of a Parquet file, folder or
                glob, or the text of one SELECT of DuckDB's. None for one row per distinct key and event time that the
                feature views have from `start_date` to `end_date`.
            start_date: first event time, inclusive; only without `entity_df`, and then needed.
            end_date: last event time, inclusive; the clock's time if there is none.

        Raises:
            InputError: the entity rows do not fit the features.
            SourceError: a source is not there, or lacks a column.
        """
        settings = settings_of(config)
        views = [requested_view(view, feature_refs, full_feature_names) for view in feature_views]
        if entity_df is None:
            rows = rows_between(config, views, settings, start_date, end_date)
        elif start_date is not None or end_date is not None:
            raise EntityRowsError(
                "entity rows and start_date/end_date were both given; leave one out: the rows have their own times"
            )
        else:
            rows = entity_rows(entity_df, config, settings)
        on_demand = [
            BatchedOnDemandView(view)
            for view in OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        ]
        _require_request_data(rows, on_demand)
        added = added_columns(on_demand, feature_refs, has_full_names=full_feature_names)
        histories = plan_histories(config, views, rows, added, is_cut_by_created=filter_by_created_timestamp)
        request = {
            "features": list(feature_refs),
            "full_feature_names": full_feature_names,
            "filter_by_created_timestamp": filter_by_created_timestamp,
        }
        return LarderRetrievalJob(
            HistoricalAnswer(rows, histories, settings),
            config,
            on_demand_feature_views=on_demand,
            full_feature_names=full_feature_names,
            metadata=_metadata(rows, feature_refs),
            inputs=lambda: inputs_of(config, rows.schema, histories, on_demand, request),
        )

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0913, PLR0917 - the signature is Feast's
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Returns the newest row per key with start_date <= event time <= end_date, by names in the file.

        Rows with a null in the key are left out: no lookup can ask for them.
        """
        owner = f"source {data_source.name!r}"
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        needed = NeededColumns(
            owner, tuple(join_key_columns), timestamp_field, created_timestamp_column or None, _distinct(columns)
        )
        answer = newest_answer(config, file_source(data_source, owner), needed, _interval(start_date, end_date))
        return LarderRetrievalJob(answer, config)

    @staticmethod
    def pull_all_from_table_or_query(  # noqa: PLR0913, PLR0917 - the signature is Feast's
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Returns all rows with start_date <= event time <= end_date, in source order, by names in the file."""
        owner = f"source {data_source.name!r}"
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        needed = NeededColumns(owner, (), timestamp_field, created_timestamp_column or None, _distinct(columns))
        answer = all_rows_answer(config, file_source(data_source, owner), needed, _interval(start_date, end_date))
        return LarderRetrievalJob(answer, config)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Lands rows as one new file of the view's batch source; they are part of it from then on.

        Raises:
            PushedRowsError: the columns are not those of the source, or a value does not fit; nothing was written.
        """
        source = file_source(batch_source_of(feature_view), f"feature view {feature_view.name!r}")
        land_rows(config, source, table)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,  # noqa: ARG004 - part of Feast's interface
        logging_config: LoggingConfig,
        registry: BaseRegistry,  # noqa: ARG004 - part of Feast's interface
    ) -> None:
        """Appends logged features to their destination as one new file of its folder.

        Raises:
            DefinitionError: the destination is not a folder of files.
        """
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise DefinitionError(
                f"logging destination is a {type(destination).__name__}, expected a FileLoggingDestination"
            )
        table = data if isinstance(data, pa.Table) else read_logs(Path(data))
        append_file(config, Path(resolve_path(config, destination.path)), table)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Checks that a source's files are there and hold its timestamp columns.

        Raises:
            SourceError: they are not, or do not.
        """
        owner = f"source {data_source.name!r}"
        source = file_source(data_source, owner)
        found = open_source(config, source)
        if source.timestamp_field:
            scan_of(found, needed_columns(owner, source, found, (), ()))

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Returns the names of a source's columns in the file and their Arrow types, in file order."""
        schema = open_source(config, file_source(data_source, f"source {data_source.name!r}")).schema
        return [(field.name, str(field.type)) for field in schema]


def _require_request_data(rows: EntityRows, on_demand: list[BatchedOnDemandView]) -> None:
    for view in on_demand:
        for name in view.get_request_data_schema():
            if name not in rows.schema.names:
                raise MissingJoinKey(
                    f"on-demand feature view {view.name!r}: request field {name!r} missing from entity rows "
                    f"(got {rows.schema.names}); add the column"
                )


def _metadata(rows: EntityRows, feature_refs: list[str]) -> RetrievalMetadata:
    keys = [name for name in rows.schema.names if name != rows.timestamp_column]
    first, last = (None if end is None else from_us(end) for end in rows.time_range_us)
    return RetrievalMetadata(features=feature_refs, keys=keys, min_event_timestamp=first, max_event_timestamp=last)


def _interval(start: datetime | None, end: datetime | None) -> tuple[int | None, int | None]:
    return (None if start is None else to_us(start), None if end is None else to_us(end))


def _distinct(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))
