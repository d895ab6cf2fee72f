"""Entity rows as the text of one SELECT of DuckDB's, for callers in Python: over HTTP there is no SQL."""

from pathlib import Path

import duckdb

from store.errors import EntityRowsError, LarderError, OutOfSpace
from store.kernel.source_scan import literal
from store.offline.connection import ConnectionSettings
from store.offline.entity_sources import SpooledRows

_BATCH_ROWS = 65_536


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
        OutOfSpace: no room for the rows.
    """
    _check(text)
    spill = settings.spill_folder
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
            return SpooledRows.keep(connection.sql(text).to_arrow_reader(_BATCH_ROWS), spill)
    except duckdb.OutOfMemoryException as error:
        raise OutOfSpace(
            f"entity rows: the SELECT ran out of memory ({_first_line(error)}); raise `memory_limit` or set "
            "`spill_folder` under offline_store in feature_store.yaml"
        ) from error
    except duckdb.Error as error:
        raise _refusal(text, _first_line(error)) from error


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
