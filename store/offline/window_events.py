"""The events of a windowed view that a materialization takes in, those of one entity key next to each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from feast.data_source import DataSource
from feast.repo_config import RepoConfig

from store.kernel.definitions import Column
from store.kernel.source_scan import Bounds, Scan, rows_sql
from store.limits import WINDOW_EVENTS_AT_ONCE
from store.offline.connection import batches_of, connected
from store.offline.join_keys import check_declared_key
from store.offline.settings import settings_of
from store.offline.source_columns import needed_columns, scan_of, source_types
from store.offline.sources import Source, file_source, open_source

EVENT_US, CREATED_US = "__event_us", "__created_us"


@dataclass(frozen=True, slots=True)
class WindowEvents:
    """The events of a view between two instants.

    Attributes:
        keys: join keys by name.
        columns: input columns by name.
    """

    source: Source
    scan: Scan
    bounds: Bounds
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
        keys = self.scan.key_names
        created = "c_us" if self.scan.has_created else "CAST(NULL AS BIGINT) AS c_us"
        wanted = [*keys, "e_us", *(["c_us"] if self.scan.has_created else []), *self.scan.feature_names]
        rows = rows_sql(self.scan, False, wanted, self.bounds)
        conditions = [*(f"{key} IS NOT NULL" for key in keys), "e_us IS NOT NULL", self.bounds.condition("e_us")]
        columns = ", ".join([*keys, "e_us", created, *self.scan.feature_names])
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
    source: DataSource,
    join_keys: Sequence[Column],
    columns: Sequence[str],
    interval: tuple[int, int],
) -> WindowEvents:
    """Returns the events with start <= event time < end, in floor microseconds.

    Raises:
        SourceError: the source is not there, or lacks a column.
        WrongType: a join key that cannot be compared with its declared type.
    """
    owner = f"source {source.name!r}"
    declared = file_source(source, owner)
    found = open_source(config, declared)
    keys = tuple(key.name for key in join_keys)
    needed = needed_columns(owner, declared, found, keys, columns)
    scan = scan_of(found, needed)
    for key, name in zip(join_keys, needed.keys, strict=True):
        check_declared_key(key, source_types(found, name), owner)
    start_us, end_us = interval
    within = scan.within(start_us, end_us - 1)
    return WindowEvents(found, within, Bounds(start_us, end_us - 1), config, keys, tuple(columns))
