"""The benchmark's Parquet files: made once from fixed seeds, found again by a stamp of all parameters."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.offline.shapes import CREATED, EVENT, FEATURES, KEY, ROW_ID, SPAN_US, START_US, VIEWS, Shape, feature_names

# Raised whenever the files would come out differently, so that old ones are made anew.
GENERATOR_VERSION = 1
SEED = 20_250_101
CHUNK_ROWS = 983_040  # eight of DuckDB's row groups
MEAN_DELAY_US = 3_600_000_000
LATE_SHARE = 0.01
LATE_DELAY_US = 10 * 86_400_000_000
# One entity row in a hundred asks for a key that no view has.
UNKNOWN_KEYS_SHARE = 0.01

INSTANT = pa.timestamp("us", "UTC")


def history(root: Path, shape: Shape) -> tuple[Path, ...]:
    """Returns one Parquet file per feature view, made now unless it is there with the same parameters.

    Shapes: `user_id` BIGINT, `event_timestamp` and `created` in microseconds UTC, ten features of type DOUBLE, in order
    of event time as a job that appends would leave them. No two rows of a key share an event time, so contenders that
    leave ties open can be compared with those that resolve them. `created` follows the event by an hour on
    average, and by up to ten days for one row in a hundred.
    """
    folder = root / shape.label
    stamp = json.dumps({"generator": GENERATOR_VERSION, "seed": SEED, **asdict(shape)})
    files = tuple(folder / f"view_{view}.parquet" for view in range(VIEWS))
    if is_made(folder, stamp):
        return files
    making = empty(folder.with_suffix(".making"))
    for view, file in enumerate(files):
        reader = pa.RecordBatchReader.from_batches(_history_schema(view), _history_batches(shape, view))
        with duckdb.connect() as connection:
            connection.register("history", reader)
            connection.execute(f"COPY history TO '{making / file.name}' (FORMAT parquet)")
    finish(making, folder, stamp)
    return files


def entity_rows(root: Path, shape: Shape, rows: int) -> Path:
    """Returns a Parquet file of `rows` random entity rows for a shape, made now unless it is there.

    Shapes: `row_id` (0, 1, ...), `user_id` uniform over the keys and one in a hundred unknown, `event_timestamp`
    uniform over the year, in no order. Fewer rows are the first of more, so sizes can be compared.
    """
    folder = root / f"{shape.name}-{shape.keys}-entities-{rows}"
    stamp = json.dumps({"generator": GENERATOR_VERSION, "seed": SEED, "keys": shape.keys, "rows": rows})
    file = folder / "entities.parquet"
    if is_made(folder, stamp):
        return file
    making = empty(folder.with_suffix(".making"))
    fields = [(ROW_ID, pa.int64()), (KEY, pa.int64()), (EVENT, INSTANT)]
    with pq.ParquetWriter(making / file.name, pa.schema(fields)) as writer:
        for start in range(0, rows, CHUNK_ROWS):
            random = np.random.default_rng([SEED, shape.keys, start])
            drawn = random.random((CHUNK_ROWS, 2))[: rows - start]
            keys = (drawn[:, 0] * shape.keys * (1 + UNKNOWN_KEYS_SHARE)).astype(np.int64)
            instants = START_US + (drawn[:, 1] * SPAN_US).astype(np.int64)
            ids = np.arange(start, start + len(drawn))
            columns = [pa.array(ids), pa.array(keys), pa.array(instants).cast(INSTANT)]
            writer.write_table(pa.table(columns, schema=writer.schema))
    finish(making, folder, stamp)
    return file


def _history_schema(view: int) -> pa.Schema:
    features = [(name, pa.float64()) for name in feature_names(view)]
    return pa.schema([(KEY, pa.int64()), (EVENT, INSTANT), (CREATED, INSTANT), *features])


def _history_batches(shape: Shape, view: int) -> Iterator[pa.RecordBatch]:
    schema = _history_schema(view)
    for start in range(0, shape.rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, shape.rows - start)
        random = np.random.default_rng([SEED, shape.rows, shape.keys, view, start])
        # Each row gets a slot of its own in the year, and a random place in it: sorted without a sort.
        places = (np.arange(start, start + count) + random.random(count)) * (SPAN_US / shape.rows)
        events = START_US + places.astype(np.int64)
        delays = random.exponential(MEAN_DELAY_US, count)
        is_late = random.random(count) < LATE_SHARE
        delays[is_late] += random.random(int(is_late.sum())) * LATE_DELAY_US
        columns = [
            pa.array(random.integers(0, shape.keys, count)),
            pa.array(events).cast(INSTANT),
            pa.array(events + delays.astype(np.int64)).cast(INSTANT),
            *(pa.array(random.random(count)) for _ in range(FEATURES)),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def is_made(folder: Path, stamp: str) -> bool:
    """Whether a folder of files was finished with these parameters."""
    note = folder / "stamp.json"
    return note.is_file() and note.read_text() == stamp


def empty(folder: Path) -> Path:
    """Returns a folder that has nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def finish(making: Path, folder: Path, stamp: str) -> None:
    """Gives the finished folder its name, so that one that was left half made is never taken for whole."""
    (making / "stamp.json").write_text(stamp)
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)
