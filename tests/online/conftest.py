"""A feature store that knows some users, and a Redis that is reached through a proxy."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.feature_store import FeatureStore
from tests.redis_proxy import RedisProxy, redis_proxy
from tests.redis_servers import RedisServer, private_redis_tcp
from tests.stores import NOW, make_store, user_rows


@pytest.fixture(scope="module")
def tcp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A private Redis that listens on a port, for the tests of one module."""
    with private_redis_tcp(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def proxy(tcp_server: RedisServer) -> Iterator[RedisProxy]:
    """What stands between a client and that Redis, and stalls, cuts and trickles as it is told."""
    with redis_proxy(tcp_server.port or 0) as proxy:
        yield proxy


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeatureStore]:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    store = make_store(repo, server.url)
    store.write_to_online_store("users", user_rows())
    yield store
    asyncio.run(store.close())
