"""The events of a windowed view that a materialization takes in, those of one entity key next to each other."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
from feast.data_source import DataSource
from feast.repo_config import RepoConfig

from store.kernel.coverage import Interval
from store.kernel.definitions import ViewDefinition
from store.kernel.source_scan import Bounds, Scan, rows_sql
from store.kernel.windows import input_columns
from store.limits import WINDOW_EVENTS_AT_ONCE
from store.offline.connection import batches_of, connected
from store.offline.join_keys import check_declared_key
from store.offline.row_transformations import RowTransformation
from store.offline.settings import settings_of
from store.offline.source_columns import needed_columns, scan_of, source_types
from store.offline.sources import LARDER_ID, Source, file_source
from store.offline.transformed_files import open_rows
from store.offline.window_columns import check_window_columns, columns_of

EVENT_US, CREATED_US = "__event_us", "__created_us"


@dataclass(frozen=True, slots=True)
class WindowEvents:
    """The events of a view that a materialization holds.

    Attributes:
        batch_end_us: rows before it are events of the materialization.
        line_id: of rows that came through the event log, those that arrived at or before it are, whatever their time,
            and no others; None where the log plays no part.
        keys: join keys by name.
        columns: input columns by name.
    """

    source: Source
    scan: Scan
    start_us: int
    batch_end_us: int
    line_id: int | None
    config: RepoConfig
    keys: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def row_count(self) -> int:
        """Returns how many rows are looked at: at least as many as there are events."""
        return self.scan.rows

    @property
    def sql(self) -> str:
        """Returns the SELECT that runs inside DuckDB."""
        keys = self.scan.key_names
        return self._unordered_sql + (f" ORDER BY {', '.join(keys)}" if keys else "")

    @property
    def _unordered_sql(self) -> str:
        keys, features = self.scan.key_names, self.scan.feature_names[: len(self.columns)]
        created = "c_us" if self.scan.has_created else "CAST(NULL AS BIGINT) AS c_us"
        wanted = [*keys, "e_us", *(["c_us"] if self.scan.has_created else []), *self.scan.feature_names]
        last_us = self.batch_end_us - 1
        within, is_batch = Bounds(self.start_us, last_us), f"e_us <= {last_us}"
        if self.line_id is not None:
            within = Bounds(self.start_us)
            arrived = f"CAST({self.scan.feature_names[-1]} AS BIGINT)"
            is_batch = f"CASE WHEN {arrived} IS NULL THEN {is_batch} ELSE {arrived} <= {self.line_id} END"
        rows = rows_sql(self.scan, False, wanted, within)
        conditions = [*(f"{key} IS NOT NULL" for key in keys), f"e_us >= {self.start_us}", is_batch]
        columns = ", ".join([*keys, "e_us", created, *features])
        return f"SELECT {columns} FROM ({rows}) WHERE {' AND '.join(conditions)}"

    def key_count(self) -> int:
        """Returns how many keys have events."""
        keys = ", ".join(self.scan.key_names)
        counted = f"SELECT count(*) FROM (SELECT DISTINCT {keys or 1} FROM ({self._unordered_sql}))"
        with connected(settings_of(self.config), self.source.paths) as connection:
            [(count,)] = connection.execute(counted).fetchall()
            return int(count)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the events, those of one key next to each other and maybe in two batches.

        Shapes: columns are the join keys by name, `EVENT_US`, `CREATED_US` (int64, floor microseconds since the epoch;
        null where there is none), and the input columns by name. Events without a whole key or a time are left out.
        """
        names = [*self.keys, EVENT_US, CREATED_US, *self.columns]
        with connected(settings_of(self.config), self.source.paths) as connection:
            for batch in batches_of(connection.sql(self.sql).to_arrow_reader(WINDOW_EVENTS_AT_ONCE)):
                yield batch.rename_columns(names)


def window_events(
    config: RepoConfig,
    definition: ViewDefinition,
    source: DataSource,
    span: Interval,
    line_id: int | None,
    transformation: RowTransformation | None = None,
) -> WindowEvents:
    """Returns the events of a windowed view that a materialization holds.

    Args:
        span: the earliest event time that a window reaches, and the batch end, both in microseconds.
        line_id: the line up to which events of the log belong to the materialization; None for an external source,
            where their time alone decides.
        transformation: what the source's rows go through first.

    Raises:
        SourceError: the source is not there, or lacks a column.
        DefinitionError: a column that cannot be aggregated as declared.
        WrongType: a join key that cannot be compared with its declared type.
    """
    owner = f"source {source.name!r}"
    declared = file_source(source, owner)
    found = open_rows(config, declared, transformation)
    check_window_columns(definition, columns_of(found))
    keys = tuple(key.name for key in definition.join_keys)
    columns = input_columns(definition.windows)
    needed = needed_columns(owner, declared, found, keys, columns)
    if line_id is not None:
        needed = replace(needed, features=(*needed.features, LARDER_ID), optional=frozenset({LARDER_ID}))
    scan = scan_of(found, needed)
    for key, name in zip(definition.join_keys, needed.keys, strict=True):
        check_declared_key(key, source_types(found, name), owner)
    within = scan.within(span.start_us, None if line_id is not None else span.end_us - 1)
    return WindowEvents(found, within, span.start_us, span.end_us, line_id, config, keys, columns)
