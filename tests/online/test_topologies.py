"""The same store over a real Redis Cluster, a master behind Sentinel, and a server with a password."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import Field, StreamFeatureView
from feast.aggregation import Aggregation
from feast.data_source import PushMode
from feast.types import Float64, Int64

from store.clock import from_us
from store.definitions_from_feast import view_definition
from store.feature_store import FeatureStore
from store.online.newest_reads import ServedView, read_newest
from store.stream.context import StreamContext
from store.stream.lines import landed_line
from tests.redis_servers import poll_until, private_cluster, private_redis_tcp, private_sentinel
from tests.stores import NOW, PROJECT, USER, make_store, objects, user_rows, user_view

Settings = tuple[str, dict[str, Any]]


def cluster(folder: Path, stack: ExitStack) -> Settings:
    nodes = stack.enter_context(private_cluster(folder))
    return ",".join(node.address for node in nodes), {"redis_type": "redis_cluster"}


def sentinel(folder: Path, stack: ExitStack) -> Settings:
    master = stack.enter_context(private_redis_tcp(folder))
    watcher = stack.enter_context(private_sentinel(folder, master, "larder"))
    poll_until(lambda: watcher.client().execute_command("SENTINEL", "get-master-addr-by-name", "larder"))
    return watcher.address, {"redis_type": "redis_sentinel", "sentinel_master": "larder"}


def password(folder: Path, stack: ExitStack) -> Settings:
    server = stack.enter_context(private_redis_tcp(folder, "--requirepass", "s3cret"))
    return f"{server.address},password=s3cret,db=0", {}


@pytest.fixture(params=[cluster, sentinel, password])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    start: Callable[[Path, ExitStack], Settings] = request.param
    folder = tmp_path / "redis"
    folder.mkdir()
    with ExitStack() as stack:
        yield start(folder, stack)


def test_writes_lookups_rebuilds_and_teardown(repo: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    connection_string, options = settings
    store = make_store(repo, connection_string, user_rows(200), **options)
    assert newest(store) is None
    store.materialize(NOW.replace(hour=0), NOW)
    assert newest(store) == NOW - timedelta(hours=1, minutes=1)
    users = {"user_id": list(range(1, 202))}
    expected = [*(user * 10 for user in range(1, 201)), None]
    assert store.get_online_features(["users:orders"], users).to_dict()["orders"] == expected

    store.push("users_push", user_rows(1, NOW).assign(orders=[7]).astype({"orders": "Int64"}))
    store.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
    store.materialize(NOW.replace(hour=0), NOW)

    async def ask() -> Any:
        try:
            return await store.get_online_features_async(["users:orders"], users)
        finally:
            await store.close()

    assert newest(store) == NOW - timedelta(minutes=1)
    assert asyncio.run(ask()).to_dict()["orders"] == [7, *expected[1:]]
    store.teardown()
    assert newest(store) is None


def newest(store: FeatureStore, view: str = "users", fingerprint: str = "") -> datetime | None:
    """Returns the newest event that is known to have come into what is served of a view."""
    online = store._get_provider().online_store
    (found,) = online.session(store.config).hold(read_newest(PROJECT, [ServedView(view, fingerprint)]))
    return None if found is None else from_us(found)


def test_events_tiles_and_windows(repo: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    connection_string, options = settings
    store = make_store(repo, connection_string, user_rows(30, NOW - timedelta(days=1)), **options)
    day = timedelta(days=1)
    spending = StreamFeatureView(
        name="spending",
        entities=[USER],
        schema=[Field(name="user_id", dtype=Int64), Field(name="spent_2d", dtype=Float64)],
        source=user_view().stream_source,
        timestamp_field="event_timestamp",
        aggregations=[Aggregation(column="spent", function="sum", time_window=2 * day, name="spent_2d")],
    )
    store.apply([*objects(), spending])
    store.push("users_push", user_rows(20, NOW - timedelta(minutes=5)), to=PushMode.ONLINE_AND_OFFLINE)
    context = StreamContext(repo, store.config)
    landed_line(context, "")
    context.close()

    async def ask() -> Any:
        try:
            users = {"user_id": list(range(1, 32))}
            return await store.get_online_features_async(["spending:spent_2d", "users:orders"], users)
        finally:
            await store.close()

    def spent() -> Any:
        return asyncio.run(ask()).to_dict()["spent_2d"]

    fingerprint = view_definition(PROJECT, spending).fingerprint
    assert newest(store, "spending", fingerprint) == NOW - timedelta(minutes=6)
    pushed = [user * 1.5 for user in range(1, 21)]
    assert spent() == [*pushed, *[None] * 11]
    store.materialize(NOW - day, NOW)
    assert spent() == [*(2 * amount for amount in pushed), *(user * 1.5 for user in range(21, 31)), None]
    store.materialize(NOW - day, NOW)
    assert spent()[:3] == [3.0, 6.0, 9.0]
    assert newest(store, "spending", fingerprint) == NOW - timedelta(minutes=6)
    store.teardown()
    assert newest(store, "spending", fingerprint) is None
