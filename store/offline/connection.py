"""DuckDB connections that can read the declared files and nothing else, and DuckDB's errors as ours."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from store.errors import OfflineStoreError, OutOfSpace, SourceUnreadable
from store.kernel.source_scan import literal

_NO_ROOM_SIGNS = ("out of memory", "no space left", "disk full", "failed to offload", "max_temp_directory_size")
_NAMED_FILES_MAX = 3
_DAMAGE_SIGNS = ("parquet", "magic bytes", "snappy", "zstd", "gzip", "lz4", "corrupt", "thrift", "page header")


_INTERRUPTED = "Query interrupted"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What the user may set of DuckDB: None leaves DuckDB's own choice (all cores, 80 % of memory, system temp)."""

    threads: int | None = None
    memory_limit: str | None = None
    spill_folder: Path | None = None


@contextmanager
def connected(
    settings: ConnectionSettings, readable: Sequence[str], keeps_order: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens an in-memory DuckDB for one job, locked to the files in `readable`, and closes it afterwards.

    Args:
        keeps_order: whether rows of a query without ORDER BY keep the order of the source, at a cost in memory.

    Raises:
        SourceUnreadable, OutOfSpace, OfflineStoreError: what DuckDB raises inside the block, translated.
    """
    spill = Path(settings.spill_folder or tempfile.gettempdir()) / f"larder-{os.getpid()}-{secrets.token_hex(4)}"
    with translated(readable, spill):
        connection = duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        )
        try:
            for statement in _settings(settings, readable, keeps_order, spill):
                connection.execute(statement)
            yield connection
        finally:
            connection.close()
            # DuckDB removes its spill files, but not after every kind of failure.
            shutil.rmtree(spill, ignore_errors=True)


def _settings(settings: ConnectionSettings, readable: Sequence[str], keeps_order: bool, spill: Path) -> Iterator[str]:
    yield "SET TimeZone = 'UTC'"
    yield f"SET preserve_insertion_order = {str(keeps_order).lower()}"
    # A few thousand keys or positions are looked for in a file as a list, so that pages without any are not decoded.
    yield "SET dynamic_or_filter_threshold = 5000"
    # Sources are local files, which the system reads ahead by itself; DuckDB's own reading ahead costs another copy.
    yield "SET disable_parquet_prefetching = true"
    yield f"SET temp_directory = {literal(str(spill))}"
    if settings.threads is not None:
        yield f"SET threads = {settings.threads:d}"
    if settings.memory_limit is not None:
        yield f"SET memory_limit = {literal(settings.memory_limit)}"
    # A path with a pattern character can only be opened as an escaped pattern, which the list of paths does not
    # know: for such a file its folder is opened.
    plain = [path for path in readable if not is_pattern(path)]
    folders = sorted({f"{Path(path).parent}/" for path in readable if is_pattern(path)})
    yield f"SET allowed_paths = [{', '.join(map(literal, plain))}]"
    yield f"SET allowed_directories = [{', '.join(map(literal, folders))}]"
    yield "SET enable_external_access = false"
    yield "SET lock_configuration = true"


def batches_of(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yields what DuckDB hands over; what fails on the way is DuckDB's error, though Arrow raises it.

    Raises:
        duckdb.Error: for `translated`, which knows what the query reads.
    """
    try:
        yield from reader
    except (pa.ArrowException, OSError) as error:
        raise duckdb.Error(str(error)) from error


def is_pattern(path: str) -> bool:
    """Whether a path holds characters that stand for others when it is read as a pattern."""
    return any(sign in path for sign in "*?[")


@contextmanager
def translated(readable: Sequence[str], spill: Path) -> Iterator[None]:
    """Turns DuckDB's errors into ours, naming the source files if one of them is at fault."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise OutOfSpace(
            f"DuckDB ran out of memory or of room to spill: {_first_line(error)}; raise `memory_limit`, or set "
            "`spill_folder` to a disk with room, under offline_store in feature_store.yaml"
        ) from error
    except duckdb.Error as error:
        message = str(error)
        if str(spill) in message or any(sign in message.lower() for sign in _NO_ROOM_SIGNS):
            raise OutOfSpace(
                f"no room for spilling: {_first_line(error)}; set `spill_folder` under offline_store in "
                "feature_store.yaml to a folder on a disk with room"
            ) from error
        if _is_damage(error):
            # DuckDB does not always say which file it was reading.
            named = [path for path in readable if path in message] or list(readable[:_NAMED_FILES_MAX])
            raise SourceUnreadable(
                f"source file {' or '.join(map(repr, named))} cannot be read: {_first_line(error)}; "
                "restore it or write it anew"
            ) from error
        raise OfflineStoreError(f"the retrieval failed inside DuckDB: {_first_line(error)}") from error
    except RuntimeError as error:
        # What DuckDB makes of Ctrl-C during a query; callers expect Python's own.
        if str(error) == _INTERRUPTED:
            raise KeyboardInterrupt from error
        raise


def _is_damage(error: duckdb.Error) -> bool:
    """Whether an error comes from the content of a file; errors of the decoders have no class of their own."""
    is_decoder = type(error) is duckdb.Error
    is_input = isinstance(error, (duckdb.InvalidInputException, duckdb.PermissionException))
    says_so = any(sign in str(error).lower() for sign in _DAMAGE_SIGNS)
    return is_decoder or isinstance(error, duckdb.IOException) or (is_input and says_so)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
