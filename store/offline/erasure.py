"""Erasure: rows of some entity keys are taken out of landed files, and found in the files that are the user's own.

A landed file with such rows is replaced by one without them, as a compaction replaces files (see `landed_files`): under
the same lock, by one rename, with the old file deleted once nobody reads it. Files without such rows are not touched.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.errors import OfflineStoreError, SourceUnreadable, WrongType
from store.feast_values import plain_from_arrow
from store.files import locked
from store.kernel.definitions import Column
from store.limits import ERASE_READERS_WAIT_SECONDS
from store.offline.column_types import is_uuid
from store.offline.compaction import remove_covered, rewriting, row_groups
from store.offline.footers import read_footers
from store.offline.id_ranges import with_ranges
from store.offline.landed_files import (
    COMPACTION_LOCK,
    LandedFile,
    ReadGuard,
    ScratchFile,
    list_landed,
    remove_abandoned,
    revised_name,
)
from store.offline.sources import SourceFile, open_source

_READ_ROWS = 65_536
"""Rows of key columns decoded at a time: a few megabytes as Python values."""

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One join key: its column in the files with the declared type, and the plain value that is looked for."""

    column: Column
    value: Any


WantedKey = tuple[KeyPart, ...]
"""The values of some join keys of a view, all of which a row has to have."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """A file, and how many rows of it are of wanted keys."""

    path: str
    rows: int


def landed_rows(folder: Path, wanted: Sequence[WantedKey]) -> list[FileRows]:
    """Returns the files of a landed folder that Larder wrote and that hold rows of any of the wanted keys.

    Files that others have replaced and that wait for their readers count as well: their rows are still on disk.

    Raises:
        SourceUnreadable: a file cannot be read; it is named.
    """
    if not folder.is_dir():
        return []
    guard = ReadGuard(folder)
    try:
        landed = list_landed(folder)
        own = [file for file in (*landed.files, *landed.covered) if file.first is not None]
        found = [FileRows(str(folder / file.name), _count(folder / file.name, wanted)) for file in own]
    finally:
        guard.drop()
    return [file for file in found if file.rows]


def rows_of_files(paths: Iterable[Path], wanted: Sequence[WantedKey]) -> list[FileRows]:
    """Returns which files hold rows of any of the wanted keys.

    Raises:
        SourceUnreadable: a file cannot be read; it is named.
    """
    found = [FileRows(str(path), _count(path, wanted)) for path in paths]
    return [file for file in found if file.rows]


def users_rows(config: RepoConfig, source: FileSource, wanted: Sequence[WantedKey]) -> list[FileRows]:
    """Returns the files of a source that are the user's own and that hold rows of any of the wanted keys.

    Raises:
        SourceUnreadable: the source is not there, or a file cannot be read; it is named.
    """
    opened = open_source(config, source)
    try:
        # What somebody else put into the landed folder is his own, too.
        own = [file for file in opened.files if not file.is_landed or not _is_larders(Path(file.path))]
        found = [FileRows(file.path, _count(Path(file.path), wanted, _path_values(file))) for file in own]
    finally:
        if opened.guard is not None:
            # Kept any longer, it would keep the erasure from deleting what it has replaced.
            opened.guard.drop()
    return [file for file in found if file.rows]


def erase_landed(folder: Path, wanted: Sequence[WantedKey]) -> list[FileRows]:
    """Takes the rows of the wanted keys out of a landed folder, and returns how many went from which file.

    The other rows and their order are, as a reader sees them, the same at each moment, also if the process is killed.
    Retrievals that began before go on; the replaced files are deleted when they have ended, for which this waits up to
    `ERASE_READERS_WAIT_SECONDS`. What has to stay longer, `landed_rows` tells.

    Raises:
        SourceUnreadable: a landed file is damaged; it is named, and stays as it is.
        SourceError: the folder cannot be written.
        OutOfSpace: no room for what is left of a file; the file stays.
    """
    if not folder.is_dir():
        return []
    erased = []
    with rewriting(folder, "erased from"), locked(folder / COMPACTION_LOCK):
        # What a killed push left is part of no source, and may hold such rows all the same.
        remove_abandoned(folder)
        for file in list_landed(folder).files:
            rows = _count(folder / file.name, wanted) if file.first is not None else 0
            if rows:
                _rewrite(folder, file, wanted, rows)
                erased.append(FileRows(str(folder / file.name), rows))
        _remove_replaced(folder)
    return erased


def _remove_replaced(folder: Path) -> None:
    deadline = time.monotonic() + ERASE_READERS_WAIT_SECONDS
    _, still_read = remove_covered(folder)
    while still_read and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        _, still_read = remove_covered(folder)


def _rewrite(folder: Path, file: LandedFile, wanted: Sequence[WantedKey], rows: int) -> None:
    """Writes what is left of a file and gives it its name, by which it replaces the file."""
    path = folder / file.name
    [before] = read_footers([str(path)])
    scratch = ScratchFile(folder)
    try:
        with pq.ParquetWriter(scratch.file, with_ranges(before.schema, before.id_ranges)) as writer:
            for group in row_groups([path], before.schema):
                left = group.filter(pc.invert(_mask(group, wanted)))
                if left.num_rows:
                    writer.write_table(left, row_group_size=left.num_rows)
        scratch.sync()
        [written] = read_footers([str(scratch.path)])
        is_whole = written.rows == before.rows - rows and written.schema.equals(before.schema)
        _require(is_whole, f"erasing {rows} of {before.rows} rows from {str(path)!r} left {written.rows}")
        scratch.rename(folder / revised_name(file))
    except BaseException:
        scratch.discard()
        raise


def _require(is_whole: bool, what: str) -> None:
    if not is_whole:
        raise OfflineStoreError(f"{what}; the file stays as it is, report this")


def _is_larders(path: Path) -> bool:
    return LandedFile.named(path.name).first is not None


def _path_values(file: SourceFile) -> dict[str, pa.Scalar]:
    """Returns the values that stand in a file's path, in the types that the source has them in."""
    return {
        name: pa.scalar(value, pa.string()).cast(file.schema.field(name).type)
        for name, value in file.partition
        if name not in file.footer.schema.names
    }


def _count(path: Path, wanted: Sequence[WantedKey], path_values: Mapping[str, pa.Scalar] | None = None) -> int:
    """Returns how many rows of a file are of any of the wanted keys; only their columns are read."""
    constants = path_values or {}
    try:
        with pq.ParquetFile(path) as file:
            held = {*file.schema_arrow.names, *constants}
            # A file without a join key's column has no row of any key of it.
            possible = [key for key in wanted if all(part.column.name in held for part in key)]
            if not possible:
                return 0
            names = sorted({part.column.name for key in possible for part in key} - constants.keys())
            counts = (pc.sum(_mask(table, possible)).as_py() or 0 for table in _tables(file, names, constants))
            return sum(counts)
    except (pa.ArrowException, OSError) as error:
        raise SourceUnreadable(
            f"source file {str(path)!r} cannot be read ({str(error).splitlines()[0]}); restore it or take it away"
        ) from error


def _tables(file: pq.ParquetFile, names: list[str], constants: Mapping[str, pa.Scalar]) -> Iterator[pa.Table]:
    if not names:
        rows = file.metadata.num_rows
        yield pa.table({name: pa.repeat(value, rows) for name, value in constants.items()})
        return
    for batch in file.iter_batches(batch_size=_READ_ROWS, columns=names):
        table = pa.Table.from_batches([batch])
        for name, value in constants.items():
            table = table.append_column(name, pa.repeat(value, table.num_rows))
        yield table


def _mask(table: pa.Table, wanted: Sequence[WantedKey]) -> pa.Array:
    """Returns for each row whether it is of any of the wanted keys."""
    of_key = [reduce(pc.and_, (_equal(table.column(part.column.name), part) for part in key)) for key in wanted]
    return reduce(pc.or_, of_key)


def _equal(values: pa.ChunkedArray, part: KeyPart) -> pa.Array:
    return pa.array([value == part.value for value in _plain(values, part.column)], pa.bool_())


def _plain(values: pa.ChunkedArray, column: Column) -> list[Any]:
    """Returns a key column as materialization takes it, so that both sides of an erasure find the same rows."""
    if is_uuid(values.type):
        return [value and str(value) for value in values.to_pylist()]
    try:
        return plain_from_arrow(column, values)
    except WrongType:
        # One value that no key can be, such as 1.5 among integers, hides none of the others.
        return list(values.to_pylist())
