"""The caller's entity rows: checked, with their times as integers, and never changed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from feast.repo_config import RepoConfig

from store.errors import EntityRowsError, shown
from store.kernel.instants import Instants, Ints, Truths
from store.offline.column_types import is_instant, is_text, plain_type
from store.offline.connection import ConnectionSettings
from store.offline.entity_queries import is_query, rows_of_query
from store.offline.entity_sources import ParquetRows, RowSource, SpooledRows, TableRows, require_distinct_names
from store.offline.source_files import own_files

DEFAULT_TIMESTAMP_COLUMN = "event_timestamp"
_ISO_TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}(:\d{2}(:\d{2}(\.\d{1,9})?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
_ZONE_AT_END = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"
_US_MIN, _US_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first microsecond of year 1 and the last one of year 9999, which pipelines use as "always" and "never"."""
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_OF_TIME = date | time | np.datetime64

_ANY_ROWS = (
    f"a pandas DataFrame, a pyarrow Table or RecordBatchReader, the path of Parquet files, or the text of one SELECT, "
    f"with the join keys and a column {DEFAULT_TIMESTAMP_COLUMN!r}"
)


@dataclass(frozen=True, slots=True)
class EntityBlock:
    """Some consecutive entity rows: as they will stand in the answer, and their instants.

    `is_timed` says of each row whether it has a time; where it has none, `instants` means nothing.
    """

    table: pa.Table
    instants: Instants
    is_timed: Truths

    @classmethod
    def of(cls, table: pa.Table, timestamp_column: str) -> "EntityBlock":
        """Returns entity rows as a block.

        Raises:
            EntityRowsError: a time that is out of range.
        """
        return cls(table, *_instants(table.column(timestamp_column), timestamp_column))


@dataclass(frozen=True, slots=True)
class EntityRows:
    """Entity rows as they will stand in the answer, and which column holds their times.

    `times` is that column, parsed, where the rows have it as text.
    """

    source: RowSource
    timestamp_column: str
    times: pa.ChunkedArray | None = None

    @property
    def schema(self) -> pa.Schema:
        """Returns the schema that the rows have in the answer."""
        schema = self.source.schema
        if self.times is None:
            return schema
        place = schema.get_field_index(self.timestamp_column)
        return schema.set(place, pa.field(self.timestamp_column, self.times.type))

    @property
    def row_count(self) -> int:
        """Returns how many rows there are."""
        return self.source.row_count

    def blocks(self, rows_max: int) -> Iterator[EntityBlock]:
        """Yields the rows in order, in blocks of `rows_max` rows, the last one smaller; none if there are no rows.

        Raises:
            EntityRowsError: a time that is out of range.
        """
        start = 0
        place = self.source.schema.get_field_index(self.timestamp_column)
        for table in self.source.blocks(rows_max):
            if self.times is not None:
                times = self.times.slice(start, table.num_rows)
                table = table.set_column(place, self.timestamp_column, times)  # noqa: PLW2901 - the same rows
            start += table.num_rows
            yield EntityBlock.of(table, self.timestamp_column)

    @property
    def time_range_us(self) -> tuple[int | None, int | None]:
        """Returns the least and greatest instant in floor microseconds since the Unix epoch; None without any."""
        column = self.times if self.times is not None else self.source.column(self.timestamp_column)
        instants, is_timed = _instants(column, self.timestamp_column)
        us = instants.us[is_timed]
        return (int(us.min()), int(us.max())) if len(us) else (None, None)

    def is_all_null(self, name: str) -> bool:
        """Whether a column holds nothing but nulls, so that it fits any type."""
        if pat.is_null(self.source.schema.field(name).type):
            return True
        column = self.source.column(name)
        return bool(column.null_count == len(column))


def entity_rows(rows: Any, config: RepoConfig, settings: ConnectionSettings) -> EntityRows:
    """Returns entity rows in any of the forms that a caller may have them in.

    Times without a zone are UTC. Times given as text are parsed and stand in the answer as timestamps in UTC (as
    Feast has it); all other columns stay as they are.

    Args:
        rows: a pandas frame, an Arrow table, a reader of Arrow batches (read to its end here), the path of a Parquet
            file, folder or glob, or the text of one SELECT of DuckDB's. Relative paths, also those in the SELECT, are
            taken from the repo folder.

    Raises:
        EntityRowsError: none of these, columns of the same name, or no single usable timestamp column.
        SourceUnreadable: a file that cannot be read.
    """
    return checked_rows(_row_source(rows, config, settings))


def checked_rows(source: RowSource) -> EntityRows:
    """Returns rows as entity rows.

    Raises:
        EntityRowsError: columns of the same name, or no single usable timestamp column.
    """
    require_distinct_names(source.schema, "entity rows")
    name = _timestamp_column(source.schema)
    kind = plain_type(source.schema.field(name).type)
    found = EntityRows(source, name)
    if is_text(kind):
        return replace(found, times=parse_instants(source.column(name), f"entity column {name!r}"))
    # A column without a value has no type to speak of: pandas makes an empty one float or object.
    if not is_instant(kind) and not found.is_all_null(name):
        raise EntityRowsError(
            f"entity column {name!r} has type {kind}, expected a timestamp; convert it, for instance with "
            "pandas.to_datetime(..., utc=True)"
        )
    return found


def _row_source(rows: Any, config: RepoConfig, settings: ConnectionSettings) -> RowSource:
    if isinstance(rows, pd.DataFrame):
        return TableRows(_table_of_frame(rows))
    if isinstance(rows, pa.Table):
        return TableRows(rows)
    if isinstance(rows, pa.RecordBatch):
        return TableRows(pa.Table.from_batches([rows]))
    if isinstance(rows, pa.RecordBatchReader):
        return SpooledRows.keep(rows.schema, rows, settings.spill_folder)
    folder = Path(config.repo_path or ".").absolute()
    if isinstance(rows, str) and is_query(rows):
        return rows_of_query(rows, folder, settings)
    if isinstance(rows, str | Path):
        resolved = str(folder / rows)
        found = [file.path for file in own_files(resolved)] if str(rows).strip() else []
        if not found:
            raise EntityRowsError(
                f"entity rows are {str(rows)[:200]!r}, which is neither a Parquet file, folder or glob "
                f"({resolved[:200]!r} has none) nor one SELECT; pass {_ANY_ROWS}"
            )
        return ParquetRows.open(found)
    given = "none at all" if rows is None else f"{type(rows).__name__} {str(rows)[:60]!r}"
    raise EntityRowsError(f"entity rows are {given}, expected {_ANY_ROWS}; build one and pass it as `entity_df`")


def _table_of_frame(rows: pd.DataFrame) -> pa.Table:
    # The same rows without `attrs`: those are the frame's, may hold anything, and Arrow would write them down as JSON.
    rows = pd.DataFrame(rows, copy=False)
    counts = Counter(rows.columns.tolist())
    for name in rows.columns:
        if counts[name] == 1 and pd.api.types.is_object_dtype(rows[name]):
            _refuse_mixed_times(rows[name], str(name))
            _refuse_huge_integers(rows[name], str(name))
    try:
        return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise EntityRowsError(
            f"entity rows cannot be read as columns of one type each: {str(error).splitlines()[0]}; "
            "give each column a single type and a name of its own"
        ) from error


def _refuse_mixed_times(column: "pd.Series[Any]", name: str) -> None:
    """Refuses dates beside times, which Arrow would cut to dates, and times with a zone beside those without."""
    if not any(issubclass(kind, _OF_TIME) for kind in set(map(type, column))):
        return
    times = [value for value in column.dropna() if isinstance(value, _OF_TIME)]
    days = [value for value in times if isinstance(value, date) and not isinstance(value, datetime)]
    if 0 < len(days) < len(times):
        raise EntityRowsError(
            f"entity column {name!r} mixes dates such as {days[0]!r} with times of day; make all of them times"
        )
    if len({getattr(value, "tzinfo", None) is not None for value in times}) > 1:
        raise EntityRowsError(
            f"entity column {name!r} mixes times with and without a zone; give all of them one, or none (then UTC)"
        )


def _refuse_huge_integers(column: "pd.Series[Any]", name: str) -> None:
    if not any(issubclass(kind, int) for kind in set(map(type, column))):
        return
    huge = [value for value in column if isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX]
    if huge:
        raise EntityRowsError(
            f"entity column {name!r} holds the integer {shown(huge[0])}, which 64 bits do not hold; make the "
            "column uint64 if that does, else text, or leave it out"
        )


def _timestamp_column(schema: pa.Schema) -> str:
    if DEFAULT_TIMESTAMP_COLUMN in schema.names:
        return DEFAULT_TIMESTAMP_COLUMN
    candidates = [field.name for field in schema if pat.is_timestamp(field.type)]
    if len(candidates) == 1:
        return str(candidates[0])
    found = f"several timestamp columns {candidates}" if candidates else "no timestamp column"
    raise EntityRowsError(
        f"entity rows have {found} and none called {DEFAULT_TIMESTAMP_COLUMN!r} (columns: {schema.names}); "
        f"name the column that holds the time of each row {DEFAULT_TIMESTAMP_COLUMN!r}"
    )


def _instants(column: pa.ChunkedArray, name: str) -> tuple[Instants, Truths]:
    """Returns times as instants, 0 where there is none, and whether there is one."""
    if column.null_count == len(column):
        return Instants(np.zeros(len(column), dtype=np.int64)), np.zeros(len(column), dtype=bool)
    kind = plain_type(column.type)
    is_ns = getattr(kind, "unit", "us") == "ns"
    try:
        target = pa.timestamp("ns" if is_ns else "us", getattr(kind, "tz", None))
        counts = _flat(column.cast(kind).cast(target).cast(pa.int64()))
    except pa.ArrowInvalid as error:
        raise EntityRowsError(f"entity column {name!r} has a time out of range: {error}") from error
    is_timed = counts.is_valid().to_numpy(zero_copy_only=False)
    values: Ints = counts.fill_null(0).to_numpy()
    if not is_ns:
        if len(values) and not _US_MIN <= values.min() <= values.max() <= _US_MAX:
            raise EntityRowsError(
                f"entity column {name!r} has a time out of range: it is outside of the years 1 to 9999; correct it, or "
                "leave it null"
            )
        return Instants(values), is_timed
    us, ns = np.divmod(values, 1_000)
    # pandas counts in nanoseconds whether they are needed or not.
    return Instants(us, ns if ns.any() else None), is_timed


def parse_instants(column: pa.ChunkedArray, owner: str) -> pa.ChunkedArray:
    """Returns times written as text as timestamps in UTC: microseconds, or nanoseconds where the text has them.

    A text is a date (midnight), or a date and a time of day with or without a zone, as ISO 8601 writes them with
    hyphens and colons; a space may stand for the T, and spaces around. Nothing is guessed: neither "01/02/2020", which
    is two days, nor "now", nor an empty text.

    Args:
        owner: what the column is, for the message.

    Raises:
        EntityRowsError: a text that is no such time, or times with and without a zone side by side.
    """
    text = pc.replace_substring_regex(pc.utf8_trim_whitespace(column.cast(pa.string())), "z$", "Z")
    strange = text.filter(pc.invert(pc.match_substring_regex(text, _ISO_TIME)))
    if len(strange):
        raise _no_time(owner, f"it holds {shown(strange[0].as_py())}")
    zoned = pc.sum(pc.match_substring_regex(text, _ZONE_AT_END)).as_py() or 0
    if 0 < zoned < len(text) - text.null_count:
        raise _no_time(owner, "some have a zone and some have none")
    zone = "UTC" if zoned else None
    try:
        return text.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        # It may have more digits.
        try:
            return text.cast(pa.timestamp("ns", zone)).cast(pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid as error:
            raise _no_time(owner, str(error).splitlines()[0]) from error


def _no_time(owner: str, why: str) -> EntityRowsError:
    return EntityRowsError(
        f"{owner} holds text that is not a time ({why}); write times like 2013-12-01T12:00:00Z, all with a zone or all "
        "without (then UTC), and null where there is none; nanoseconds only reach from 1677 to 2262"
    )


def _flat(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
