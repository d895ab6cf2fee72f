"""Sources whose rows have gone through a view's transformation: each file once, into a file that is read in its place.

Such files lie under `data/transformed/<project>.<view>/<digest>/` of the feature repo. The digest stands for function
and columns; a file's name for the file that it was made of, as it was then. So a file is never changed, and one that no
file of the source has any more is removed, as are those of earlier definitions.

One process at a time makes and removes files of a view, under a lock. A reader holds a shared lock on the folder from
before it looks whether its files are there; they are only removed while nobody holds one. A killed process leaves an
unfinished file that the next one removes.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.clock import from_us
from store.errors import OutOfSpace, SourceColumnMissing, SourceError, SourceUnreadable, TransformationError
from store.files import locked
from store.limits import (
    ERASE_READERS_WAIT_SECONDS,
    TRANSFORM_BYTES_AT_ONCE,
    TRANSFORM_ROWS_AT_ONCE,
    TRANSFORM_SAMPLE_ROWS,
    TRANSFORMED_VERSIONS_KEPT,
)
from store.offline.footers import SETTLED_NS, read_footers
from store.offline.landed_files import LandedFile, ReadGuard, ScratchFile, remove_abandoned
from store.offline.row_transformations import RowTransformation
from store.offline.source_files import partition_instant_us
from store.offline.sources import LARDER_ID, Source, SourceFile, open_source

_FOLDER = ("data", "transformed")
_POLL_SECONDS = 0.05
_NAME_CHARS_MAX = 150


def open_rows(config: RepoConfig, source: FileSource, transformation: RowTransformation | None) -> Source:
    """Returns a source as it is on disk now, its rows as they come out of a transformation where there is one.

    Raises:
        SourceError, DefinitionError: as `open_source`; or transformed files cannot be written.
        TransformationError: the function fails, or gives what does not fit.
        OutOfSpace: no room for transformed files.
    """
    found = open_source(config, source)
    return found if transformation is None else transformed(config, source, found, transformation)


def transformed(config: RepoConfig, source: FileSource, found: Source, transformation: RowTransformation) -> Source:
    """Returns a source that was opened with its rows as they come out of a transformation.

    Raises:
        SourceError, TransformationError, OutOfSpace: as `open_rows`.
    """
    _require_times(found, transformation)
    output = transformation.output_in_file(found.schema)
    view_folder = _view_folder(config, transformation.view)
    folder = view_folder / transformation.digest(found.schema)
    names = [_name(file) for file in found.files]
    guard = _guard_of_all(folder, names)
    if guard is None:
        with _writing(view_folder), locked(view_folder):
            guard = _made(folder, names, source, found, transformation)
            _remove_old(view_folder, folder.name)
    paths = [str(folder / name) for name in names]
    files = tuple(
        SourceFile(path, footer, footer.schema, is_landed=False)
        for path, footer in zip(paths, read_footers(paths), strict=True)
    )
    return replace(found, files=files, schema=output, guard=guard, originals=tuple(file.path for file in found.files))


def first_rows(found: Source, transformation: RowTransformation) -> pa.Table | None:
    """Returns some rows of a source by their names in the view, None if it has no rows."""
    for file in found.files:
        if file.rows:
            return next(_chunks(file, found.schema, transformation, TRANSFORM_SAMPLE_ROWS))[0]
    return None


def transformed_paths(config: RepoConfig, view: str) -> list[Path]:
    """Returns the transformed files of a view, those of earlier definitions and files among them."""
    return sorted(_view_folder(config, view).glob("*/*.parquet"))


def forget_transformed(config: RepoConfig, view: str, wait_seconds: float = ERASE_READERS_WAIT_SECONDS) -> None:
    """Removes all transformed files of a view that nobody reads, waiting a while for those who do.

    They are made anew when they are needed.

    Raises:
        SourceError: they cannot be removed.
    """
    view_folder = _view_folder(config, view)
    if not view_folder.is_dir():
        return
    deadline = time.monotonic() + wait_seconds
    with _writing(view_folder), locked(view_folder):
        for folder in [path for path in view_folder.iterdir() if path.is_dir()]:
            while not _remove_folder(folder) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        if not any(view_folder.iterdir()):
            view_folder.rmdir()


# --- making -------------------------------------------------------------------------------------


def _made(
    folder: Path, names: Sequence[str], source: FileSource, found: Source, transformation: RowTransformation
) -> ReadGuard:
    """Makes the files that are missing, removes those of files that went away, and returns the guard of a reader."""
    folder.mkdir(parents=True, exist_ok=True)
    present = {path.name for path in folder.iterdir()}
    for name, file in zip(names, found.files, strict=True):
        if name not in present:
            _make(folder / name, file, source, found.schema, transformation)
    with _exclusive(folder) as is_unread:
        if is_unread:
            remove_abandoned(folder)
            for name in present - set(names):
                (folder / name).unlink(missing_ok=True)
    # Nothing is removed before the lock that is held here is free, so all of them stay.
    guard = ReadGuard(folder)
    os.utime(folder)
    return guard


def _make(
    path: Path, file: SourceFile, source: FileSource, schema: pa.Schema, transformation: RowTransformation
) -> None:
    output = transformation.output_in_file(schema)
    has_ids = file.is_landed and LARDER_ID in file.schema.names
    written = output.append(pa.field(LARDER_ID, pa.int64())) if has_ids else output
    scratch = ScratchFile(path.parent)
    try:
        with pq.ParquetWriter(scratch.file, written) as writer:
            for number, (table, ids) in enumerate(_chunks(file, schema, transformation)):
                with _told_where(source, file):
                    if number == 0:
                        transformation.require_row_wise(table)
                    rows = _with_ids(transformation, table, ids) if has_ids else transformation.rows(table)
                writer.write_table(rows.rename_columns(written.names))
        Source(file.path, (file,), schema).require_unchanged()
        scratch.sync()
        scratch.rename(path)
    except BaseException:
        scratch.discard()
        raise


@contextmanager
def _told_where(source: FileSource, file: SourceFile) -> Iterator[None]:
    try:
        yield
    except TransformationError as error:
        raise TransformationError(f"{error} (rows of source {source.name!r}, file {file.path!r})") from error


def _with_ids(transformation: RowTransformation, table: pa.Table, ids: pa.Array) -> pa.Table:
    placed = transformation.placed_rows(table)
    return placed.table.append_column(LARDER_ID, ids.take(pa.array(placed.places)))


def _chunks(
    file: SourceFile, schema: pa.Schema, transformation: RowTransformation, rows_max: int = TRANSFORM_ROWS_AT_ONCE
) -> Iterator[tuple[pa.Table, pa.ChunkedArray | None]]:
    """Yields the rows of a file by their names in the view, in the source's types, with the ids of their events."""
    in_view = {name: view for view, name in transformation.in_file.items()}
    constants = {
        name: _constant(file, name, value) for name, value in file.partition if name not in file.footer.schema.names
    }
    held = [name for name in file.footer.schema.names if name in schema.names or name == LARDER_ID]
    try:
        with pq.ParquetFile(file.path, pre_buffer=False, coerce_int96_timestamp_unit="us") as parquet:
            for batch in parquet.iter_batches(batch_size=rows_max, columns=held):
                step = max(1, batch.num_rows * TRANSFORM_BYTES_AT_ONCE // max(batch.nbytes, TRANSFORM_BYTES_AT_ONCE))
                for start in range(0, batch.num_rows, step):
                    part = pa.Table.from_batches([batch.slice(start, step)])
                    ids = part.column(LARDER_ID) if LARDER_ID in part.column_names else None
                    columns = [_column(part, field, constants, file) for field in schema]
                    named = pa.table(columns, names=[in_view.get(name, name) for name in schema.names])
                    yield named, ids
    except (pa.ArrowException, OSError) as error:
        raise SourceUnreadable(
            f"source file {file.path!r} cannot be read ({str(error).splitlines()[0]}); restore it or write it anew"
        ) from error


def _column(table: pa.Table, field: pa.Field, constants: dict[str, pa.Scalar], file: SourceFile) -> pa.ChunkedArray:
    if field.name in constants:
        column = pa.chunked_array([pa.repeat(constants[field.name], table.num_rows)])
    elif field.name in table.column_names:
        column = table.column(field.name)
    else:
        return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
    try:
        return column if column.type.equals(field.type) else column.cast(field.type)
    except pa.ArrowException as error:
        raise SourceUnreadable(
            f"column {field.name!r} of source file {file.path!r} is {column.type}, which does not fit the source's "
            f"other files, where it is {field.type} ({str(error).splitlines()[0]}); write one of the files anew"
        ) from error


def _constant(file: SourceFile, name: str, value: str | None) -> pa.Scalar:
    kind = file.schema.field(name).type
    if pa.types.is_timestamp(kind):
        instant_us = partition_instant_us(value, f"column {name!r} of source file {file.path!r}")
        return pa.scalar(None if instant_us is None else from_us(instant_us), kind)
    return pa.scalar(value, pa.string()).cast(kind)


def _require_times(found: Source, transformation: RowTransformation) -> None:
    """Refuses a file of the user's own that lacks a key or time which others have: its rows would be lost unsaid."""
    wanted = [*(key.name for key in transformation.keys), transformation.event, transformation.created]
    names = [transformation.in_file.get(name, name) for name in wanted if name]
    for file in found.files:
        for name in names:
            is_free = file.may_lack is None or name in file.may_lack
            if not is_free and name in found.schema.names and name not in file.schema.names:
                raise SourceColumnMissing(
                    f"feature view {transformation.view!r}: column {name!r} is not in source file {file.path!r} "
                    f"(it has {file.schema.names}); add the column"
                )


# --- names and locks ----------------------------------------------------------------------------


def _view_folder(config: RepoConfig, view: str) -> Path:
    name = quote(f"{config.project}.{view}", safe="")
    if len(name) > _NAME_CHARS_MAX:
        name = f"{name[:_NAME_CHARS_MAX]}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
    return Path(config.repo_path or ".").absolute().joinpath(*_FOLDER, name)


def _name(file: SourceFile) -> str:
    """Returns the name of the file that is made of a source's file as it is now.

    Of a file that has just been written another version may have the same stamp, so what is made of it serves once.
    """
    path = Path(file.path)
    known = hashlib.blake2b(repr((file.path, file.footer.stamp)).encode(), digest_size=12).hexdigest()
    is_fixed = file.is_landed and LandedFile.named(path.name).first is not None
    is_settled = file.footer.stamp[1] < time.time_ns() - SETTLED_NS
    return f"{known}.parquet" if is_fixed or is_settled else f"{known}-{secrets.token_hex(4)}.parquet"


def _guard_of_all(folder: Path, names: Sequence[str]) -> ReadGuard | None:
    """Returns the guard of a reader if all files are there."""
    try:
        guard = ReadGuard(folder)
        if set(names) <= {entry.name for entry in os.scandir(folder)}:
            return guard
    except (FileNotFoundError, NotADirectoryError):
        return None
    guard.drop()
    return None


@contextmanager
def _exclusive(folder: Path) -> Iterator[bool]:
    """Tells whether nobody reads files of a folder, and keeps readers waiting while something is done about them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Read by somebody, or on a file system without locks, where it cannot be told.
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def _remove_old(view_folder: Path, current: str) -> None:
    """Removes what was made for earlier definitions but for the last few."""
    others = [path for path in view_folder.iterdir() if path.is_dir() and path.name != current]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for folder in others[TRANSFORMED_VERSIONS_KEPT - 1 :]:
        _remove_folder(folder)


def _remove_folder(folder: Path) -> bool:
    with _exclusive(folder) as is_unread:
        if is_unread:
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
            folder.rmdir()
        return is_unread


@contextmanager
def _writing(view_folder: Path) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"no room for transformed rows in {str(view_folder)!r}; free some") from error
        raise SourceError(
            f"transformed rows cannot be kept in {str(view_folder)!r}: {error.strerror or error}; make it a folder "
            "that can be written"
        ) from error
