"""A feature repo of clicks: windowed views of two entities and a plain one over one push source; what tiles hold."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureView, Field, FileSource, PushSource, StreamFeatureView, ValueType
from feast.aggregation import Aggregation
from feast.types import Array, Float64, Int64, String

from store.definitions_from_feast import view_definition
from store.feature_store import FeatureStore
from store.kernel.algebra import StateLayout, finalize, merge
from store.kernel.keys import entity_key_encoder, stream_tiles_key
from store.kernel.tiles import STATE, decode_stream
from tests.redis_servers import RedisServer
from tests.stores import PROJECT, config

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
PAGE = Entity(name="page", join_keys=["page"], value_type=ValueType.STRING)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
STAMP = pa.timestamp("us", "UTC")
COLUMNS = pa.schema(
    [("user_id", pa.int64()), ("page", pa.string()), ("at", STAMP), ("created", STAMP), ("worth", pa.float64())]
)
LANDED = "data/clicks.parquet.landed"


def clicks_source() -> FileSource:
    return FileSource(
        name="clicks_file", path="data/clicks.parquet", timestamp_field="at", created_timestamp_column="created"
    )


def clicks_push() -> PushSource:
    return PushSource(name="clicks", batch_source=clicks_source())


def by_user(**changes: Any) -> StreamFeatureView:
    """Returns the view of a user's clicks: how many, what they are worth, the last three."""
    arguments: dict[str, Any] = {
        "name": "by_user",
        "entities": [USER],
        "ttl": DAY,
        "schema": [
            Field(name="user_id", dtype=Int64),
            Field(name="count_worth_1h", dtype=Int64),
            Field(name="sum_worth_1d", dtype=Float64),
            Field(name="last3", dtype=Array(Float64)),
        ],
        "source": clicks_push(),
        "timestamp_field": "at",
        "aggregations": [
            Aggregation(column="worth", function="count", time_window=HOUR, name="count_worth_1h"),
            Aggregation(column="worth", function="sum", time_window=DAY, name="sum_worth_1d"),
            Aggregation(column="worth", function="last_3", time_window=DAY, name="last3"),
        ],
    }
    return StreamFeatureView(**(arguments | changes))


def by_page() -> StreamFeatureView:
    """Returns the view of a page's clicks."""
    return StreamFeatureView(
        name="page_clicks",
        entities=[PAGE],
        ttl=DAY,
        schema=[Field(name="page", dtype=String), Field(name="sum_worth", dtype=Float64)],
        source=clicks_push(),
        timestamp_field="at",
        aggregations=[Aggregation(column="worth", function="sum", time_window=DAY, name="sum_worth")],
    )


def last_click() -> FeatureView:
    """Returns a plain view of each user's last click."""
    schema = [Field(name="user_id", dtype=Int64), Field(name="worth", dtype=Float64)]
    return FeatureView(name="last_click", entities=[USER], ttl=DAY, schema=schema, source=clicks_push())


def clicks(worths: Sequence[float | None], user: int = 1, page: str = "home", minutes: float = 5) -> pd.DataFrame:
    """Returns clicks of one user on a page, some minutes ago."""
    count = len(worths)
    return pd.DataFrame(
        {
            "user_id": [user] * count,
            "page": [page] * count,
            "at": [NOW - timedelta(minutes=minutes)] * count,
            "created": [NOW - timedelta(minutes=minutes)] * count,
            "worth": list(worths),
        }
    )


def make_store(repo: Path, redis_url: str, *views: Any, **online: Any) -> FeatureStore:
    """Returns a store over an empty file of clicks with the views applied, those of both entities if none is named."""
    (repo / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(COLUMNS.empty_table(), repo / "data" / "clicks.parquet")
    store = FeatureStore(repo_path=str(repo), config=config(repo, redis_url, **online))
    store.apply([USER, PAGE, *(views or (by_user(), by_page()))])
    return store


def landed(repo: Path) -> list[float]:
    """Returns the worths of all landed clicks, those of one file after the other."""
    files = sorted((repo / LANDED).glob("*.parquet"))
    return [worth for file in files for worth in pq.read_table(file).column("worth").to_pylist()]


def landed_event_ids(repo: Path) -> list[int]:
    """Returns the ids of all landed clicks that came from the log."""
    tables = [pq.read_table(file) for file in sorted((repo / LANDED).glob("*.parquet"))]
    return [i for t in tables if "__larder_id" in t.column_names for i in t.column("__larder_id").to_pylist()]


def in_tiles(server: RedisServer, view: Any, key: Sequence[Any]) -> dict[str, Any]:
    """Returns what the stream's tiles of one key hold, whatever their time: each feature by name."""
    definition = view_definition(PROJECT, view)
    entity_key = entity_key_encoder(PROJECT, definition.join_keys).encode(key)
    assert entity_key is not None
    with server.client() as client:
        fields = client.hgetall(stream_tiles_key(entity_key, definition.name, definition.fingerprint))
    layout = StateLayout.of(definition.windows)
    states = [entry[STATE:] for entry in decode_stream([raw for name, raw in fields.items() if name])]
    merged = merge(layout, states) if states else None
    return {feature.name: finalize(layout, merged, feature) for feature in definition.windows}


def sums(server: RedisServer, view: Any, feature: str, keys: Iterable[Any]) -> list[Any]:
    """Returns one feature of several keys of a view with one join key."""
    return [in_tiles(server, view, [key])[feature] for key in keys]
