"""The files of served vectors, read again: which there are, what they say of themselves, and their rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.errors import SourceUnreadable
from store.kernel.served_log import NOTE_KEY, REQUEST_TIME, Counts, FileNote, LoggedPlan, parse_note
from store.limits import AUDIT_BATCH_ROWS
from store.offline.landed_files import ReadGuard, list_landed

ROW_FILE = "__file"
"""Which of the files a row is from, by its place among all that were found."""


@dataclass(frozen=True, slots=True)
class Span:
    """Request times from `start_us` inclusive to `end_us` exclusive, microseconds since the epoch; None is open."""

    start_us: int | None = None
    end_us: int | None = None

    def meets(self, first_us: int, last_us: int) -> bool:
        """Whether any of the times between two others, both inclusive, is in it."""
        return (self.start_us is None or last_us >= self.start_us) and (self.end_us is None or first_us < self.end_us)

    def of(self, table: pa.Table) -> pa.Table:
        """Returns the rows whose request time is in it."""
        times = table.column(REQUEST_TIME).cast(pa.int64())
        if self.start_us is not None:
            table = table.filter(pc.greater_equal(times, self.start_us))
            times = table.column(REQUEST_TIME).cast(pa.int64())
        return table if self.end_us is None else table.filter(pc.less(times, self.end_us))


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of served vectors."""

    path: str
    note: FileNote
    row_count: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """What became of the vectors that workers served while they wrote the files that an audit reads.

    Attributes:
        served: all of them; `sampled_out` and `dropped` are not in the log, `logged` are.
        cut_workers: workers of which no last file was found, so that up to a minute of what they served may be
            missing, or which still run; `missing_files` of workers are not there any more.
    """

    served: int
    sampled_out: int
    dropped: int
    logged: int
    cut_workers: int
    missing_files: int


@dataclass(frozen=True, slots=True)
class ServedFiles:
    """The files of one service that hold vectors of a span, in the order in which they came.

    As long as it is kept, none of them is deleted. `later_workers` have files after the span as well.
    """

    files: tuple[LogFile, ...]
    span: Span
    later_workers: frozenset[str] = frozenset()
    guard: ReadGuard | None = field(default=None, compare=False, repr=False)

    @property
    def coverage(self) -> Coverage:
        """What became of all vectors."""
        counts = Counts()
        numbers: dict[str, set[int]] = {}
        ended = set(self.later_workers)
        for file in self.files:
            counts = counts.plus(file.note.counts)
            numbers.setdefault(file.note.worker, set()).add(file.note.sequence)
            if file.note.is_last:
                ended.add(file.note.worker)
        missing = sum(max(of_worker) - min(of_worker) + 1 - len(of_worker) for of_worker in numbers.values())
        logged = sum(file.row_count for file in self.files)
        return Coverage(counts.served, counts.sampled_out, counts.dropped, logged, len(numbers.keys() - ended), missing)

    def by_plan(self) -> dict[LoggedPlan, list[int]]:
        """Returns the places of the files by what their rows have in common."""
        places: dict[LoggedPlan, list[int]] = {}
        for place, file in enumerate(self.files):
            if file.row_count:
                places.setdefault(file.note.plan, []).append(place)
        return places

    def rows(self, places: Sequence[int], columns: Sequence[str], keep: "Sample") -> Iterator[pa.Table]:
        """Yields the rows of some files in blocks of bounded size, `__file` after the columns asked for.

        Raises:
            SourceUnreadable: a file is damaged, or not there any more.
        """
        for place in places:
            path = self.files[place].path
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(AUDIT_BATCH_ROWS, columns=list(columns)):
                        rows = keep.of(self.span.of(pa.Table.from_batches([batch]).select(columns)))
                        yield rows.append_column(ROW_FILE, pa.repeat(pa.scalar(place, pa.int32()), rows.num_rows))
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error


class Sample:
    """Keeps at most so many of some rows, evenly spread; all of them if there are no more."""

    def __init__(self, rows_max: int | None, row_count: int) -> None:
        self._rows_max = row_count if rows_max is None else min(rows_max, row_count)
        self._row_count = row_count
        self._seen = 0

    def of(self, table: pa.Table) -> pa.Table:
        """Returns those of the next rows that are kept."""
        first, self._seen = self._seen, self._seen + table.num_rows
        if self._rows_max >= self._row_count:
            return table
        is_kept = [
            (row + 1) * self._rows_max // self._row_count > row * self._rows_max // self._row_count
            for row in range(first, self._seen)
        ]
        return table.filter(pa.array(is_kept, pa.bool_()))


def served_files(folder: Path, project: str, service: str, span: Span) -> ServedFiles:
    """Returns the files of a service that hold vectors of a span; of a missing folder, none.

    Raises:
        SourceUnreadable: the folder or a file of Larder's cannot be read.
    """
    try:
        guard = ReadGuard(folder)
    except FileNotFoundError:
        return ServedFiles((), span)
    except OSError as error:
        raise _unreadable(str(folder), error) from error
    found, later = [], set()
    for entry in list_landed(folder).files:
        # Whatever a file holds was served before it came.
        if entry.last is None or (span.start_us is not None and _arrival_us(entry.last) < span.start_us):
            continue
        file = _opened(str(folder / entry.name))
        if file is None or (file.note.plan.project, file.note.plan.service) != (project, service):
            continue
        if span.meets(file.note.first_us, file.note.last_us):
            found.append(file)
        elif span.end_us is not None and file.note.first_us >= span.end_us:
            later.add(file.note.worker)
    return ServedFiles(tuple(found), span, frozenset(later), guard)


def _arrival_us(stem: str) -> int:
    return int(stem.partition("-")[0]) // 1_000


def _opened(path: str) -> LogFile | None:
    """Returns a log file, None for one that is none of Larder's."""
    try:
        metadata = pq.read_metadata(path)
        raw = (metadata.metadata or {}).get(NOTE_KEY)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    return None if raw is None else LogFile(path, parse_note(raw, path), metadata.num_rows)


def _unreadable(path: str, error: Exception) -> SourceUnreadable:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return SourceUnreadable(f"served vectors at {path!r} cannot be read ({reason}); restore the file or take it away")
