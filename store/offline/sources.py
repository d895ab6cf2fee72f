"""Where the rows of a source are: its files in order, landed ones last, and what their footers say."""

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.errors import DefinitionError, SourceUnreadable
from store.offline.connection import is_pattern

LANDED_SUFFIX = ".landed"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Parquet file of a source, as its footer describes it.

    `int96` names the columns of Spark's old timestamp type, which DuckDB reads in microseconds (all that Spark has),
    although Arrow calls them nanoseconds.
    """

    path: str
    schema: pa.Schema
    int96: frozenset[str]
    rows: int
    is_landed: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A source as found on disk: its own files by path, then the landed ones by arrival.

    `path` is the resolved declared path.
    """

    path: str
    files: tuple[SourceFile, ...]

    @property
    def rows(self) -> int:
        """Returns the number of rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def paths(self) -> list[str]:
        """Returns the paths of all files, in source order."""
        return [file.path for file in self.files]

    @property
    def schema(self) -> pa.Schema:
        """Returns the schema of the first file: the one that a landed file has to fit."""
        return self.files[0].schema


def file_source(source: DataSource | None, owner: str) -> FileSource:
    """Returns a batch source as the file source that it has to be.

    Args:
        owner: whose source it is, for the message.

    Raises:
        DefinitionError: there is none, or it is of another kind or format.
    """
    if not isinstance(source, FileSource):
        kind = "none" if source is None else type(source).__name__
        raise DefinitionError(f"{owner}: batch source is {kind}, expected a FileSource of Parquet files; declare one")
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        raise DefinitionError(
            f"{owner}: source {source.path!r} has file format {type(source.file_format).__name__}, expected Parquet; "
            "write it as Parquet or leave `file_format` out"
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
    """Returns a source as it is on disk now, having read the footer of each of its files.

    Raises:
        SourceUnreadable: no such file, or one that is not whole, not permitted or not Parquet.
    """
    resolved = resolve_path(config, source.path)
    own = _own_files(resolved)
    landed = sorted(str(path) for path in landed_folder(resolved).glob("[!.]*.parquet"))
    if not own and not (landed and Path(resolved).is_dir()):
        raise SourceUnreadable(
            f"source {source.name!r}: no Parquet file at {resolved!r} (declared as {source.path!r}); "
            "write it, or correct the path, which is taken from the folder of feature_store.yaml"
        )
    files = [_read_footer(path, False) for path in own] + [_read_footer(path, True) for path in landed]
    return Source(resolved, tuple(files))


def _own_files(resolved: str) -> list[str]:
    path = Path(resolved)
    if path.is_dir():
        return sorted(_parquet_files_under(resolved))
    if path.exists():
        return [resolved]
    # Not `Path.glob`, which cannot take an absolute pattern.
    return sorted(found for found in glob.glob(resolved, recursive=True) if Path(found).is_file())  # noqa: PTH207


def _parquet_files_under(folder: str) -> Iterable[str]:
    for place, folders, names in os.walk(folder):
        # Landed files belong to the source beside them; dotted and underscored names are writers' scratch.
        folders[:] = [name for name in folders if not name.startswith((".", "_")) and not name.endswith(LANDED_SUFFIX)]
        for name in names:
            if name.endswith(".parquet") and not name.startswith((".", "_")):
                yield str(Path(place) / name)


def _read_footer(path: str, is_landed: bool) -> SourceFile:
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
            int96 = frozenset(leaf.path for leaf in leaves if leaf.physical_type == "INT96")
            return SourceFile(path, file.schema_arrow, int96, metadata.num_rows, is_landed)
    except (pa.ArrowException, OSError) as error:
        raise SourceUnreadable(
            f"source file {path!r} cannot be read as Parquet ({str(error).splitlines()[0]}); "
            "restore it or write it anew"
        ) from error
