"""The caller's entity rows: checked, with their times as integers, and never changed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from feast.repo_config import RepoConfig

from store.errors import EntityRowsError
from store.kernel.as_of import Instants, Ints, Truths
from store.offline.column_types import is_instant, is_text, plain_type
from store.offline.connection import ConnectionSettings
from store.offline.entity_queries import is_query, rows_of_query
from store.offline.entity_sources import ParquetRows, RowSource, SpooledRows, TableRows
from store.offline.source_files import own_files

DEFAULT_TIMESTAMP_COLUMN = "event_timestamp"
_ZONE_AT_END = r"(Z|z|[+-]\d{2}(:?\d{2})?)\s*$"
_US_MIN, _US_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first microsecond of year 1 and the last one of year 9999, which pipelines use as "always" and "never"."""

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
    repeated = sorted(name for name, count in Counter(source.schema.names).items() if count > 1)
    if repeated:
        raise EntityRowsError(f"entity rows have several columns of the same name {repeated}; rename them")
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
        return SpooledRows.keep(rows, settings.spill_folder)
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
    counts = Counter(rows.columns.tolist())
    for name in rows.columns:
        if counts[name] == 1 and pd.api.types.is_object_dtype(rows[name]):
            _refuse_mixed_zones(rows[name], str(name))
    try:
        return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise EntityRowsError(
            f"entity rows cannot be read as columns of one type each: {str(error).splitlines()[0]}; "
            "give each column a single type and a name of its own"
        ) from error


def _refuse_mixed_zones(column: "pd.Series[Any]", name: str) -> None:
    zoned = {value.tzinfo is not None for value in column if hasattr(value, "tzinfo") and not pd.isna(value)}
    if len(zoned) > 1:
        raise EntityRowsError(
            f"entity column {name!r} mixes times with and without a zone; give all of them one, or none (then UTC)"
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

    Args:
        owner: what the column is, for the message.

    Raises:
        EntityRowsError: a text that is no time, or times with and without a zone side by side.
    """
    text = column.cast(pa.string())
    zoned = pc.sum(pc.match_substring_regex(text, _ZONE_AT_END)).as_py() or 0
    zone = "UTC" if zoned else None
    for unit in ("us", "ns"):
        try:
            return text.cast(pa.timestamp(unit, zone)).cast(pa.timestamp(unit, "UTC"))
        except pa.ArrowInvalid:
            continue  # a finer unit, or a form that only pandas reads, may still fit
    try:
        parsed = pd.to_datetime(text.to_pandas(), utc=True)
    except (ValueError, TypeError) as error:
        raise EntityRowsError(
            f"{owner} holds text that is not a time: {str(error).splitlines()[0]}; write times like "
            "2013-12-01T12:00:00Z, all with a zone or all without (then UTC)"
        ) from error
    return pa.chunked_array([pa.Array.from_pandas(parsed, type=pa.timestamp("ns", "UTC"))])


def _flat(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
