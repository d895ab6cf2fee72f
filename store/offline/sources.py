"""Where the rows of a source are: its files in order, landed ones last, and what their footers say."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import pyarrow as pa
from feast.data_format import DeltaFormat, ParquetFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.errors import DefinitionError, SourceUnreadable
from store.offline.common_types import common_type, read_type
from store.offline.connection import is_pattern
from store.offline.delta import DeltaSnapshot, read_delta
from store.offline.footers import Footer, read_footers
from store.offline.landed_files import ReadGuard, list_landed
from store.offline.source_files import LANDED_SUFFIX, FoundFile, own_files, partition_types

LARDER_ID = "__larder_id"
"""In landed files the id of each row's event in the log; no column of the source."""

_INSTANT = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Parquet file of a source.

    `schema` has the columns of the file and after them those that stand in its path only, whose values `partition`
    holds as text. `may_lack` names the columns that the file may have been written without: its rows have null there
    (None: any column).
    """

    path: str
    footer: Footer
    schema: pa.Schema
    is_landed: bool
    partition: tuple[tuple[str, str | None], ...] = ()
    may_lack: frozenset[str] | None = frozenset()

    @property
    def rows(self) -> int:
        """Returns the number of rows."""
        return self.footer.rows

    @property
    def int96(self) -> frozenset[str]:
        """Returns the columns of Spark's old timestamp type."""
        return self.footer.int96


@dataclass(frozen=True, slots=True)
class Source:
    """A source as found on disk: its own files by path (a Delta table's as they were added), then the landed ones.

    `path` is the resolved declared path; `schema` has the columns that a landed file has to fit: those of all own
    files, each in a type that holds the values of all. As long as a source is kept, no compaction deletes its files.
    `originals` are the files that those of a transformed source were made of, in order; none for any other.
    """

    path: str
    files: tuple[SourceFile, ...]
    schema: pa.Schema
    guard: ReadGuard | None = field(default=None, compare=False, repr=False)
    originals: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Returns the number of rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def paths(self) -> list[str]:
        """Returns the paths of all files, in source order."""
        return [file.path for file in self.files]

    @property
    def declared_paths(self) -> list[str]:
        """Returns the paths of the files that the user knows, in source order."""
        return list(self.originals) or self.paths

    def require_unchanged(self) -> None:
        """Checks that its files are still those that were found.

        Raises:
            SourceUnreadable: one is not: what was read of it may be of neither version.
        """
        for file in self.files:
            if not file.footer.describes(file.path):
                raise SourceUnreadable(
                    f"source file {file.path!r} was changed or removed while it was read; retrieve again, and write "
                    "new files beside old ones instead of over them"
                )


def file_source(source: DataSource | None, owner: str) -> FileSource:
    """Returns a batch source as the file source that it has to be.

    Args:
        owner: whose source it is, for the message.

    Raises:
        DefinitionError: there is none, or it is of another kind or format.
    """
    if not isinstance(source, FileSource):
        kind = "none" if source is None else type(source).__name__
        raise DefinitionError(
            f"{owner}: batch source is {kind}, expected a FileSource of Parquet files or of a Delta table; declare one"
        )
    if source.file_format is not None and not isinstance(source.file_format, (ParquetFormat, DeltaFormat)):
        raise DefinitionError(
            f"{owner}: source {source.path!r} has file format {type(source.file_format).__name__}, expected Parquet "
            "or Delta; write it as Parquet or leave `file_format` out"
        )
    return source


def resolve_path(config: RepoConfig, path: str) -> str:
    """Returns a declared path as an absolute one; relative paths are resolved against the repo folder.

    Raises:
        DefinitionError: the path is on another machine.
    """
    parsed = urlparse(path)
    if parsed.scheme == "file":
        path = parsed.path
    elif parsed.scheme and parsed.netloc:
        raise DefinitionError(f"source path {path!r} is remote; expected a file, folder or glob on this machine")
    # Not `Path.resolve`: landed files stand beside the path as declared, not beside what a link points to.
    return os.path.abspath(Path(config.repo_path or ".") / path)  # noqa: PTH100


def landed_folder(resolved_path: str) -> Path:
    """Returns the folder of a source's landed files, `<source>.landed`; of a glob, with `_` for its signs."""
    plain = "".join("_" if sign in "*?[]" else sign for sign in resolved_path)
    is_literal = not is_pattern(resolved_path) or Path(resolved_path).exists()
    return Path(f"{resolved_path if is_literal else plain}{LANDED_SUFFIX}")


def open_source(config: RepoConfig, source: FileSource) -> Source:
    """Returns a source as it is on disk now, having read the footer of each of its files that is new or has changed.

    Raises:
        SourceUnreadable: no such file, or one that is not whole, not permitted or not Parquet.
        DefinitionError: a Delta table that cannot be read as plain files.
    """
    resolved = resolve_path(config, source.path)
    try:
        return _opened(resolved, source)
    except SourceUnreadable:
        raise
    except OSError as error:
        raise SourceUnreadable(
            f"source {source.name!r}: {error.filename or resolved!r} cannot be read ({error.strerror or error}); "
            "allow it to be read, or correct the path"
        ) from error


def has_files(config: RepoConfig, source: FileSource) -> bool:
    """Whether anything stands where a source has its files or its landed ones, be it readable or not."""
    resolved = resolve_path(config, source.path)
    return Path(resolved).is_file() or bool(own_files(resolved)) or landed_folder(resolved).is_dir()


def _opened(resolved: str, source: FileSource) -> Source:
    table = read_delta(resolved, source.name) if isinstance(source.file_format, DeltaFormat) else None
    own = own_files(resolved) if table is None else [FoundFile(file.path, file.partition) for file in table.files]
    guard, landed = _landed(landed_folder(resolved))
    if table is None and not own and not (landed and Path(resolved).is_dir()):
        raise SourceUnreadable(
            f"source {source.name!r}: no Parquet file at {resolved!r} (declared as {source.path!r}); "
            "write it, or correct the path, which is taken from the folder of feature_store.yaml"
        )
    footers = read_footers([file.path for file in own] + landed)
    types = partition_types(file.partition for file in own) if table is None else table.partition_types
    types |= {name: _INSTANT for name in _time_columns(source) if name in types}
    may_lack = frozenset() if table is None else frozenset(table.schema.names)
    schemas: dict[tuple[int, tuple[str, ...]], pa.Schema] = {}
    files = [
        SourceFile(
            found.path, footer, _with_partition(footer.schema, found, types, schemas), False, found.partition, may_lack
        )
        for found, footer in zip(own, footers[: len(own)], strict=True)
    ]
    files += [
        SourceFile(path, footer, footer.schema, True, may_lack=None)
        for path, footer in zip(landed, footers[len(own) :], strict=True)
    ]
    return Source(resolved, tuple(files), _schema_of(files, table), guard)


def _landed(folder: Path) -> tuple[ReadGuard | None, list[str]]:
    try:
        guard = ReadGuard(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None, []
    return guard, [str(folder / file.name) for file in list_landed(folder).files]


def _time_columns(source: FileSource) -> list[str]:
    in_file = {in_view: name for name, in_view in source.field_mapping.items()}
    names = [name for name in (source.timestamp_field, source.created_timestamp_column) if name]
    return names + [in_file[name] for name in names if name in in_file]


def _with_partition(
    schema: pa.Schema,
    found: FoundFile,
    types: dict[str, pa.DataType],
    known: dict[tuple[int, tuple[str, ...]], pa.Schema],
) -> pa.Schema:
    """Returns a file's schema with the columns of its path; a column that the file has itself is the file's.

    Args:
        known: what was answered before, so that files of one schema share one object.
    """
    names = tuple(name for name, _ in found.partition)
    if not names:
        return schema
    key = (id(schema), names)
    if key not in known:
        known[key] = pa.schema([*schema, *(pa.field(name, types[name]) for name in names if name not in schema.names)])
    return known[key]


def _schema_of(files: Sequence[SourceFile], table: DeltaSnapshot | None) -> pa.Schema:
    """Returns the columns of a source: of a Delta table as its log says, else of its own files, else of landed ones."""
    if table is not None:
        return table.schema
    own = [file for file in files if not file.is_landed]
    found: dict[str, list[pa.DataType]] = {}
    for schema in {id(file.schema): file.schema for file in own or files}.values():
        for column in schema:
            if column.name == LARDER_ID and not own:
                continue
            found.setdefault(column.name, []).append(column.type)
    return pa.schema([(name, _one_type(kinds)) for name, kinds in found.items()])


def _one_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """Returns the type of a column as the first file has it, unless that does not hold the values of all files."""
    if all(kind.equals(kinds[0]) for kind in kinds):
        return kinds[0]
    read = [read_type(kind) for kind in kinds]
    common = common_type(read)
    # A query that needs the column refuses what cannot be reconciled; another one has no business with it.
    return kinds[0] if common is None or read[0].equals(common) else common
