"""A push is written whole or refused whole: what can fail offline fails before anything is written online."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from feast import Field
from feast.data_source import PushMode
from feast.types import Array, String

from store.errors import OnlineStoreError, PushedRowsError, SourceError
from store.feature_store import FeatureStore
from tests.engine.helpers import orders
from tests.redis_servers import RedisServer
from tests.stores import NOW, make_store, user_rows, user_view


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    return make_store(repo, server.url)


def landed(repo: Path) -> list[int]:
    folder = repo / "data" / "users.parquet.landed"
    files = sorted(folder.glob("*.parquet")) if folder.exists() else []
    return [count for path in files for count in pq.read_table(path).column("orders").to_pylist()]


def rows_with(count: int) -> pd.DataFrame:
    return user_rows(2, NOW).assign(orders=[count] * 2).astype({"orders": "Int64"})


def push(store: FeatureStore, how: str, rows: pd.DataFrame, to: PushMode = PushMode.ONLINE_AND_OFFLINE) -> None:
    if how == "sync":
        store.push("users_push", rows, to=to)
        return

    async def pushed() -> None:
        try:
            await store.push_async("users_push", rows, to=to)
        finally:
            await store._get_provider().online_store.close()

    asyncio.run(pushed())


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_push_that_cannot_land_is_not_written_online_either(store: FeatureStore, repo: Path, how: str) -> None:
    folder = repo / "data" / "users.parquet.landed"
    folder.write_text("no folder")
    with pytest.raises(SourceError, match=r"users\.parquet\.landed"):
        push(store, how, rows_with(7))
    assert orders(store, [1, 2]) == [None, None]
    folder.unlink()
    push(store, how, rows_with(7))
    assert orders(store, [1, 2]) == [7, 7]
    assert landed(repo) == [7, 7]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_push_that_redis_refuses_lands_nothing_and_leaves_no_file(
    store: FeatureStore, repo: Path, server: RedisServer, how: str
) -> None:
    client = server.client()
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(OnlineStoreError, match="full"):
            push(store, how, rows_with(7))
    finally:
        client.config_set("maxmemory", 0)
    assert list((repo / "data" / "users.parquet.landed").iterdir()) == []
    push(store, how, rows_with(7))
    assert orders(store, [1, 2]) == [7, 7]
    assert landed(repo) == [7, 7]


def test_a_list_with_a_null_in_it_is_refused_by_its_row_and_taken_offline(store: FeatureStore, repo: Path) -> None:
    source = pd.read_parquet(repo / "data" / "users.parquet").assign(name=[["a"]] * 5)
    source.to_parquet(repo / "data" / "users.parquet")
    schema = [field for field in user_view().schema if field.name != "name"]
    store.apply([user_view(schema=[*schema, Field(name="name", dtype=Array(String))])])
    rows = user_rows(3, NOW).assign(name=[["a"], None, ["b", None]])
    with pytest.raises(PushedRowsError, match=r"row 2: column 'name' has a list with a null in it, \['b', None\]"):
        store.push("users_push", rows, to=PushMode.ONLINE_AND_OFFLINE)
    assert landed(repo) == []
    store.push("users_push", rows, to=PushMode.OFFLINE)
    assert landed(repo) == [10, 20, 30]


def test_a_row_beyond_the_clock_is_refused_with_both_times(store: FeatureStore) -> None:
    ahead = NOW + timedelta(hours=1)
    rows = user_rows(1).assign(event_timestamp=[ahead])
    with pytest.raises(PushedRowsError, match=f"row 0: event time {re.escape(ahead.isoformat())} is more than 60 s"):
        store.push("users_push", rows)
