"""Some of the events of a source, as entity rows: the same ones whenever the same events are asked for."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from store.kernel.source_scan import Bounds, Scan, identifier, rows_sql
from store.offline.connection import ConnectionSettings, connected
from store.offline.sources import Source

_STAMP = pa.timestamp("us", "UTC")


class SampledEvents(NamedTuple):
    """Keys and times of events, and how many events there are to choose from: those with a key."""

    events: pa.Table
    total: int


def sampled_events(
    source: Source,
    scan: Scan,
    settings: ConnectionSettings,
    names: Sequence[str],
    stretch: tuple[int, int],
    rows_max: int,
) -> SampledEvents:
    """Returns at most so many events of a stretch of time: those whose key and time have the least hashes.

    Args:
        scan: of the source, with its keys.
        names: what the keys are called in the answer, and then the time.
        stretch: from the first instant, inclusive, to the second, exclusive, in microseconds since the epoch.

    Shapes: keys, then event times in microseconds, UTC, rounded up: at that time the event has happened.

    Raises:
        SourceUnreadable, OfflineStoreError, OutOfSpace: as DuckDB fails.
    """
    low, high = stretch[0], stretch[1] - 1
    within = Bounds(low, high)
    keys = scan.key_names
    rows = rows_sql(scan.within(low, high), False, [*keys, "e_us", "e_ns"], within)
    conditions = [within.condition("e_us"), *(f"{key} IS NOT NULL" for key in keys)]
    where = f"FROM ({rows}) WHERE {' AND '.join(conditions)}"
    hashed = f"hash({', '.join([*keys, 'e_us'])})"
    times = "e_us + CASE WHEN e_ns > 0 THEN 1 ELSE 0 END"
    selected = ", ".join([*(f"{key} AS {identifier(name)}" for key, name in zip(keys, names[:-1], strict=True)), times])
    with connected(settings, source.paths) as connection:
        [(total,)] = connection.sql(f"SELECT count(*) {where}").fetchall()
        chosen = connection.sql(
            f"SELECT {selected} {where} ORDER BY {hashed}, {', '.join([*keys, 'e_us'])} LIMIT {rows_max}"
        ).to_arrow_table()
    columns = [*chosen.columns[:-1], chosen.column(len(names) - 1).cast(pa.int64()).cast(_STAMP)]
    source.require_unchanged()
    return SampledEvents(pa.table(columns, list(names)), total)
