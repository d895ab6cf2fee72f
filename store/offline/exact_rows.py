"""Rows of a source by key and exact times: what was known of a row that was once served, however old it is."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast.repo_config import RepoConfig

from store.clock import Clock
from store.kernel.definitions import Column
from store.kernel.source_scan import ROW_BITS, Bounds, rows_sql
from store.offline.connection import batches_of, connected
from store.offline.join_keys import join_key_column
from store.offline.landed_files import LandedFile
from store.offline.settings import settings_of
from store.offline.source_columns import needed_columns, scan_of, source_types
from store.offline.sources import Source, SourceFile, file_source, open_source

NUMBER, CAME_US = "__number", "__came_us"
TIMES = ("__e_us", "__e_ns", "__c_us", "__c_ns")
"""Columns of what is asked: floor microseconds since the Unix epoch and nanoseconds left; created null for none."""
_BATCH_ROWS = 10_000


class ExactRows:
    """A view's source as it is now, to be searched for rows with exact times."""

    def __init__(self, config: RepoConfig, declared: Any, owner: str, clock: Clock) -> None:
        """Opens the source.

        Args:
            declared: the view's batch source.
            owner: whose it is, for messages.
            clock: the repo's; files are dated by the system's.

        Raises:
            DefinitionError, SourceError: it is no source that can be read.
        """
        self._config = config
        self._owner = owner
        self._declared = file_source(declared, owner)
        self._source: Source = open_source(config, self._declared)
        self._clock = clock
        self._came_us = [came_us(file, clock) for file in self._source.files]

    @property
    def changed_us(self) -> int | None:
        """When the source's own files last changed, of the repo's clock, those that are gone included."""
        paths = [file.path for file in self._source.files if not file.is_landed]
        folders = {os.path.dirname(path) for path in paths if path != self._source.path}  # noqa: PTH120 - of many files
        stamps = [_changed_us(path) for path in (*paths, *folders)]
        return self._clock.of_system_us(max(stamps)) if stamps else None

    def zones(self, features: Sequence[Column]) -> dict[str, str]:
        """Returns the zones of zoned timestamps: DuckDB answers all of them in UTC."""
        in_file = {in_view: name for name, in_view in self._declared.field_mapping.items()}
        schema = self._source.schema
        names = {c.name: in_file.get(c.name, c.name) for c in features if c.type_name == "ZONED_TIMESTAMP"}
        return {
            name: schema.field(file_name).type.tz
            for name, file_name in names.items()
            if file_name in schema.names and pa.types.is_timestamp(schema.field(file_name).type)
        }

    def rows(self, join_keys: Sequence[str], features: Sequence[str], asked: pa.Table) -> Iterator[pa.Table]:
        """Yields the rows that have the keys and times that are asked for, in no particular order.

        Args:
            asked: columns by the names of the join keys, `TIMES`, and `__number`, which comes back.

        Shapes: `__number`, `__came_us` (when the row's file came, microseconds of the repo's clock), and the features.

        Raises:
            SourceError: a column is missing, or a file cannot be read.
            WrongType: keys that cannot be compared with the source's.
        """
        needed = needed_columns(self._owner, self._declared, self._source, join_keys, features)
        scan = scan_of(self._source, needed)
        keys = [
            join_key_column(asked, name, source_types(self._source, in_file), self._owner)
            for name, in_file in zip(join_keys, needed.keys, strict=True)
        ]
        wanted = pa.table(
            [*keys, *(asked.column(name) for name in (*TIMES, NUMBER))],
            names=[*scan.key_names, "e_us", "e_ns", "c_us", "c_ns", "number"],
        )
        ends = pc.min_max(wanted.column("e_us")).as_py()
        window = Bounds(ends["min"], ends["max"])
        times = ["e_us", "e_ns", *(("c_us", "c_ns") if scan.has_created else ())]
        selected = rows_sql(
            scan.within(window.low, window.high), False, [*scan.key_names, *times, "ptr", *scan.feature_names], window
        )
        equal = [f"r.{name} = w.{name}" for name in (*scan.key_names, "e_us", "e_ns")]
        if scan.has_created:
            equal += ["r.c_us IS NOT DISTINCT FROM w.c_us", "coalesce(r.c_ns, 0) = coalesce(w.c_ns, 0)"]
        columns = ", ".join(f"r.{name}" for name in ("ptr", *scan.feature_names))
        with connected(settings_of(self._config), self._source.paths) as connection:
            connection.register("larder_exact", wanted)
            sql = f"SELECT w.number, {columns} FROM ({selected}) r JOIN larder_exact w ON {' AND '.join(equal)}"
            for batch in batches_of(connection.sql(sql).to_arrow_reader(_BATCH_ROWS)):
                yield self._answer(batch, features)
        self._source.require_unchanged()

    def _answer(self, batch: pa.RecordBatch, features: Sequence[str]) -> pa.Table:
        places = pc.shift_right(batch.column("ptr"), ROW_BITS)
        came = pc.take(pa.array(self._came_us, pa.int64()), places)
        return pa.table([batch.column("number"), came, *batch.columns[2:]], names=[NUMBER, CAME_US, *features])


def came_us(file: SourceFile, clock: Clock) -> int:
    """Returns when a file came to stand in its source: a landed one by its name, another by the system's clock."""
    landed = LandedFile.named(os.path.basename(file.path)) if file.is_landed else None  # noqa: PTH119 - of many files
    if landed is not None and landed.last is not None:
        return int(landed.last.partition("-")[0]) // 1_000
    return clock.of_system_us(_changed_us(file.path))


def _changed_us(path: str) -> int:
    status = os.stat(path)  # noqa: PTH116 - of many files
    return max(status.st_mtime_ns, status.st_ctime_ns) // 1_000
