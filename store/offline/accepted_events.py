"""Accepted events: what the stream applied to the tiles of logged views, kept by log id so that audits can rebuild it.

They lie under `data/accepted/<view>/<definition fingerprint>/`, in files that are named and published as landed ones
are, each with the ranges of log ids that it holds by partition: so a worker that was killed, or another one that
followed it, keeps no event twice. Columns are the view's join keys, and

    __value_<column>        per input column of its windows what was aggregated, times as microseconds
    __partition, __log_id   the partition, and the id of the event, or of its copy, there
    __line_id               the id under which the event entered the log first
    __is_landed             whether it lands in the batch source
    __event, __created      its times, in microseconds

`begun.json` says by partition up to which id events were applied before they began to be kept.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import ConfigError
from store.files import locked, write_atomically
from store.kernel.definitions import ViewDefinition
from store.kernel.stream_tiles import StreamEvent
from store.kernel.windows import input_columns
from store.offline.footers import read_footers
from store.offline.id_ranges import IdRanges, with_ranges
from store.offline.landed_files import ReadGuard, ScratchFile, list_landed, publish_next
from store.offline.landing import ROW_GROUP_ROWS, landing_in
from store.offline.logged_rows import AlreadyLanded
from store.offline.sources import Source, SourceFile

PARTITION, LOG_ID, LINE_ID, IS_LANDED = "__partition", "__log_id", "__line_id", "__is_landed"
EVENT, CREATED = "__event", "__created"
TOLD = (PARTITION, LOG_ID, LINE_ID, IS_LANDED)

_STAMP = pa.timestamp("us", "UTC")
_BEGUN = "begun.json"


def accepted_folder(repo: Path, view: str) -> Path:
    """Returns the folder of the accepted events of a view, which has one for each of its definitions."""
    return repo / "data" / "accepted" / quote(view, safe="")


def definition_folder(repo: Path, definition: ViewDefinition) -> Path:
    """Returns the folder of the accepted events that were applied under a definition."""
    return accepted_folder(repo, definition.name) / definition.fingerprint


def accepted_folders(repo: Path) -> list[Path]:
    """Returns all folders of accepted events."""
    return sorted(folder for folder in (repo / "data" / "accepted").glob("*/*") if folder.is_dir())


def accepted_rows(
    definition: ViewDefinition, partition: int, rows: pa.Table, events: Sequence[StreamEvent]
) -> pa.Table:
    """Returns events as they are kept, in the order in which they come, which is that of their ids.

    Args:
        rows: the rows that they were made of, one per event.
    """
    values: Iterable[Sequence[Any]] = zip(*(event.values for event in events), strict=True)
    return pa.table(
        {
            **{key.name: rows.column(key.name) for key in definition.join_keys},
            **dict(zip(value_columns(definition), map(pa.array, values), strict=True)),
            PARTITION: pa.array([partition] * len(events), pa.int32()),
            LOG_ID: pa.array([event.log_id for event in events], pa.int64()),
            LINE_ID: pa.array([event.line_id for event in events], pa.int64()),
            IS_LANDED: pa.array([event.is_landed for event in events], pa.bool_()),
            EVENT: pa.array([event.event_us for event in events], pa.int64()).view(_STAMP),
            CREATED: pa.array([event.created_us for event in events], pa.int64()).view(_STAMP),
        }
    )


def value_columns(definition: ViewDefinition) -> list[str]:
    """Returns the names under which the values are kept that a view's windows aggregate, in the order of the inputs."""
    return [f"__value_{name}" for name in input_columns(definition.windows)]


# --- writing ------------------------------------------------------------------------------------


class AcceptedFolder:
    """One folder of accepted events, as one worker writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, int] = {}
        self._seen = ""
        self._begun: set[str] = set()

    def begin(self, partition: str, done: int) -> None:
        """Notes up to which id of a partition events were applied without being kept, if nothing is noted yet.

        Where the events of an earlier definition were kept, all of a later one are: its tiles begin with it.

        Raises:
            OSError: it cannot be written.
        """
        if partition in self._begun:
            return
        others = [folder for folder in self._folder.parent.glob("*") if folder != self._folder]
        if any(partition in begun_ids(folder) for folder in others):
            done = 0
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / _BEGUN
        with locked(path):
            begun = begun_ids(self._folder)
            if partition not in begun:
                write_atomically(path, json.dumps({**begun, partition: done}).encode())
        self._begun.add(partition)

    def append(self, table: pa.Table, ranges: IdRanges, now_us: int) -> Path:
        """Writes events as one new file, whole or not at all, and returns its path.

        Raises:
            AlreadyLanded: events of a partition up to one of these ids are kept by now; nothing was written.
            SourceError, OutOfSpace: as their names say; nothing was written.
        """
        with landing_in(self._folder):
            scratch = ScratchFile(self._folder)
            try:
                with pq.ParquetWriter(scratch.file, with_ranges(table.schema.remove_metadata(), ranges)) as writer:
                    writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                scratch.sync()
                return publish_next(scratch, now_us * 1_000, lambda: self._require_new(ranges))
            except BaseException:
                scratch.discard()
                raise

    def _require_new(self, ranges: IdRanges) -> None:
        """Checks that no file holds any of these ids; of files only those are read that came since the last time."""
        guard = ReadGuard(self._folder)
        try:
            new = [each for each in list_landed(self._folder).files if each.last is not None and each.last > self._seen]
            for footer in read_footers([str(self._folder / each.name) for each in new]):
                for name, (_, last) in footer.id_ranges.items():
                    self._kept[name] = max(last, self._kept.get(name, last))
            self._seen = max([self._seen, *(str(each.last) for each in new)])
        finally:
            guard.drop()
        late = {
            name: self._kept[name] for name, (first, _) in ranges.items() if self._kept.get(name, first - 1) >= first
        }
        if late:
            raise AlreadyLanded(late)


def end_keeping(repo: Path, views: Collection[str]) -> None:
    """Notes of views that are not logged any more that from now on events are applied without being kept."""
    kept = {quote(view, safe="") for view in views}
    for folder in accepted_folders(repo):
        if folder.parent.name not in kept:
            (folder / _BEGUN).unlink(missing_ok=True)


# --- reading ------------------------------------------------------------------------------------


def begun_ids(folder: Path) -> Mapping[str, int]:
    """Returns by log and partition up to which id events were applied without being kept.

    Raises:
        ConfigError: the file that says so cannot be understood.
    """
    path = folder / _BEGUN
    try:
        return {str(name): int(done) for name, done in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"file {str(path)!r}, which says since when events are kept, cannot be understood; delete it: audits then "
            "take what was served before for no longer known"
        ) from error


def open_accepted(folder: Path) -> Source | None:
    """Returns the accepted events of a folder as a source; None where there are none.

    Raises:
        SourceUnreadable: a file is damaged.
    """
    try:
        guard = ReadGuard(folder)
    except FileNotFoundError:
        return None
    paths = [str(folder / file.name) for file in list_landed(folder).files]
    files = [
        SourceFile(path, footer, footer.schema, is_landed=True, may_lack=None)
        for path, footer in zip(paths, read_footers(paths), strict=True)
    ]
    return Source(str(folder), tuple(files), files[0].schema, guard) if files else None
