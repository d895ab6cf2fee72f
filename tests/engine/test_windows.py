"""Windowed views: a materialization makes tiles of the batch source, and a lookup merges them up to its own instant."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import BatchFeatureView, Field
from feast.aggregation import Aggregation
from feast.types import Array, Float64, Int64, String

from store.clock import restart_clock
from store.errors import DefinitionError
from store.feature_store import FeatureStore
from store.online.client import RedisSession
from tests.engine.helpers import same_repo
from tests.stores import NOW, PROJECT, USER, user_source

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
END = NOW.replace(hour=0)
"""The batch end of a run at NOW: the longest hop is a day."""


SCHEMA = [
    Field(name="user_id", dtype=Int64),
    Field(name="sum_spent_86400s", dtype=Float64),
    Field(name="count_orders_86400s", dtype=Int64),
    Field(name="mean_orders_1296000s", dtype=Float64),
    Field(name="last_names", dtype=Array(String)),
]
AGGREGATIONS = [
    Aggregation(column="spent", function="sum", time_window=DAY),
    Aggregation(column="orders", function="count", time_window=DAY),
    Aggregation(column="orders", function="mean", time_window=15 * DAY),
    Aggregation(column="name", function="last_2", time_window=15 * DAY, name="last_names"),
]


def windows(**changes: Any) -> BatchFeatureView:
    arguments: dict[str, Any] = {
        "name": "user_windows",
        "entities": [USER],
        "online": True,
        "ttl": HOUR,  # which plays no part
        "schema": SCHEMA,
        "source": user_source(),
        "aggregations": AGGREGATIONS,
    }
    return BatchFeatureView(**(arguments | changes))


FEATURES = [f"user_windows:{name}" for name in ("sum_spent_86400s", "count_orders_86400s", "last_names")]


def write_events(repo: Path, rows: list[tuple[int, Any, float | None, int | None, str | None]]) -> None:
    frame = pd.DataFrame(rows, columns=["user_id", "event_timestamp", "spent", "orders", "name"])
    frame["orders"] = frame["orders"].astype("Int64")
    frame["created"] = frame["event_timestamp"]
    frame["last"] = [[1.0]] * len(frame)
    frame.to_parquet(repo / "data" / "users.parquet")


def look_up(store: FeatureStore, users: list[int], features: list[str] = FEATURES) -> list[tuple[Any, ...]]:
    answer = store.get_online_features(features, {"user_id": users}).to_dict()
    return list(zip(*(answer[name.partition(":")[2]] for name in features), strict=True))


@pytest.fixture
def windowed(store: FeatureStore, repo: Path) -> FeatureStore:
    write_events(
        repo,
        [
            (1, END - MINUTE, 1.5, 10, "a"),
            (1, END - 2 * HOUR, 2.0, None, "b"),
            (1, END - 14 * HOUR, 4.0, 30, "c"),  # before the window of a day at NOW, which begins at noon
            (1, END - 10 * DAY, 8.0, 20, None),
            (1, END - 40 * DAY, 16.0, 1, "z"),
            (1, END + HOUR, 32.0, 1, "later than the batch end"),
            (2, END - HOUR, None, 7, "d"),
        ],
    )
    store.apply([windows()])
    return store


def test_windows_are_merged_up_to_the_request(windowed: FeatureStore) -> None:
    windowed.materialize(NOW - DAY, NOW)
    assert look_up(windowed, [1, 2, 3]) == [(3.5, 1, ["a", "b"]), (None, 1, ["d"]), (None, 0, None)]
    assert look_up(windowed, [1, 2], ["user_windows:mean_orders_1296000s"]) == [(20.0,), (7.0,)]


def test_running_again_over_any_interval_changes_nothing(windowed: FeatureStore, session: RedisSession) -> None:
    windowed.materialize(NOW - DAY, NOW)
    before = look_up(windowed, [1, 2, 3])
    for start, end in ((NOW - 30 * DAY, NOW), (NOW - HOUR, NOW), (NOW - 9 * DAY, NOW - 5 * DAY), (NOW, NOW + DAY)):
        windowed.materialize(start, end)
        assert look_up(same_repo(windowed), [1, 2, 3]) == before
        assert look_up(windowed, [1, 2, 3]) == before
    tiles = [key for key in session.client.keys(f"*{PROJECT}*") if key.endswith(b"#")]
    assert len(tiles) == 2  # one text a key: earlier generations are gone


def test_tiles_lapse_by_themselves(windowed: FeatureStore, session: RedisSession) -> None:
    windowed.materialize(NOW - DAY, NOW)
    tiles = [key for key in session.client.keys(f"*{PROJECT}*") if key.endswith(b"#")]
    reach_ms = 16 * DAY // timedelta(milliseconds=1)
    assert all(reach_ms - 60_000 < session.client.pttl(key) <= reach_ms + 180_000 for key in tiles)


def test_a_changed_definition_serves_the_old_tiles_until_it_is_built(windowed: FeatureStore) -> None:
    windowed.materialize(NOW - DAY, NOW)
    changed = windows(
        schema=[*SCHEMA, Field(name="max_spent_172800s", dtype=Float64)],
        aggregations=[
            *AGGREGATIONS[1:],
            Aggregation(column="spent", function="sum", time_window=DAY, slide_interval=6 * HOUR),
            Aggregation(column="spent", function="max", time_window=2 * DAY),
        ],
    )
    windowed.apply([changed])
    both = ["user_windows:sum_spent_86400s", "user_windows:max_spent_172800s"]
    assert look_up(windowed, [1, 3], both) == [(3.5, None), (None, None)]
    answer = windowed.get_online_features(both, {"user_id": [1]})
    statuses = dict(
        zip(answer.proto.metadata.feature_names.val, [list(r.statuses) for r in answer.proto.results], strict=True)
    )
    assert statuses["max_spent_172800s"] == [3]  # NOT_FOUND: the tiles were made without it
    windowed.materialize(NOW - DAY, NOW)
    assert look_up(windowed, [1, 3], both) == [(3.5, 4.0), (None, None)]


def test_late_and_corrected_rows_come_with_any_run(windowed: FeatureStore, repo: Path) -> None:
    windowed.materialize(NOW - DAY, NOW)
    write_events(repo, [(1, END - MINUTE, 100.0, 1, "corrected"), (3, END - 3 * HOUR, 1.0, 1, "late")])
    windowed.materialize(NOW - HOUR, NOW)
    assert look_up(windowed, [1, 2, 3]) == [(100.0, 1, ["corrected"]), (None, 0, None), (1.0, 1, ["late"])]


def test_a_column_that_cannot_be_summed_is_refused_at_materialization_too(store: FeatureStore, repo: Path) -> None:
    (repo / "data" / "users.parquet").unlink()
    changed = windows(
        schema=[*SCHEMA[:1], Field(name="total", dtype=Float64)],
        aggregations=[Aggregation(column="name", function="sum", time_window=DAY, name="total")],
    )
    store.apply([changed])  # there is no file yet that could tell
    write_events(repo, [(1, END - MINUTE, 1.5, 10, "a")])
    with pytest.raises(DefinitionError, match=r"aggregates column 'name'.*numbers"):
        store.materialize(NOW - DAY, NOW, feature_views=["user_windows"])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.uint64(), [2**64 - 1, 5]),
        (pa.int16(), [-3, 5]),
        (pa.timestamp("ns", "UTC"), [-1_500, 2_500]),
        (pa.timestamp("s"), [-7, 9]),
        (pa.date32(), [-3, 20_000]),
        (pa.binary(2), [b"ab", b"zz"]),
        (pa.dictionary(pa.int8(), pa.string()), ["ä", "b"]),
        (pa.bool_(), [True, False]),
        (pa.float32(), [0.1, -0.5]),
    ],
    ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
)
def test_columns_of_every_type_are_counted_as_training_counts_them(
    store: FeatureStore, repo: Path, kind: pa.DataType, values: list[Any]
) -> None:
    # Timestamps are given by their numbers.
    column = pa.array([*values, None], pa.int64() if pa.types.is_timestamp(kind) else kind).cast(kind)
    stamps = pa.array([END - MINUTE] * 3, pa.timestamp("us", "UTC"))
    keys = pa.array([1, 1, 1])
    table = pa.table({"user_id": keys, "event_timestamp": stamps, "created": stamps, "odd": column})
    pq.write_table(table, repo / "data" / "users.parquet")
    names = ["count", "count_distinct"]
    store.apply(
        [
            windows(
                schema=[SCHEMA[0], *(Field(name=f"{name}_odd", dtype=Int64) for name in names)],
                aggregations=[Aggregation("odd", name, DAY, name=f"{name}_odd") for name in names],
            )
        ]
    )
    store.materialize(NOW - DAY, NOW, feature_views=["user_windows"])
    features = [f"user_windows:{name}_odd" for name in names]
    rows = pd.DataFrame({"user_id": [1], "event_timestamp": [NOW]})
    trained = store.get_historical_features(rows, features).to_arrow().to_pydict()
    assert look_up(store, [1], features) == [(2, 2)]
    assert (trained["count_odd"], trained["count_distinct_odd"]) == ([2], [2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aggregations": [Aggregation(column="spent", function="median", time_window=DAY)]}, "'median'.*approx_perc"),
        ({"aggregations": [Aggregation(column="spent", function="sum")]}, "no time_window"),
        (
            {"aggregations": [Aggregation(column="spent", function="sum", time_window=2 * MINUTE)]},
            "hop of 300 s in a window of 120 s",
        ),
        (
            {
                "aggregations": [
                    Aggregation(column="spent", function="sum", time_window=DAY, slide_interval=7 * MINUTE),
                    Aggregation(column="spent", function="sum", time_window=15 * DAY, slide_interval=HOUR),
                ]
            },
            "420 s and 3600 s do not nest",
        ),
        ({"aggregations": AGGREGATIONS[:1]}, "'count_orders_86400s' is no aggregation's name"),
        ({"online": False}, "online=True"),
        (
            {"schema": [*SCHEMA[:2], Field(name="count_orders_86400s", dtype=Float64)]},
            "'count_orders_86400s' is declared as DOUBLE, but this aggregate is Int64",
        ),
        (
            {"schema": [*SCHEMA[:2], Field(name="last_names", dtype=String)]},
            "'last_names' is declared as STRING, but last_2 gives a list",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused_at_apply(
    store: FeatureStore, repo: Path, change: dict[str, Any], message: str
) -> None:
    before = (repo / "data" / "registry.db").read_bytes()
    with pytest.raises(DefinitionError, match=message):
        store.apply([windows(**change)])
    assert (repo / "data" / "registry.db").read_bytes() == before


def test_the_window_moves_with_the_clock(windowed: FeatureStore, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windowed.materialize(NOW - DAY, NOW)
    monkeypatch.delenv("LARDER_CLOCK")
    for hours, expected in ((0, 3.5), (10, 3.5), (11, 1.5), (12, None)):
        restart_clock(repo, NOW + hours * HOUR)
        assert look_up(same_repo(windowed), [1])[0][0] == expected, hours
