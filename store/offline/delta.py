"""Delta tables as plain Parquet files: those that the newest version of the log holds, in the order of the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import pyarrow as pa

from store.errors import DefinitionError, SourceUnreadable
from store.offline.source_files import FoundFile

if TYPE_CHECKING:
    from deltalake import DeltaTable

_PLAIN_FEATURES = frozenset(
    {"timestampNtz", "typeWidening", "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck"}
)
"""What a reader of plain files may ignore. Column mapping and deletion vectors are looked at one by one: a table may
allow them and not use them."""

_MAPPING = "delta.columnMapping.mode"


@dataclass(frozen=True, slots=True)
class DeltaSnapshot:
    """The newest version of a Delta table.

    Files are in the order in which they were added, by the times in the log; files of one commit, by path. Rows of
    equal times therefore go to the last commit. The columns of a partition stand in no file, so `files` tells their
    values as text and `partition_types` their types.
    """

    files: tuple[FoundFile, ...]
    schema: pa.Schema
    partition_types: dict[str, pa.DataType]


def read_delta(resolved: str, source_name: str) -> DeltaSnapshot:
    """Returns what the log of a Delta table says of its newest version.

    Raises:
        DefinitionError: the `deltalake` package is missing, or the table's files alone do not tell its rows.
        SourceUnreadable: there is no Delta table, or its log cannot be read.
    """
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise DefinitionError(
            f"source {source_name!r} is a Delta table, which takes the package 'deltalake'; install larder[delta]"
        ) from error
    try:
        table = DeltaTable(resolved)
        _refuse_hidden_rows(table, resolved)
        actions: list[dict[str, Any]] = pa.table(table.get_add_actions()).to_pylist()
        schema = pa.schema(table.schema().to_arrow())
        partitions: Sequence[str] = table.metadata().partition_columns
    except (DeltaError, OSError) as error:
        raise SourceUnreadable(
            f"source {source_name!r}: no readable Delta table at {resolved!r} ({str(error).splitlines()[0]}); "
            "write it, or correct the path, which is taken from the folder of feature_store.yaml"
        ) from error
    actions.sort(key=lambda action: (action["modification_time"], action["path"]))
    files = tuple(_file(resolved, action, partitions) for action in actions)
    return DeltaSnapshot(files, schema, {name: schema.field(name).type for name in partitions})


def _refuse_hidden_rows(table: "DeltaTable", resolved: str) -> None:
    """Refuses a table whose Parquet files say something else than the table does."""
    mode = table.metadata().configuration.get(_MAPPING, "none")
    if mode != "none":
        raise DefinitionError(
            f"Delta table {resolved!r} maps its columns by {mode} ({_MAPPING}), so its files have other names; "
            f"write it as a table whose {_MAPPING} is 'none'"
        )
    features = set(table.protocol().reader_features or ())
    if "deletionVectors" in features and pa.table(table.deletion_vectors()).num_rows:
        raise DefinitionError(
            f"Delta table {resolved!r} has deletion vectors, so its files hold rows that were deleted; apply them, "
            "with REORG TABLE ... APPLY (PURGE) or an overwrite"
        )
    unknown = sorted(features - _PLAIN_FEATURES - {"deletionVectors", "columnMapping"})
    if unknown:
        raise DefinitionError(
            f"Delta table {resolved!r} needs reader features {unknown}, which Larder does not know; it reads plain "
            "Parquet files, so write the table without them"
        )


def _file(resolved: str, action: dict[str, Any], partitions: Sequence[str]) -> FoundFile:
    path = unquote(action["path"])
    parsed = urlparse(action["path"])
    if parsed.scheme == "file":
        path = unquote(parsed.path)
    elif parsed.scheme:
        raise DefinitionError(f"Delta table {resolved!r} has the remote file {path!r}; expected files on this machine")
    values = action.get("partition") or {}
    return FoundFile(str(Path(resolved) / path), tuple((name, _text(values.get(name))) for name in partitions))


def _text(value: Any) -> str | None:
    """Returns a partition value as text that DuckDB reads back as the value."""
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return None if value is None else str(value)
