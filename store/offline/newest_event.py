"""The newest event time of a source: mostly its files' footers tell it, and else one column of few rows is read."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.errors import SourceUnreadable
from store.kernel.source_scan import EventRange
from store.limits import FOOTERS_MAX, FRESHNESS_BATCH_ROWS, FRESHNESS_SCAN_ROWS_MAX
from store.offline.footers import row_group_ranges
from store.offline.source_columns import needed_columns, scan_of
from store.offline.sources import SourceFile, open_source

_PER_US = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
_US_PER_DAY = 86_400_000_000
_DAYS_MAX = 100_000_000


@dataclass(frozen=True, slots=True)
class NewestEvents:
    """The newest event times of some rows, on both sides of an instant.

    Units: microseconds since the epoch, floor.

    Attributes:
        newest_us: of the rows at or before it, None where there are none.
        next_us: the first one after it, and `last_us` the last, None where there are none.
    """

    newest_us: int | None = None
    next_us: int | None = None
    last_us: int | None = None

    def joined(self, other: "NewestEvents") -> "NewestEvents":
        """Returns what is true of the rows of both."""
        return NewestEvents(
            max((us for us in (self.newest_us, other.newest_us) if us is not None), default=None),
            min((us for us in (self.next_us, other.next_us) if us is not None), default=None),
            max((us for us in (self.last_us, other.last_us) if us is not None), default=None),
        )

    def holds_at(self, now_us: int) -> bool:
        """Whether it is still what is to be said at a later or earlier instant, as no event lies between."""
        return (self.newest_us is None or self.newest_us <= now_us) and (self.next_us is None or now_us < self.next_us)


class NewestEventReader:
    """Reads the newest event times of sources, and keeps what it had to read files for.

    A footer tells the range of its file's times. Only where it does not, or where the range reaches beyond now, is
    the column read, and of it only row groups that can matter. What was read holds until the file changes or an event
    comes that lay in the future.
    """

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[str, tuple[int, ...], str], NewestEvents] = OrderedDict()

    def newest(self, config: RepoConfig, source: FileSource, now_us: int) -> NewestEvents:
        """Returns the newest event times of a source as it is on disk now, landed rows included.

        Raises:
            SourceError: the source is not there, cannot be read, or has no such column; or too many rows would have to
                be read.
            DefinitionError: a Delta table that cannot be read as plain files.
        """
        owner = f"source {source.name!r}"
        found = open_source(config, source)
        needed = needed_columns(owner, source, found, (), ())
        ranges = {
            position: known
            for group in scan_of(found, needed).groups
            for position, known in zip(group.positions, group.event_ranges, strict=True)
        }
        told = NewestEvents()
        unread: list[SourceFile] = []
        for position, file in enumerate(found.files):
            known = _told(ranges[position], now_us)
            if known is None and (known := self._kept(file, needed.event, now_us)) is None:
                unread.append(file)
            else:
                told = told.joined(known)
        rows = sum(file.rows for file in unread)
        if rows > FRESHNESS_SCAN_ROWS_MAX:
            raise SourceUnreadable(
                f"{owner}: the footers of its files do not tell the newest event time up to now, and {rows} rows are "
                f"more than the {FRESHNESS_SCAN_ROWS_MAX} that are read for it; write the files with statistics, in "
                "order of time, and without rows from the future"
            )
        for file in unread:
            told = told.joined(self._of_file(file, needed.event, now_us))
        return told

    def _kept(self, file: SourceFile, column: str, now_us: int) -> NewestEvents | None:
        kept = self._read.get((file.path, file.footer.stamp, column))
        return kept if kept is not None and kept.holds_at(now_us) else None

    def _of_file(self, file: SourceFile, column: str, now_us: int) -> NewestEvents:
        told = NewestEvents()
        for times_us in _times(file, column, now_us):
            if isinstance(times_us, NewestEvents):
                told = told.joined(times_us)
                continue
            past, future = times_us[times_us <= now_us], times_us[times_us > now_us]
            if len(past):
                told = told.joined(NewestEvents(int(past.max())))
            if len(future):
                told = told.joined(NewestEvents(None, int(future.min()), int(future.max())))
        self._read[file.path, file.footer.stamp, column] = told
        while len(self._read) > FOOTERS_MAX:
            self._read.popitem(last=False)
        return told


def _told(known: EventRange | None, now_us: int) -> NewestEvents | None:
    """Returns what a range of event times tells by itself, None where that is not enough."""
    if known is None:
        return None
    if known.low_us > known.high_us:
        return NewestEvents()
    if known.high_us <= now_us:
        return NewestEvents(known.high_us)
    return NewestEvents(None, known.low_us, known.high_us) if known.low_us > now_us else None


def _times(file: SourceFile, column: str, now_us: int) -> Iterator[NewestEvents | npt.NDArray[np.int64]]:
    """Yields what row groups tell by themselves, and the event times of the others batch by batch.

    Raises:
        SourceUnreadable: the file cannot be read.
    """
    try:
        with pq.ParquetFile(file.path, coerce_int96_timestamp_unit="us") as opened:
            unread = []
            for number, known in enumerate(row_group_ranges(opened.metadata, column)):
                if (told := _told(known, now_us)) is None:
                    unread.append(number)
                else:
                    yield told
            # One thread, and in batches: lookups go on beside it.
            batches = opened.iter_batches(FRESHNESS_BATCH_ROWS, unread, [column], use_threads=False) if unread else ()
            for batch in batches:
                yield _us_of(batch.column(0))
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise SourceUnreadable(
            f"column {column!r} of source file {file.path!r} cannot be read ({reason}); restore it or write it anew"
        ) from error


def _us_of(times: Any) -> npt.NDArray[np.int64]:
    """Returns times, other than nulls, in whole microseconds since the epoch (floor)."""
    times = times.drop_null()
    if pat.is_timestamp(times.type):
        factor, divisor = _PER_US[times.type.unit]
        raw: npt.NDArray[np.int64] = times.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return raw * factor // divisor
    days: npt.NDArray[np.int64] = times.cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.int64)
    return days.clip(-_DAYS_MAX, _DAYS_MAX) * _US_PER_DAY
