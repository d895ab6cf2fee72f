"""Rows of a source by interval: the newest per key, for the engine and for Feast, and all of them."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.kernel.definitions import Column
from store.kernel.newest_rows import LateRows, NewestRows, all_rows_sql, bounds_of, late_of
from store.kernel.source_scan import Bounds, Scan
from store.limits import MATERIALIZE_BATCH_ROWS
from store.offline.connection import ConnectionSettings, connected
from store.offline.join_keys import check_declared_key
from store.offline.row_transformations import RowTransformation
from store.offline.settings import settings_of
from store.offline.source_columns import NeededColumns, needed_columns, scan_of, source_types
from store.offline.sources import Source, file_source, open_source
from store.offline.transformed_files import open_rows

TIME_COLUMNS = ("__event_us", "__event_ns", "__created_us", "__created_ns")


@dataclass(frozen=True, slots=True)
class LatestRows:
    """The newest row per entity key: how many there are, and the rows as batches, which can be taken once.

    Shapes: columns are the join keys and features under their view names, then `__event_us` and `__created_us`
    (int64, floor microseconds since the Unix epoch; created is null where the row has none) and `__event_ns`,
    `__created_ns` (int32, the nanoseconds that remain, 0..999). One row per key; rows with a null in the key or a
    null event time are left out. The order is none in particular.
    """

    total: int
    batches: Iterator[pa.RecordBatch]

    def close(self) -> None:
        """Ends the search without taking the rows that are left."""
        if isinstance(self.batches, Generator):
            self.batches.close()


def latest_rows(
    config: RepoConfig,
    source: DataSource,
    join_keys: Sequence[Column],
    features: Sequence[Column],
    interval: tuple[int | None, int | None],
    late_us: LateRows | None = None,
    transformation: RowTransformation | None = None,
) -> LatestRows:
    """Returns the newest row per key among rows with start <= event time < end, and of those before that are late.

    Ties go to the greatest created time (null oldest), then to the row that stands last in the source.

    Args:
        source: the batch source of a view, a file source.
        interval: start (inclusive) and end (exclusive) in microseconds since the Unix epoch; None leaves it open.
        late_us: rows before `start` that count as well, by instants in microseconds; None: none do.
        transformation: what the source's rows go through first.

    Raises:
        SourceError: the source is not there, or lacks a column.
        WrongType: a join key that cannot be compared with its declared type.
    """
    owner = f"source {source.name!r}"
    declared = file_source(source, owner)
    found = open_rows(config, declared, transformation)
    keys, values = [key.name for key in join_keys], [feature.name for feature in features]
    needed = needed_columns(owner, declared, found, keys, values)
    scan = scan_of(found, needed)
    for key, name in zip(join_keys, needed.keys, strict=True):
        check_declared_key(key, source_types(found, name), owner)
    newest = NewestRows(scan, bounds_of(scan, *interval, is_end_open=True), late_of(scan, late_us))
    stream = _newest_batches(newest, found, settings_of(config), MATERIALIZE_BATCH_ROWS)
    # The first step runs the search for the newest rows, so the total is known before any row is read.
    total = next(stream)
    assert isinstance(total, int)
    names = [*keys, *values, *TIME_COLUMNS]
    zoned = [
        (in_view.name, found.schema.field(name).type)
        for in_view, name in zip(features, needed.features, strict=True)
        if in_view.type_name == "ZONED_TIMESTAMP" and pa.types.is_timestamp(found.schema.field(name).type)
    ]
    batches = (_with_zones(batch.rename_columns(names), zoned) for batch in stream if isinstance(batch, pa.RecordBatch))
    return LatestRows(total, batches)


def _with_zones(batch: pa.RecordBatch, zoned: Sequence[tuple[str, pa.DataType]]) -> pa.RecordBatch:
    """Returns a batch whose zoned timestamps are in the zones of the source's columns: DuckDB gives all in UTC."""
    for name, kind in zoned:
        place = batch.schema.get_field_index(name)
        column = batch.column(place)
        batch = batch.set_column(place, name, column.cast(pa.timestamp(column.type.unit, kind.tz)))
    return batch


def _newest_batches(
    newest: NewestRows, source: Source, settings: ConnectionSettings, rows_max: int
) -> Iterator[int | pa.RecordBatch]:
    """Yields the number of keys, then the batches of their newest rows; at least one batch."""
    with connected(settings, source.paths) as connection:
        connection.execute(newest.chosen_statement)
        [counted] = connection.execute("SELECT count(*) FROM larder_newest").fetchall()
        yield counted[0]
        yield from _batches(connection.sql(newest.answer_sql).to_arrow_reader(rows_max))


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    is_empty = True
    for batch in reader:
        is_empty = False
        yield batch
    if is_empty:
        yield pa.RecordBatch.from_pylist([], schema=reader.schema)


@dataclass(frozen=True, slots=True)
class NewestAnswer:
    """The newest row per key in Feast's form: the columns asked for, by their names in the file."""

    source: Source
    newest: NewestRows
    columns: tuple[str, ...]
    settings: ConnectionSettings

    @property
    def sql(self) -> str:
        """Returns the statements that run inside DuckDB."""
        return f"{self.newest.chosen_statement};\n\n{self.newest.answer_sql}"

    def table(self) -> pa.Table:
        """Returns the answer whole."""
        return pa.Table.from_batches(list(self.batches(MATERIALIZE_BATCH_ROWS)))

    def batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:
        """Yields the answer in batches of at most `rows_max` rows; at least one."""
        keys = len(self.newest.scan.key_names)
        wanted = list(range(keys, keys + len(self.columns)))
        for batch in _newest_batches(self.newest, self.source, self.settings, rows_max):
            if isinstance(batch, pa.RecordBatch):
                yield batch.select(wanted).rename_columns(list(self.columns))


@dataclass(frozen=True, slots=True)
class AllRowsAnswer:
    """All rows within an interval, in source order: the columns asked for, by their names in the file."""

    source: Source
    scan: Scan
    bounds: Bounds
    columns: tuple[str, ...]
    settings: ConnectionSettings

    @property
    def sql(self) -> str:
        """Returns the query that runs inside DuckDB."""
        return all_rows_sql(self.scan, self.bounds)

    def table(self) -> pa.Table:
        """Returns the answer whole."""
        return pa.Table.from_batches(list(self.batches(MATERIALIZE_BATCH_ROWS)))

    def batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:
        """Yields the answer in batches of at most `rows_max` rows; at least one."""
        with connected(self.settings, self.source.paths, keeps_order=True) as connection:
            for batch in _batches(connection.sql(self.sql).to_arrow_reader(rows_max)):
                yield batch.rename_columns(list(self.columns))


def newest_answer(
    config: RepoConfig,
    source: FileSource,
    needed: NeededColumns,
    interval: tuple[int | None, int | None],
) -> NewestAnswer:
    """Returns the newest row per key with start <= event time <= end, both ends inclusive, as Feast asks for it.

    Raises:
        SourceError: the source is not there, or lacks a column.
    """
    found = open_source(config, source)
    scan = scan_of(found, needed)
    newest = NewestRows(scan, bounds_of(scan, *interval, is_end_open=False))
    return NewestAnswer(found, newest, needed.features, settings_of(config))


def all_rows_answer(
    config: RepoConfig,
    source: FileSource,
    needed: NeededColumns,
    interval: tuple[int | None, int | None],
) -> AllRowsAnswer:
    """Returns all rows with start <= event time <= end, both ends inclusive; without both ends, simply all rows.

    Raises:
        SourceError: the source is not there, or lacks a column.
    """
    found = open_source(config, source)
    scan = scan_of(found, needed)
    bounds = bounds_of(scan, *interval, is_end_open=False)
    return AllRowsAnswer(found, scan, bounds, needed.features, settings_of(config))
