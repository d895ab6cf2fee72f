"""Events and entity rows of the training part, and a naive rescan of a few of them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.offline.dataset import INSTANT, empty, finish, is_made
from bench.offline.shapes import EVENT, KEY, ROW_ID, SPAN_US, START_US

SEED = 20_250_501
GENERATOR_VERSION = 1
VALUE = "amount"
AGGREGATES = ("sum", "count", "min", "max")
SAMPLE_ROWS = 1_000


def files(root: Path, events: int, rows: int, keys: int) -> tuple[Path, Path]:
    """Returns Parquet files of events and of entity rows, made now unless they are there.

    Shapes: events have a key, a time and a DOUBLE, uniform over keys and over one year, in order of time as a job that
    appends leaves them. Entity rows have an id, a key and a time, uniform as well, in no order.
    """
    folder = root / f"windows-{events}-{rows}-{keys}"
    stamp = json.dumps({"generator": GENERATOR_VERSION, "seed": SEED, "events": events, "rows": rows, "keys": keys})
    made = folder / "events.parquet", folder / "entities.parquet"
    if is_made(folder, stamp):
        return made
    making = empty(folder.with_suffix(".making"))
    random = np.random.default_rng([SEED, events, rows, keys])
    times = np.sort(random.integers(0, SPAN_US, events)) + START_US
    columns = {
        KEY: random.integers(0, keys, events),
        EVENT: pa.array(times).cast(INSTANT),
        VALUE: random.random(events),
    }
    pq.write_table(pa.table(columns), making / made[0].name, row_group_size=122_880)
    asked = random.integers(0, SPAN_US, rows) + START_US
    columns = {ROW_ID: np.arange(rows), KEY: random.integers(0, keys, rows), EVENT: pa.array(asked).cast(INSTANT)}
    pq.write_table(pa.table(columns), making / made[1].name)
    finish(making, folder, stamp)
    return made


def naive_answers(
    events: Path, entities: Path, windows: Sequence[tuple[int, int]]
) -> dict[int, tuple[float | None, ...]]:
    """Returns by row id what a rescan of all events gives for some entity rows: per window and hop, the aggregates."""
    table, asked = pq.read_table(events), pq.read_table(entities)
    keys = table.column(KEY).to_numpy()
    times = table.column(EVENT).cast(pa.int64()).to_numpy()
    values = table.column(VALUE).to_numpy()
    # Sorted by key alone, so that the rescan is of one key's events.
    order = np.argsort(keys, kind="stable")
    keys, times, values = keys[order], times[order], values[order]
    chosen = np.random.default_rng(SEED).choice(asked.num_rows, min(SAMPLE_ROWS, asked.num_rows), replace=False)
    answers = {}
    for row in chosen.tolist():
        key, at = asked.column(KEY)[row].as_py(), asked.column(EVENT)[row].value
        own = slice(*np.searchsorted(keys, [key, key + 1]))
        found: list[float | None] = []
        for window_us, hop_us in windows:
            start = (at - window_us) // hop_us * hop_us
            held = values[own][(times[own] >= start) & (times[own] <= at)].tolist()
            found += [math.fsum(held), len(held), min(held), max(held)] if held else [None, 0, None, None]
        answers[asked.column(ROW_ID)[row].as_py()] = tuple(found)
    return answers
