"""Entity rows as the text of one SELECT of DuckDB's, for callers in Python: over HTTP there is no SQL."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from store.errors import EntityRowsError, LarderError, OutOfSpace
from store.kernel.source_scan import literal
from store.offline.connection import ConnectionSettings
from store.offline.entity_sources import SpooledRows, ensure_spill_folder

_BATCH_ROWS = 65_536
_OUT_OF_MEMORY = "Out of Memory Error"
"""How DuckDB begins the message where its class is lost."""


def is_query(text: str) -> bool:
    """Whether a text is meant as SQL rather than as a path: it parses as such, or begins as only SQL does."""
    try:
        return bool(duckdb.extract_statements(text))
    except duckdb.Error:
        return text.lstrip().partition(" ")[0].strip("(").upper() in {"SELECT", "WITH", "FROM", "VALUES", "TABLE"}


def rows_of_query(text: str, folder: Path, settings: ConnectionSettings) -> SpooledRows:
    """Returns the rows of one SELECT; it may read files, whose relative paths are taken from `folder`.

    Raises:
        EntityRowsError: not a single SELECT, or one that fails.
        ConfigError: `spill_folder` cannot be used.
        OutOfSpace: no room for the rows.
    """
    _check(text)
    spill = settings.spill_folder
    ensure_spill_folder(spill)
    try:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"SET file_search_path = {literal(str(folder))}")
            if settings.threads is not None:
                connection.execute(f"SET threads = {settings.threads:d}")
            if settings.memory_limit is not None:
                connection.execute(f"SET memory_limit = {literal(settings.memory_limit)}")
            if spill is not None:
                connection.execute(f"SET temp_directory = {literal(str(spill))}")
            reader = connection.sql(text).to_arrow_reader(_BATCH_ROWS)
            return SpooledRows.keep(reader.schema, _passed_on(reader, text), spill)
    except duckdb.Error as error:
        raise _failure(text, error) from error


def _passed_on(reader: pa.RecordBatchReader, text: str) -> Iterator[pa.RecordBatch]:
    """Yields the batches of a SELECT; what fails after the first ones comes as an error of Arrow's."""
    try:
        yield from reader
    except (pa.ArrowException, OSError) as error:
        raise _failure(text, error) from error


def _failure(text: str, error: Exception) -> LarderError:
    if isinstance(error, duckdb.OutOfMemoryException) or str(error).startswith(_OUT_OF_MEMORY):
        return OutOfSpace(
            f"entity rows: the SELECT ran out of memory ({_first_line(error)}); raise `memory_limit` or set "
            "`spill_folder` under offline_store in feature_store.yaml"
        )
    return _refusal(text, _first_line(error))


def _check(text: str) -> None:
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise _refusal(text, _first_line(error)) from error
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        raise _refusal(text, f"it is {' and '.join(kinds)}")


def _refusal(text: str, why: str) -> LarderError:
    return EntityRowsError(
        f"entity rows: {text[:200]!r} is not a single SELECT that runs ({why}); write one SELECT that gives the join "
        "keys and a column 'event_timestamp'"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
