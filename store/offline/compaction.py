"""Compaction: small landed files become large ones, in their order, beside readers and writers.

One step is atomic, that a merged file gets its name (see `landed_files`); what is before it leaves a hidden file, what
is after it leaves covered ones, and the next run removes either.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import OfflineStoreError, OutOfSpace, SourceError, SourceUnreadable
from store.files import locked, sync_folder
from store.limits import (
    COMPACT_FILE_BYTES_MAX,
    COMPACT_ROW_GROUP_BYTES_MAX,
    COMPACT_ROW_GROUP_ROWS_MAX,
    COMPACT_SMALL_BYTES,
)
from store.offline.footers import Footer, read_footers
from store.offline.id_ranges import united, with_ranges
from store.offline.landed_files import (
    COMPACTION_LOCK,
    LandedFile,
    ReadGuard,
    ScratchFile,
    is_unread,
    list_landed,
    merged_name,
    remove_abandoned,
)

_READ_ROWS = 1_000
"""Rows decoded at a time: few enough that the bytes of a row group can be counted while it is filled."""
_READ_BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Merge:
    """Consecutive landed files of one schema that become one file."""

    parts: tuple[LandedFile, ...]
    rows: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What a compaction of one folder did, or would do.

    `removed` replaced files were deleted, `still_read` are kept for readers that began before they were replaced, and
    `abandoned` unfinished files of killed writers were deleted.
    """

    merges: tuple[Merge, ...] = ()
    removed: int = 0
    still_read: int = 0
    abandoned: int = 0


def compact(folder: Path) -> CompactionReport:
    """Merges the small files of a landed folder, and deletes those that were replaced and that nobody reads any more.

    Rows and their order, as a reader sees them, are the same before, at each moment and after, also if the process
    is killed. A second compaction of the same folder waits for the first.

    Raises:
        SourceUnreadable: a landed file is damaged; it is named, and nothing was changed.
        SourceError: the folder cannot be written.
        OutOfSpace: no room for the merged file; the parts stay.
    """
    if not folder.is_dir():
        return CompactionReport()
    with rewriting(folder, "merged"), locked(folder / COMPACTION_LOCK):
        abandoned = remove_abandoned(folder)
        removed_before, _ = remove_covered(folder)
        merges = _planned(folder)
        for merge in merges:
            _merge(folder, merge)
        removed, still_read = remove_covered(folder)
        return CompactionReport(tuple(merges), removed_before + removed, still_read, abandoned)


def planned_compaction(folder: Path) -> CompactionReport:
    """Returns what `compact` would merge, and changes nothing.

    Raises:
        SourceError: as `compact`.
    """
    if not folder.is_dir():
        return CompactionReport()
    with rewriting(folder, "merged"):
        guard = ReadGuard(folder)
        merges = _planned(folder)
        guard.drop()
        return CompactionReport(tuple(merges))


@contextmanager
def rewriting(folder: Path, done: str) -> Iterator[None]:
    """Turns what fails while the files of a landed folder are rewritten into our errors; `done` says to what end."""
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise OutOfSpace(
                f"no room for files to be {done} in {str(folder)!r}; free some, all rows are in place"
            ) from error
        raise SourceError(
            f"landed files in {str(folder)!r} cannot be {done}: {error.strerror or error}; make it a folder that can "
            "be written"
        ) from error


def _planned(folder: Path) -> list[Merge]:
    """Returns the runs of two or more neighbours that are small, of one schema, and named by Larder."""
    files = list_landed(folder).files
    footers = read_footers([str(folder / file.name) for file in files])
    merges: list[Merge] = []
    run: list[LandedFile] = []
    rows = stored = 0
    schema = pa.schema([])
    for file, footer in zip(files, footers, strict=True):
        size = (folder / file.name).stat().st_size
        is_fit = file.first is not None and not footer.int96 and size < COMPACT_SMALL_BYTES
        if not is_fit or not footer.schema.equals(schema) or stored + size > COMPACT_FILE_BYTES_MAX:
            merges += [Merge(tuple(run), rows, stored)] if len(run) > 1 else []
            run, rows, stored, schema = [], 0, 0, footer.schema
        if is_fit:
            run.append(file)
            rows, stored = rows + footer.rows, stored + size
    return [*merges, Merge(tuple(run), rows, stored)] if len(run) > 1 else merges


def _merge(folder: Path, merge: Merge) -> None:
    """Writes the merged file and gives it its name, by which it replaces its parts."""
    paths = [folder / part.name for part in merge.parts]
    footers = read_footers(map(str, paths))
    first, ranges = footers[0], united(footer.id_ranges for footer in footers)
    scratch = ScratchFile(folder)
    try:
        with pq.ParquetWriter(scratch.file, with_ranges(first.schema, ranges)) as writer:
            for group in row_groups(paths, first.schema):
                writer.write_table(group, row_group_size=max(1, group.num_rows))
        scratch.sync()
        [written] = read_footers([str(scratch.path)])
        _require_whole(written, first, merge)
        scratch.rename(folder / merged_name(merge.parts))
    except BaseException:
        scratch.discard()
        raise


def _require_whole(written: Footer, part: Footer, merge: Merge) -> None:
    if written.rows != merge.rows or not written.schema.equals(part.schema):
        raise OfflineStoreError(
            f"merging {merge.parts[0].name!r} to {merge.parts[-1].name!r} gave {written.rows} rows of "
            f"{written.schema.names}, expected {merge.rows} of {part.schema.names}; the parts stay as they are, "
            "report this with one of them"
        )


def row_groups(paths: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yields the rows of files in order, as tables of the size of a row group."""
    pending: list[pa.RecordBatch] = []
    rows = decoded = 0
    for batch in chain.from_iterable(map(_batches, paths)):
        if rows + batch.num_rows > COMPACT_ROW_GROUP_ROWS_MAX or decoded > COMPACT_ROW_GROUP_BYTES_MAX:
            yield pa.Table.from_batches(pending).cast(schema)
            pending, rows, decoded = [], 0, 0
        pending.append(batch)
        rows, decoded = rows + batch.num_rows, decoded + batch.get_total_buffer_size()
    if pending:
        yield pa.Table.from_batches(pending).cast(schema)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=_READ_ROWS)
    except (pa.ArrowException, OSError) as error:
        raise SourceUnreadable(
            f"landed file {str(path)!r} cannot be read ({str(error).splitlines()[0]}); restore it or take it away, "
            "it stays as it is"
        ) from error


def remove_covered(folder: Path) -> tuple[int, int]:
    """Deletes the files that a merged one replaces, unless a reader may need them; returns how many went and stayed."""
    covered = list_landed(folder).covered
    if not covered or not is_unread(folder):
        return 0, len(covered)
    for file in covered:
        (folder / file.name).unlink(missing_ok=True)
    sync_folder(folder)
    return len(covered), 0
