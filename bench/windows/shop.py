"""A feature repo with a windowed view beside the plain ones of `bench.online`, its events, and what a rescan says."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bench.online import repos

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
WINDOWS = {"1h": (HOUR_US, 300_000_000), "1d": (DAY_US, HOUR_US), "30d": (30 * DAY_US, DAY_US)}
"""Each with the hop that it has by its length."""

FUNCTIONS = ("sum", "count", "min", "max")
VIEW, SOURCE = "windows", "events_push"
FEATURES = tuple(f"{function}_{name}" for name in WINDOWS for function in FUNCTIONS)


class Events(NamedTuple):
    """Events in columns: key, microseconds since the epoch, value."""

    keys: npt.NDArray[np.int64]
    event_us: npt.NDArray[np.int64]
    amounts: npt.NDArray[np.float64]


def definitions(sources: Path) -> str:
    """Returns the definitions: those of `bench.online`, a windowed view, and a service of everything."""
    return (
        repos.definitions(sources)
        + f"""
from feast import PushSource, StreamFeatureView
from feast.aggregation import Aggregation

events = FileSource(name="events", path="{sources}/events.parquet", timestamp_field="event_timestamp")
aggregations = [
    Aggregation(column="value", function=function, time_window=window, name=f"{{function}}_{{name}}")
    for name, window in (("1h", timedelta(hours=1)), ("1d", timedelta(days=1)), ("30d", timedelta(days=30)))
    for function in {FUNCTIONS}
]
{VIEW} = StreamFeatureView(
    name="{VIEW}",
    entities=[user],
    source=PushSource(name="{SOURCE}", batch_source=events),
    timestamp_field="event_timestamp",
    aggregations=aggregations,
    schema=[
        Field(name="{repos.KEY}", dtype=Int64),
        *(Field(name=a.name, dtype=Int64 if a.function == "count" else Float64) for a in aggregations),
    ],
)
everything_and_windows = FeatureService(name="everything_and_windows", features=[*views, {VIEW}])
"""
    )


def events(count: int, keys: int, seed: int, *, longest_us: int = 30 * DAY_US, is_batch: bool = False) -> Events:
    """Returns events of the last days, most of them young.

    Args:
        is_batch: only such as a materialization takes in: before the last boundary of the longest hop.
    """
    random = np.random.default_rng(seed)
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    if is_batch:
        now_us = now_us // DAY_US * DAY_US - 1
    ages = (random.random(count) ** 3 * longest_us).astype(np.int64)
    return Events(random.integers(0, keys, count), np.sort(now_us - ages), random.normal(0, 10, count))


def write_events(folder: Path, found: Events) -> None:
    """Writes events as the batch source of the windowed view."""
    at = pa.array(found.event_us).cast(pa.timestamp("us", "UTC"))
    table = pa.table({repos.KEY: found.keys, "event_timestamp": at, "value": found.amounts})
    pq.write_table(table, folder / "events.parquet")


def rescan(found: Events, key: int, now_us: int) -> dict[str, float | int | None]:
    """Returns all features of a key at a time, by going through all events."""
    own = found.keys == key
    times, values = found.event_us[own], found.amounts[own]
    answer: dict[str, float | int | None] = {}
    for name, (window_us, hop_us) in WINDOWS.items():
        inside = values[(times >= (now_us - window_us) // hop_us * hop_us) & (times <= now_us)].tolist()
        answer[f"count_{name}"] = len(inside)
        answer[f"sum_{name}"] = math.fsum(inside) if inside else None
        answer[f"min_{name}"] = min(inside, default=None)
        answer[f"max_{name}"] = max(inside, default=None)
    return answer


def difference(found: Sequence[Events], key: int, served: dict[str, float | int | None], now_us: int) -> str:
    """Returns how served features differ from a rescan, "" if they do not."""
    joined = Events(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
    expected = rescan(joined, key, now_us)
    wrong = [name for name in FEATURES if served[name] != expected[name]]
    return f"key {key}: {wrong[0]} is {served[wrong[0]]}, expected {expected[wrong[0]]}" if wrong else ""
