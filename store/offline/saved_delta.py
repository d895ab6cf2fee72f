"""Training sets as Delta tables: one new Parquet file with the manifest in it, taken into the table by one commit."""

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists

from store.errors import DefinitionError, OfflineStoreError, OutOfSpace, SourceUnreadable
from store.files import is_disk_full
from store.offline.delta_types import DeltaColumns
from store.offline.saved import DescribedBatches, write_file

if TYPE_CHECKING:
    from deltalake.transaction import AddAction

_STEM = "training_set-"
"""How names of data files begin, which tells those of a killed run from files of others."""

_LOG = "_delta_log"


def check_delta_location(folder: Path, *, allow_overwrite: bool) -> None:
    """Refuses a folder to which a training set may not be saved as a Delta table.

    Raises:
        SavedDatasetLocationAlreadyExists: there is a table and it may not be overwritten, or there is something else.
        SourceUnreadable: there is a table, and its log cannot be read.
        DefinitionError: the `deltalake` package is missing, or reads the path as another one.
    """
    try:
        from deltalake import DeltaTable
    except ImportError as error:
        raise DefinitionError(
            f"saved dataset {str(folder)!r} is to be a Delta table, which takes the package 'deltalake'; "
            "install larder[delta], or save as Parquet"
        ) from error
    if unquote(str(folder)) != str(folder):
        raise DefinitionError(
            f"saved dataset {str(folder)!r} is to be a Delta table, and its path has a percent sign that the package "
            "'deltalake' would decode; save it elsewhere, or as Parquet"
        )
    if not folder.exists():
        return
    is_table = folder.is_dir() and DeltaTable.is_deltatable(str(folder))
    is_free = allow_overwrite if is_table else folder.is_dir() and all(map(_is_left_over, folder.iterdir()))
    if not is_free:
        raise SavedDatasetLocationAlreadyExists(location=str(folder))
    if is_table:
        _require_readable(folder)


def _require_readable(folder: Path) -> None:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        DeltaTable(str(folder))
    except DeltaError as error:
        raise SourceUnreadable(
            f"Delta table {str(folder)!r} cannot be read ({str(error).splitlines()[0]}), so it cannot be overwritten; "
            "repair or remove it"
        ) from error


def save_as_delta(folder: Path, batches: DescribedBatches, *, allow_overwrite: bool) -> dict[str, Any]:
    """Writes batches as the newest version of a Delta table, and nothing else is in it; returns the manifest.

    The rows are in their order in one data file, whose footer has the manifest, so that both come with one commit.
    Columns are cast as `DeltaColumns` says; the manifest describes them as they were before, so that a training set has
    one digest, whatever it is saved as.

    Raises:
        SavedDatasetLocationAlreadyExists: the folder is not free, or no longer.
        SourceUnreadable: the table that is there cannot be read.
        DefinitionError: the `deltalake` package is missing, or reads the path as another one.
        WrongType: a column or value that no Delta table can hold.
        OutOfSpace: no room; an earlier version then stays as it was.
        OfflineStoreError: the commit failed, as it does when another writer was faster.
    """
    check_delta_location(folder, allow_overwrite=allow_overwrite)
    schemas: list[DeltaColumns] = []
    path = folder / f"{_STEM}{uuid.uuid4()}.parquet"

    def cast(batch: pa.RecordBatch) -> pa.RecordBatch:
        if not schemas:
            schemas.append(DeltaColumns(batch.schema))
        return schemas[0].cast(batch)

    manifest = write_file(path, map(cast, batches), batches.manifest)
    _commit(path, schemas[0].schema, manifest["rows"], allow_overwrite=allow_overwrite)
    return manifest


def _commit(path: Path, schema: pa.Schema, rows: int, *, allow_overwrite: bool) -> None:
    from deltalake import Schema
    from deltalake.exceptions import DeltaError
    from deltalake.transaction import create_table_with_add_actions

    folder = path.parent
    try:
        create_table_with_add_actions(
            str(folder), Schema.from_arrow(schema), [_added(path, rows)], "overwrite" if allow_overwrite else "error"
        )
    except (DeltaError, OSError) as error:
        _drop_if_unused(path)
        if isinstance(error, OSError) and is_disk_full(error):
            raise OutOfSpace(f"no room to write {str(folder)!r}; free some, nothing was written") from error
        # It was free when the work began.
        check_delta_location(folder, allow_overwrite=allow_overwrite)
        raise OfflineStoreError(
            f"Delta table {str(folder)!r} did not take the training set ({str(error).splitlines()[0]}); it is as "
            "it was before, so save again, or elsewhere"
        ) from error


def _added(path: Path, rows: int) -> "AddAction":
    from deltalake.transaction import AddAction

    status = path.stat()
    return AddAction(
        path=path.name,
        size=status.st_size,
        partition_values={},
        modification_time=status.st_mtime_ns // 1_000_000,
        data_change=True,
        stats=json.dumps({"numRecords": rows}),
    )


def _drop_if_unused(path: Path) -> None:
    """Deletes a data file unless a commit names it, for one can fail after it was written, or nobody can tell."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    folder = str(path.parent)
    try:
        named = DeltaTable(folder).file_uris() if DeltaTable.is_deltatable(folder) else []
    except DeltaError:
        return
    if not any(uri.endswith(path.name) for uri in named):
        path.unlink(missing_ok=True)


def _is_left_over(path: Path) -> bool:
    """Whether a killed run left this, before its commit."""
    if path.name == _LOG:
        return path.is_dir() and not any(path.glob("*.json")) and not any(path.glob("*.parquet"))
    return path.name.startswith((_STEM, f".{_STEM}"))
