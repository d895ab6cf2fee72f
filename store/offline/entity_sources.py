"""Where entity rows come from: a table, Parquet files, or a stream that is kept on disk because it passes only once."""

import io
import os
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import ConfigError, EntityRowsError, OutOfSpace, SourceUnreadable
from store.files import is_disk_full
from store.offline.column_types import are_comparable

_READ_ROWS = 65_536
"""Rows read from a file at a time: some MB."""

_READ_BYTES = 1024 * 1024
"""Bytes read at a time from what was kept; a batch of it has a few of these."""

_Stamp = tuple[int, int, int]
"""Size, time of change and inode of a file: another content has another stamp."""


class RowSource(Protocol):
    """Rows of one schema, which can be gone through as often as one likes."""

    @property
    def schema(self) -> pa.Schema:
        """Returns their schema."""

    @property
    def row_count(self) -> int:
        """Returns how many there are."""

    def blocks(self, rows_max: int) -> Iterator[pa.Table]:
        """Yields the rows in order, in tables of `rows_max` rows, the last one smaller; none if there are no rows."""

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column whole."""


def require_distinct_names(schema: pa.Schema, owner: str) -> None:
    """Checks that no two columns have the same name.

    Raises:
        EntityRowsError: some do.
    """
    repeated = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if repeated:
        raise EntityRowsError(f"{owner}: several columns have the same name {repeated}; rename them")


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of a table in memory."""

    table: pa.Table

    @property
    def schema(self) -> pa.Schema:
        """Returns their schema."""
        return self.table.schema

    @property
    def row_count(self) -> int:
        """Returns how many there are."""
        return int(self.table.num_rows)

    def blocks(self, rows_max: int) -> Iterator[pa.Table]:
        """Yields the rows in order, in slices of the table."""
        for start in range(0, self.table.num_rows, rows_max):
            yield self.table.slice(start, rows_max)

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column whole."""
        return self.table.column(name)


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """Rows of Parquet files, by path, then by place in the file; the first file says the columns and their types.

    `stamps` tells of each file whether it is still the one that was opened: what was checked holds for that one only.
    """

    paths: tuple[str, ...]
    stamps: tuple[_Stamp, ...]
    schema: pa.Schema
    row_count: int

    @classmethod
    def open(cls, paths: Sequence[str]) -> "ParquetRows":
        """Returns the rows of some files.

        Raises:
            SourceUnreadable: one is not whole, not permitted or not Parquet.
            EntityRowsError: one has other columns than the first, or of types that do not fit.
        """
        schema, row_count = None, 0
        stamps = tuple(map(_stamp, paths))
        for path, stamp in zip(paths, stamps, strict=True):
            with _opened(path, stamp) as file:
                found = file.schema_arrow.remove_metadata()
                require_distinct_names(found, f"entity rows: file {path!r}")
                schema = schema if schema is not None else found
                row_count += file.metadata.num_rows
            _cast(found.empty_table(), schema, path)
        return cls(tuple(paths), stamps, schema, row_count)

    def blocks(self, rows_max: int) -> Iterator[pa.Table]:
        """Yields the rows in order."""
        return _in_blocks(self._batches(None), rows_max)

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column whole."""
        schema = pa.schema([self.schema.field(name)])
        return pa.Table.from_batches(self._batches([name]), schema).column(name)

    def _batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        wanted = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        for path, stamp in zip(self.paths, self.stamps, strict=True):
            with _opened(path, stamp) as file:
                for batch in _batches_of(file, path, stamp, wanted.names):
                    yield from _cast(pa.Table.from_batches([batch]), wanted, path).to_batches()


class SpooledRows:
    """Rows of a stream, kept in a temporary file without a name: it goes with the process, however that ends."""

    def __init__(self, schema: pa.Schema, row_count: int, descriptor: int) -> None:
        """Takes over an open file that holds the rows as an Arrow IPC stream; it is closed with the object."""
        self.schema = schema
        self.row_count = row_count
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def keep(cls, schema: pa.Schema, batches: Iterable[pa.RecordBatch], folder: Path | None) -> "SpooledRows":
        """Goes through batches of a schema to their end and keeps their rows.

        Args:
            folder: where the file takes its room; None is the system's temporary folder.

        Raises:
            ConfigError: the folder cannot be used.
            OutOfSpace: there is no room.
        """
        ensure_spill_folder(folder)
        row_count = 0
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                with pa.ipc.new_stream(pa.PythonFile(file, "w"), schema) as writer:
                    for batch in batches:
                        row_count += batch.num_rows
                        writer.write_batch(batch)
                file.flush()
                return cls(schema, row_count, os.dup(file.fileno()))
        except OSError as error:
            if is_disk_full(error):
                raise OutOfSpace(
                    f"no room to keep the entity rows in {str(folder or tempfile.gettempdir())!r}; set `spill_folder` "
                    "under offline_store in feature_store.yaml to a folder on a disk with room"
                ) from error
            raise

    def blocks(self, rows_max: int) -> Iterator[pa.Table]:
        """Yields the rows in order."""
        return _in_blocks(self._batches(), rows_max)

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column whole."""
        schema = pa.schema([self.schema.field(name)])
        return pa.Table.from_batches((batch.select([name]) for batch in self._batches()), schema).column(name)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        # The object is kept, and with it the file, as long as somebody reads.
        with (
            io.BufferedReader(_FromStart(self._descriptor), _READ_BYTES) as file,
            pa.ipc.open_stream(pa.PythonFile(file, "r")) as reader,
        ):
            yield from reader


class _FromStart(io.RawIOBase):
    """Reads a file that others read as well: each reader has a place of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._offset = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # all that BufferedReader gives
        count = os.preadv(self._descriptor, [buffer], self._offset)
        self._offset += count
        return count


def _in_blocks(batches: Iterator[pa.RecordBatch], rows_max: int) -> Iterator[pa.Table]:
    """Yields batches joined and cut into tables of `rows_max` rows, the last one smaller."""
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        rest = batch
        while count + rest.num_rows >= rows_max:
            missing = rows_max - count
            yield pa.Table.from_batches([*pending, rest.slice(0, missing)])
            pending, count, rest = [], 0, rest.slice(missing)
        if rest.num_rows:
            pending.append(rest)
            count += rest.num_rows
    if pending:
        yield pa.Table.from_batches(pending)


def ensure_spill_folder(folder: Path | None) -> None:
    """Makes the folder that files are kept in for a while, where it is not there yet, and checks that it takes files.

    Raises:
        ConfigError: it cannot be made, or takes none.
        OutOfSpace: there is no room for it.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if is_disk_full(error):
            raise OutOfSpace(f"no room in the spill_folder {str(folder)!r}; set it to a disk with room") from error
        raise ConfigError(
            f"offline_store: spill_folder {str(folder)!r} cannot be used ({error.strerror}); set it in "
            "feature_store.yaml to a folder that can be written to, or leave it out for the system's temporary folder"
        ) from error


def _stamp(path: str) -> _Stamp:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_size, status.st_mtime_ns, status.st_ino


def _require_same(path: str, stamp: _Stamp) -> None:
    if _stamp(path) != stamp:
        raise SourceUnreadable(
            f"entity rows: file {path!r} was changed while it was read, and its rows may not be those that were "
            "checked; retrieve again"
        )


@contextmanager
def _opened(path: str, stamp: _Stamp) -> Iterator[pq.ParquetFile]:
    """Opens a file that has to be the one with a stamp."""
    _require_same(path, stamp)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    with file:
        # Whatever was opened, it was there after the first look and before this one.
        _require_same(path, stamp)
        yield file


def _batches_of(file: pq.ParquetFile, path: str, stamp: _Stamp, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a file, and fails at its end at the latest if somebody wrote to it meanwhile."""
    try:
        yield from file.iter_batches(_READ_ROWS, columns=columns)
    except (pa.ArrowException, OSError) as error:
        _require_same(path, stamp)
        raise _unreadable(path, error) from error
    _require_same(path, stamp)


def _unreadable(path: str, error: Exception) -> SourceUnreadable:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return SourceUnreadable(
        f"entity rows: file {path!r} cannot be read as Parquet ({reason}); restore it or write it anew"
    )


def _cast(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    """Returns a file's rows in the columns and types of the first file."""
    if sorted(table.column_names) != sorted(schema.names):
        raise EntityRowsError(
            f"entity rows: file {path!r} has columns {table.column_names}, the first file has {schema.names}; give all "
            "files the same columns"
        )
    for field in schema:
        kind = table.schema.field(field.name).type
        if not are_comparable(kind, field.type):
            raise EntityRowsError(
                f"entity rows: column {field.name!r} of file {path!r} has type {kind}, in the first file {field.type}; "
                "write all files alike"
            )
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise EntityRowsError(
            f"entity rows: file {path!r} has values that do not fit the types of the first file ({error}); write all "
            "files alike"
        ) from error
