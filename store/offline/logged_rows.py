"""Rows that land from the event log: each with the id of its event, each file with the ranges of ids that it holds.

What has landed is read from the files themselves, so a landing that was killed, or done by a worker that another one
had followed, is repeated without landing a row twice: a file is only published if the ranges of all files before it in
its folder end before its own begin, which is looked up under the lock of publications.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.clock import clock_for
from store.errors import DefinitionError
from store.offline.footers import read_footers
from store.offline.id_ranges import IdRanges, with_ranges
from store.offline.landed_files import ReadGuard, ScratchFile, list_landed, publish_next
from store.offline.landing import ROW_GROUP_ROWS, fit_to_source, landing_in
from store.offline.sources import LARDER_ID, landed_folder, open_source, resolve_path


class AlreadyLanded(Exception):
    """Rows of these ids, or later ones, have landed by somebody else."""

    def __init__(self, landed: Mapping[str, int]) -> None:
        super().__init__(dict(landed))
        self.landed = landed


def land_logged_rows(
    config: RepoConfig, source: FileSource, table: pa.Table, ids: Iterable[int], ranges: IdRanges
) -> Path:
    """Writes rows as one new file that sorts after all that landed before, and returns its path.

    Args:
        table: the source's columns under their names in the view or in the file.
        ids: of the rows' events.
        ranges: of these ids by partition.

    Raises:
        AlreadyLanded: rows of a partition up to one of its ids have landed by now; nothing was written.
        PushedRowsError: a value does not fit its column as the source has it now.
        SourceError, OutOfSpace: as their names say; nothing was written.
    """
    schema = open_source(config, source).schema
    if LARDER_ID in schema.names:
        raise DefinitionError(
            f"source {source.name!r} has a column {LARDER_ID!r}, a name that Larder keeps for the ids of events; "
            "rename the column"
        )
    folder = landed_folder(resolve_path(config, source.path))
    table = _with_columns_of(schema, table, source)
    fitted = fit_to_source(table, schema, source).append_column(LARDER_ID, pa.array(ids, pa.int64()))
    with landing_in(folder):
        scratch = ScratchFile(folder)
        try:
            with pq.ParquetWriter(scratch.file, with_ranges(fitted.schema, ranges)) as writer:
                writer.write_table(fitted, row_group_size=ROW_GROUP_ROWS)
            scratch.sync()
            now_us = clock_for(Path(config.repo_path or ".")).now_us()
            return publish_next(scratch, now_us * 1_000, lambda: _require_new(folder, ranges))
        except BaseException:
            scratch.discard()
            raise


def _with_columns_of(schema: pa.Schema, table: pa.Table, source: FileSource) -> pa.Table:
    """Returns rows with the columns that the source has by now: null where they had none yet, gone where they are."""
    mapping = source.field_mapping or {}
    names = {mapping.get(name, name): name for name in schema.names}
    table = table.select([name for name in table.column_names if name in names or name in schema.names])
    for in_view, name in names.items():
        if in_view not in table.column_names and name not in table.column_names:
            table = table.append_column(in_view, pa.nulls(table.num_rows, schema.field(name).type))
    return table


def landed_ids(folder: Path) -> dict[str, int]:
    """Returns by log and partition the last id whose row has landed in a folder; none for a missing folder."""
    try:
        guard = ReadGuard(folder)
    except FileNotFoundError:
        return {}
    try:
        paths = [str(folder / file.name) for file in list_landed(folder).files]
        landed: dict[str, int] = {}
        for footer in read_footers(paths):
            for name, (_, last) in footer.id_ranges.items():
                landed[name] = max(last, landed.get(name, last))
        return landed
    finally:
        guard.drop()


def _require_new(folder: Path, ranges: IdRanges) -> None:
    landed = landed_ids(folder)
    late = {name: landed[name] for name, (first, _) in ranges.items() if landed.get(name, first - 1) >= first}
    if late:
        raise AlreadyLanded(late)
