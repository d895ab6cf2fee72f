"""The same store over a real Redis Cluster, a master behind Sentinel, and a server with a password."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.redis_servers import poll_until, private_cluster, private_redis_tcp, private_sentinel
from tests.stores import NOW, make_store, objects, user_rows, user_view

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
    store.materialize(NOW.replace(hour=0), NOW)
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

    assert asyncio.run(ask()).to_dict()["orders"] == [7, *expected[1:]]
    store.teardown()
