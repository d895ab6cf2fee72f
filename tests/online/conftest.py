"""A private Redis for the tests of one module, and a feature store over it that knows some users."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.feature_store import FeatureStore
from tests.redis_servers import RedisServer, private_redis
from tests.stores import NOW, make_store, user_rows


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeatureStore]:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    store = make_store(repo, server.url)
    store.write_to_online_store("users", user_rows())
    yield store
    asyncio.run(store.close())
