"""Where entity rows come from: a table, Parquet files, or a stream that is kept on disk because it passes only once."""

import io
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import EntityRowsError, OutOfSpace, SourceUnreadable
from store.files import is_disk_full
from store.offline.column_types import are_comparable

_READ_ROWS = 65_536
"""Rows read from a file at a time: some MB."""

_READ_BYTES = 1024 * 1024
"""Bytes read at a time from what was kept; a batch of it has a few of these."""


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
    """Rows of Parquet files, by path, then by place in the file; the first file says the columns and their types."""

    paths: tuple[str, ...]
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
        for path in paths:
            with _opened(path) as file:
                found = file.schema_arrow.remove_metadata()
                schema = schema if schema is not None else found
                row_count += file.metadata.num_rows
            _cast(found.empty_table(), schema, path)
        return cls(tuple(paths), schema, row_count)

    def blocks(self, rows_max: int) -> Iterator[pa.Table]:
        """Yields the rows in order."""
        return _in_blocks(self._batches(None), rows_max)

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column whole."""
        schema = pa.schema([self.schema.field(name)])
        return pa.Table.from_batches(self._batches([name]), schema).column(name)

    def _batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        for path in self.paths:
            with _opened(path) as file:
                wanted = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
                try:
                    for batch in file.iter_batches(_READ_ROWS, columns=wanted.names):
                        yield from _cast(pa.Table.from_batches([batch]), wanted, path).to_batches()
                except (pa.ArrowException, OSError) as error:
                    raise _unreadable(path, error) from error


class SpooledRows:
    """Rows of a stream, kept in a temporary file without a name: it goes with the process, however that ends."""

    def __init__(self, schema: pa.Schema, row_count: int, descriptor: int) -> None:
        """Takes over an open file that holds the rows as an Arrow IPC stream; it is closed with the object."""
        self.schema = schema
        self.row_count = row_count
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def keep(cls, reader: pa.RecordBatchReader, folder: Path | None) -> "SpooledRows":
        """Reads a stream to its end and keeps its rows.

        Args:
            folder: where the file takes its room; None is the system's temporary folder.

        Raises:
            OutOfSpace: there is none.
        """
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        row_count = 0
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                with pa.ipc.new_stream(pa.PythonFile(file, "w"), reader.schema) as writer:
                    for batch in reader:
                        row_count += batch.num_rows
                        writer.write_batch(batch)
                file.flush()
                return cls(reader.schema, row_count, os.dup(file.fileno()))
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


def _opened(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> SourceUnreadable:
    return SourceUnreadable(
        f"entity rows: file {path!r} cannot be read as Parquet ({str(error).splitlines()[0]}); restore it or write it "
        "anew"
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
