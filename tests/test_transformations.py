"""Row-level transformations: training, materialization, pushes and lookups have what one function makes of the rows."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import BatchFeatureView, Field, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Array, Float64, Int64, String

from store.explain import explain
from store.feature_store import FeatureStore
from tests.redis_servers import RedisServer
from tests.stores import NOW, USER, make_store, user_source

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

pytestmark = [
    # Feast says this wherever such a view is made; nobody can act on it.
    pytest.mark.filterwarnings("ignore:Batch feature views are experimental:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Stream feature views are experimental:RuntimeWarning"),
]


def per_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Leaves out rows of few orders, and computes what an order is worth."""
    frame = frame[frame["orders"] >= 20]
    return frame.assign(worth=frame["spent"] / frame["orders"].astype("Float64"), name=frame["name"].str.upper())


def per_order_in_lists(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    kept = [row for row in rows if row["orders"] is not None and row["orders"] >= 20]
    for row in kept:
        row["worth"] = None if row["spent"] is None else row["spent"] / row["orders"]
        row["name"] = row["name"] and row["name"].upper()
    return {name: [row[name] for row in kept] for name in [*columns, "worth"]}


SCHEMA = [Field(name="user_id", dtype=Int64), Field(name="worth", dtype=Float64), Field(name="name", dtype=String)]
FEATURES = ["worth:worth", "worth:name"]


def batch_view(**changes: Any) -> BatchFeatureView:
    arguments: dict[str, Any] = {
        "name": "worth",
        "entities": [USER],
        "online": True,
        "ttl": DAY,
        "schema": SCHEMA,
        "source": user_source(),
        "udf": per_order,
        "udf_string": "",
        "mode": "pandas",
    }
    return BatchFeatureView(**(arguments | changes))


def stream_view(**changes: Any) -> StreamFeatureView:
    arguments: dict[str, Any] = {
        "name": "worth",
        "entities": [USER],
        "ttl": DAY,
        "schema": SCHEMA,
        "source": PushSource(name="worth_push", batch_source=user_source()),
        "udf": per_order,
        "udf_string": "",
        "mode": "pandas",
        "timestamp_field": "event_timestamp",
    }
    return StreamFeatureView(**(arguments | changes))


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    return make_store(repo, server.url)


def looked_up(store: FeatureStore, users: list[int], features: list[str] = FEATURES) -> list[tuple[Any, ...]]:
    answer = store.get_online_features(features, {"user_id": users}).to_dict()
    return list(zip(*(answer[name.partition(":")[2]] for name in features), strict=True))


def trained(
    store: FeatureStore, users: list[int], features: list[str] = FEATURES, **more: Any
) -> list[tuple[Any, ...]]:
    rows = pa.table({"user_id": users, "event_timestamp": [NOW] * len(users)})
    table = store.get_historical_features(rows, features, **more).to_arrow()
    return list(zip(*(table.column(name.partition(":")[2]).to_pylist() for name in features), strict=True))


EXPECTED = [(None, None), (0.15, None), (0.15, "USER 3"), (0.15, "USER 4")]
"""User 1 has too few orders, and user 2 no name."""


@pytest.mark.parametrize(
    ("function", "mode"), [(per_order, "pandas"), (per_order_in_lists, "python"), (per_order, "python")]
)
@pytest.mark.parametrize("view", [batch_view, stream_view])
def test_training_and_lookups_have_what_the_function_makes(
    store: FeatureStore, view: Any, function: Any, mode: str
) -> None:
    store.apply([view(udf=function, mode=mode)])
    store.materialize(NOW - DAY, NOW)
    assert looked_up(store, [1, 2, 3, 4]) == [pytest.approx(row) for row in EXPECTED]
    assert trained(store, [1, 2, 3, 4]) == [pytest.approx(row) for row in EXPECTED]
    ranged = store.get_historical_features(None, FEATURES, start_date=NOW - DAY, end_date=NOW).to_df()
    assert sorted(ranged["user_id"]) == [2, 3, 4, 5]  # no row of user 1 comes out
    explained = explain(store, "worth", "user_id=3", None)
    assert explained.agrees
    assert explained.training_times is not None


AGGREGATIONS = [
    Aggregation(column="worth", function="sum", time_window=DAY),
    Aggregation(column="worth", function="count", time_window=DAY),
    Aggregation(column="name", function="count_distinct", time_window=15 * DAY),
    Aggregation(column="name", function="last_2", time_window=15 * DAY, name="last_names"),
]
WINDOWS = [
    Field(name="user_id", dtype=Int64),
    Field(name="sum_worth_86400s", dtype=Float64),
    Field(name="count_worth_86400s", dtype=Int64),
    Field(name="count_distinct_name_1296000s", dtype=Int64),
    Field(name="last_names", dtype=Array(String)),
]
WINDOWED = [f"worth:{field.name}" for field in WINDOWS[1:]]


def write_events(repo: Path) -> None:
    end = NOW.replace(hour=0)
    events = [
        (1, end - MINUTE, 30.0, 20, "a"),
        (1, end - 2 * MINUTE, 60.0, 30, "b"),
        (1, end - HOUR, 5.0, 1, "of few orders"),
        (1, end - HOUR, 5.0, None, "of none"),
        (1, end - 10 * DAY, 5.0, 50, "A"),
        (2, end - HOUR, None, 100, None),
        (3, end - HOUR, 1.0, 1, "of few orders"),
    ]
    frame = pd.DataFrame(events, columns=["user_id", "event_timestamp", "spent", "orders", "name"])
    frame["orders"] = frame["orders"].astype("Int64")
    frame["created"] = frame["event_timestamp"]
    frame["last"] = [[1.0]] * len(frame)
    frame.to_parquet(repo / "data" / "users.parquet")


@pytest.mark.parametrize("view", [batch_view, stream_view])
def test_windows_are_of_what_comes_out(store: FeatureStore, repo: Path, view: Any) -> None:
    write_events(repo)
    store.apply([view(schema=WINDOWS, aggregations=AGGREGATIONS)])
    store.materialize(NOW - DAY, NOW)
    expected = [(3.5, 2, 2, ["A", "B"]), (None, 0, None, None), (None, 0, None, None)]
    assert looked_up(store, [1, 2, 3], WINDOWED) == expected
