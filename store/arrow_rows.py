"""Arrow columns as packed rows, ready but for their schema tag: shared by batch runs and pushes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.feast_values import plain_from_arrow
from store.kernel.codec import EncodedRow, RowLayout, RowTimes
from store.kernel.definitions import ViewDefinition
from store.kernel.keys import entity_key_encoder

EVENT_US, EVENT_NS, CREATED_US, CREATED_NS = TIME_COLUMNS = "__event_us", "__event_ns", "__created_us", "__created_ns"
"""Columns of a batch of rows: whole microseconds since the epoch, rounded down, and remaining nanoseconds."""


def encode_batch(definition: ViewDefinition, layout: RowLayout, batch: pa.RecordBatch) -> Iterator[EncodedRow]:
    """Yields the rows of a batch that holds join keys and features by name, and `TIME_COLUMNS`.

    Raises:
        WrongType: a column that does not fit its declared type.
    """
    declared = (*definition.join_keys, *layout.columns)
    columns = {column.name: plain_from_arrow(column, batch.column(column.name)) for column in declared}
    return encode_columns(definition, layout, columns, row_times(batch))


def row_times(batch: pa.RecordBatch | pa.Table) -> list[RowTimes]:
    """Returns the times of a batch that holds `TIME_COLUMNS`; nanoseconds may be null where the time is."""
    columns = (batch.column(name) for name in TIME_COLUMNS)
    filled = (
        pc.fill_null(c, 0) if name in (EVENT_NS, CREATED_NS) else c
        for name, c in zip(TIME_COLUMNS, columns, strict=True)
    )
    return list(map(RowTimes, *(column.to_pylist() for column in filled)))


def encode_columns(
    definition: ViewDefinition,
    layout: RowLayout,
    columns: Mapping[str, Sequence[Any]],
    times: Sequence[RowTimes],
) -> Iterator[EncodedRow]:
    """Yields rows given as plain values by column; a row with a null in its key is left out, as nothing finds it."""
    encoder = entity_key_encoder(definition.project, definition.join_keys)
    encode = layout.encoder()
    keys = _rows(columns, encoder.names, len(times))
    values = _rows(columns, [column.name for column in layout.columns], len(times))
    for key_values, row_values, at in zip(keys, values, times, strict=True):
        key = encoder.encode(key_values)
        if key is not None:
            yield EncodedRow(key, at, encode(row_values))


def _rows(columns: Mapping[str, Sequence[Any]], names: Sequence[str], count: int) -> Iterable[Sequence[Any]]:
    return zip(*(columns[name] for name in names), strict=True) if names else [()] * count


def with_time_columns(table: pa.Table, timestamp_field: str, created: str | None) -> pa.Table:
    """Returns a table with its event and created times as `TIME_COLUMNS` besides."""
    event = us_and_ns(table.column(timestamp_field))
    no_times = pa.nulls(table.num_rows, pa.int64()), pa.nulls(table.num_rows, pa.int64())
    known = us_and_ns(table.column(created)) if created else no_times
    for name, column in zip(TIME_COLUMNS, (*event, *known), strict=True):
        table = table.append_column(name, column)
    return table


def us_and_ns(column: Any) -> tuple[Any, Any]:
    """Returns a timestamp column as microseconds since the epoch, rounded down, and remaining nanoseconds."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    stamps = pc.floor_temporal(column, unit="microsecond").cast(pa.timestamp("us", tz=column.type.tz))
    micros = stamps.cast(pa.int64())
    if column.type.unit != "ns":
        return micros, pc.multiply(micros, 0)
    return micros, pc.subtract(column.cast(pa.int64()), pc.multiply(micros, 1_000))
