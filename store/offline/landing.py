"""Landed rows: each write becomes one new Parquet file beside the source, whole or not there."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.clock import clock_for
from store.errors import EntityRowsError, OutOfSpace, PushedRowsError, SourceError, SourceUnreadable
from store.offline.column_types import is_text, plain_type
from store.offline.entity_rows import parse_instants
from store.offline.landed_files import ScratchFile, has_token, publish_next
from store.offline.sources import landed_folder, open_source, resolve_path

ROW_GROUP_ROWS = 100_000
"""Rows written together as one row group."""


def land_rows(config: RepoConfig, source: FileSource, table: pa.Table) -> Path:
    """Writes rows as one new file that sorts after all that landed before, and returns its path.

    Any number of writers may land at once; a reader sees a file whole or not at all, also after a crash.

    Args:
        table: the source's columns under their names in the view (or in the file), in any order.

    Raises:
        PushedRowsError: the columns are not those of the source, or a value does not fit its column.
        SourceUnreadable: the source has no file to tell its columns.
    """
    return _published(stage_rows(config, source, table))


class _PublishedBefore(Exception):
    """The rows are there already."""


@dataclass(frozen=True, slots=True)
class StagedRows:
    """Rows that are written and synced under a hidden name beside their final place, and part of no source yet.

    A process killed now leaves a hidden file that nobody reads, and that the next compaction removes.
    """

    config: RepoConfig
    scratch: ScratchFile

    def publish(self, token: str | None = None) -> Path | None:
        """Makes the rows part of the source, after all that landed before, and returns the path of their file.

        Args:
            token: 16 hex digits that tell the rows from all others: they are discarded if they were published before.

        Returns:
            None where they were.

        Raises:
            SourceError: the folder cannot be written; the rows are discarded.
        """
        now_us = clock_for(Path(self.config.repo_path or ".")).now_us()
        folder = self.scratch.path.parent

        def check() -> None:
            if token is not None and has_token(folder, token):
                raise _PublishedBefore

        with landing_in(folder):
            try:
                return publish_next(self.scratch, now_us * 1_000, check, token)
            except _PublishedBefore:
                self.discard()
                return None
            except BaseException:
                self.discard()
                raise

    def discard(self) -> None:
        """Removes the rows; does nothing once they are published."""
        self.scratch.discard()


def stage_rows(config: RepoConfig, source: FileSource, table: pa.Table) -> StagedRows:
    """Does all that can fail of `land_rows`, which takes the same and raises the same, but for the last rename."""
    fitted = fit_to_source(table, open_source(config, source).schema, source)
    return _stage(config, landed_folder(resolve_path(config, source.path)), fitted)


def append_file(config: RepoConfig, folder: Path, table: pa.Table) -> Path:
    """Writes a table as one new file of a folder, named so that names sort by arrival, and returns its path.

    Raises:
        SourceError: the folder cannot be made or written.
        OutOfSpace: no room; nothing half-written stays.
    """
    return _published(_stage(config, folder, table))


def _published(staged: StagedRows) -> Path:
    path = staged.publish()
    assert path is not None, "rows without a token were never published before"
    return path


def _stage(config: RepoConfig, folder: Path, table: pa.Table) -> StagedRows:
    with landing_in(folder):
        scratch = ScratchFile(folder)
        try:
            with pq.ParquetWriter(scratch.file, table.schema) as writer:
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            scratch.sync()
        except BaseException:
            scratch.discard()
            raise
    return StagedRows(config, scratch)


@contextmanager
def landing_in(folder: Path) -> Iterator[None]:
    """Turns what fails while rows are written into a landed folder into our errors."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"no room for rows in {str(folder)!r}; free some, nothing was written") from error
        raise SourceError(
            f"rows cannot land in {str(folder)!r}: {error.strerror or error}; make it a folder that can be written"
        ) from error


def fit_to_source(table: pa.Table, schema: pa.Schema, source: FileSource) -> pa.Table:
    """Returns rows with exactly the columns, names and types of a source's files.

    Raises:
        PushedRowsError: a column is missing or unknown, or a value does not fit without loss.
    """
    in_file = {in_view: name for name, in_view in source.field_mapping.items()}
    known = set(schema.names)
    # pandas adds an unnamed index as a column of its own; it is no part of the rows.
    table = table.drop_columns([n for n in table.column_names if n.startswith("__index_level_") and n not in known])
    names = [name if name in known else in_file.get(name, name) for name in table.column_names]
    missing, extra = sorted(known - set(names)), sorted(set(names) - known)
    if missing or extra or len(set(names)) != len(names):
        raise PushedRowsError(
            f"rows for source {source.name!r} have columns {sorted(names)}, expected {sorted(known)} "
            f"(missing {missing}, unknown {extra}); send exactly the source's columns, nothing was written"
        )
    table = table.rename_columns(names)
    columns = [_fitted(table.column(field.name), field, source) for field in schema]
    return pa.table(columns, schema=schema.remove_metadata())


def _fitted(column: pa.ChunkedArray, field: pa.Field, source: FileSource) -> pa.ChunkedArray:
    try:
        if pat.is_timestamp(field.type) and is_text(plain_type(column.type)):
            column = parse_instants(column, f"column {field.name!r}")
        if pat.is_boolean(field.type) != pat.is_boolean(column.type) and not pat.is_null(column.type):
            raise pa.ArrowInvalid("truth values and other values are kept apart")
        return column.cast(field.type)
    except (pa.ArrowException, EntityRowsError) as error:
        raise PushedRowsError(
            f"rows for source {source.name!r}: column {field.name!r} has type {column.type}, the source has "
            f"{field.type} ({str(error).splitlines()[0]}); convert it, nothing was written"
        ) from error


def read_logs(path: Path) -> pa.Table:
    """Returns the rows of a Parquet file or of all Parquet files of a folder.

    Raises:
        SourceUnreadable: it is not there or not Parquet.
    """
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceUnreadable(f"logged features at {str(path)!r} cannot be read as Parquet: {error}") from error
