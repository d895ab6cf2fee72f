"""Reads the rows of a source through the scan that every query is made of."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from feast.infra.offline_stores.file_source import FileSource

from store.kernel.source_scan import Scan, rows_sql
from store.offline.connection import ConnectionSettings, connected
from store.offline.source_columns import NeededColumns, scan_of
from store.offline.sources import Source, open_source
from tests.offline.feature_stores import config_for


def source_at(path: str, **fields: Any) -> FileSource:
    return FileSource(**({"name": "stats", "path": path, "timestamp_field": "event_timestamp"} | fields))


def opened(repo: Path, path: str = "data/stats", **fields: Any) -> Source:
    return open_source(config_for(repo), source_at(path, **fields))


def needed(*features: str, keys: tuple[str, ...] = (), event: str = "event_timestamp") -> NeededColumns:
    return NeededColumns("feature view 'stats'", keys, event, None, features)


def rows_of(source: Source, columns: NeededColumns, scan: Scan | None = None) -> pa.Table:
    """Returns event times in nanoseconds, keys and features of all rows in source order."""
    scan = scan or scan_of(source, columns)
    names = ["e", *scan.key_names, *scan.feature_names]
    sql = f"SELECT {', '.join(names)} FROM ({rows_sql(scan, True, [*names, 'ptr'])}) ORDER BY ptr"
    with connected(ConnectionSettings(threads=1), source.paths) as connection:
        table = connection.sql(sql).to_arrow_table()
    return table.rename_columns(["e", *columns.keys, *columns.features])


def values_of(repo: Path, name: str, path: str = "data/stats", **fields: Any) -> list[Any]:
    """Returns one column of a source in source order."""
    values: list[Any] = rows_of(opened(repo, path, **fields), needed(name)).column(name).to_pylist()
    return values
