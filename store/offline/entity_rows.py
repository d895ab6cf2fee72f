"""The caller's entity rows: checked, with their times as integers, and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from store.errors import EntityRowsError, MissingJoinKey, WrongType
from store.offline.column_types import are_comparable, is_instant, is_text, plain_type

DEFAULT_TIMESTAMP_COLUMN = "event_timestamp"
_ZONE_AT_END = r"(Z|z|[+-]\d{2}(:?\d{2})?)\s*$"


@dataclass(frozen=True, slots=True)
class EntityRows:
    """Entity rows as they will stand in the answer, and their instants.

    `instants` (int64) counts nanoseconds since the Unix epoch if `is_ns`, else microseconds; null where the time is.
    """

    table: pa.Table
    timestamp_column: str
    instants: pa.Array
    is_ns: bool

    @property
    def t_range(self) -> tuple[int | None, int | None]:
        """Returns the least and greatest instant, in the unit of `instants`; None without any."""
        ends = pc.min_max(self.instants).as_py()
        return ends["min"], ends["max"]


def entity_rows(rows: Any) -> EntityRows:
    """Returns a pandas frame or Arrow table as entity rows.

    Times without a zone are UTC. Times given as text are parsed and stand in the answer as timestamps in UTC (as
    Feast has it); all other columns stay as they are.

    Raises:
        EntityRowsError: neither frame nor table, columns of the same name, or no single usable timestamp column.
    """
    table = _as_table(rows)
    repeated = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if repeated:
        raise EntityRowsError(f"entity rows have several columns of the same name {repeated}; rename them")
    name = _timestamp_column(table)
    column = table.column(name)
    if is_text(plain_type(column.type)):
        column = parse_instants(column, f"entity column {name!r}")
        table = table.set_column(table.column_names.index(name), name, column)
    instants, is_ns = _as_integers(column, name)
    return EntityRows(table, name, instants, is_ns)


def _as_table(rows: Any) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows
    if not isinstance(rows, pd.DataFrame):
        given = "none at all" if rows is None else f"{type(rows).__name__} {str(rows)[:60]!r}"
        raise EntityRowsError(
            f"entity rows are {given}, expected a pandas DataFrame or a pyarrow Table with the join keys and a "
            f"column {DEFAULT_TIMESTAMP_COLUMN!r}; build one and pass it as `entity_df`"
        )
    for name in rows.columns:
        if rows.columns.tolist().count(name) == 1 and pd.api.types.is_object_dtype(rows[name]):
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


def _timestamp_column(table: pa.Table) -> str:
    if DEFAULT_TIMESTAMP_COLUMN in table.column_names:
        return DEFAULT_TIMESTAMP_COLUMN
    candidates = [field.name for field in table.schema if pat.is_timestamp(field.type)]
    if len(candidates) == 1:
        return str(candidates[0])
    found = f"several timestamp columns {candidates}" if candidates else "no timestamp column"
    raise EntityRowsError(
        f"entity rows have {found} and none called {DEFAULT_TIMESTAMP_COLUMN!r} (columns: {table.column_names}); "
        f"name the column that holds the time of each row {DEFAULT_TIMESTAMP_COLUMN!r}"
    )


def _as_integers(column: pa.ChunkedArray, name: str) -> tuple[pa.Array, bool]:
    kind = column.type
    if column.null_count == len(column):
        # A column without a value has no type to speak of: pandas makes an empty one float or object.
        return pa.nulls(len(column), pa.int64()), False
    if not is_instant(kind):
        raise EntityRowsError(
            f"entity column {name!r} has type {kind}, expected a timestamp; convert it, for instance with "
            "pandas.to_datetime(..., utc=True)"
        )
    try:
        if getattr(kind, "unit", "us") == "ns":
            return _coarsened(_flat(column.cast(pa.int64())))
        zone = getattr(kind, "tz", None)
        return _flat(column.cast(pa.timestamp("us", zone)).cast(pa.int64())), False
    except pa.ArrowInvalid as error:
        raise EntityRowsError(f"entity column {name!r} has a time out of range: {error}") from error


def _coarsened(instants_ns: pa.Array) -> tuple[pa.Array, bool]:
    """Returns nanoseconds as microseconds if nothing is lost: pandas counts in nanoseconds whether needed or not."""
    micros = pc.divide(instants_ns, 1_000)
    is_whole = pc.all(pc.equal(pc.multiply(micros, 1_000), instants_ns)).as_py()
    return (micros, False) if is_whole is not False else (instants_ns, True)


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


def join_key_column(rows: EntityRows, name: str, source_types: Sequence[pa.DataType], owner: str) -> pa.Array:
    """Returns a column of the entity rows in a form that can be compared with a join key of a source.

    Args:
        source_types: the key's type in each kind of file that the source has.
        owner: the view and its key, for messages.

    Raises:
        MissingJoinKey: there is no such column.
        WrongType: its type cannot be compared with the source's.
    """
    if name not in rows.table.column_names:
        raise MissingJoinKey(
            f"{owner} missing from entity rows (got {rows.table.column_names}); add the column or rename it"
        )
    column = rows.table.column(name)
    if column.null_count == len(column):
        return pa.nulls(len(column), plain_type(source_types[0]))
    for source_type in source_types:
        if not are_comparable(column.type, source_type):
            raise WrongType(
                f"{owner}: entity column {name!r} has type {column.type}, the source has {source_type}; "
                "convert the entity column to the type of the source"
            )
    values = _flat(column.cast(plain_type(column.type)))
    if pat.is_floating(values.type) and any(pat.is_integer(kind) for kind in source_types):
        return _as_whole_numbers(values, name, owner)
    return values


def _as_whole_numbers(values: pa.Array, name: str, owner: str) -> pa.Array:
    """Returns float keys as integers: pandas turns a column of integers with a null in it into floats."""
    present = pc.if_else(pc.is_nan(values), None, values)
    try:
        return present.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise WrongType(
            f"{owner}: entity column {name!r} has type {values.type} with values that are no integers ({error}), "
            "the source has integers; convert the column to integers"
        ) from error


def _flat(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
