"""A store over a Redis of its own for the tests of the engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.feature_store import FeatureStore
from store.online.client import RedisSession
from store.online.connection import parse_target
from tests.redis_servers import RedisServer
from tests.stores import NOW, make_store


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    return make_store(repo, server.url)


@pytest.fixture
def session(server: RedisServer) -> Iterator[RedisSession]:
    session = RedisSession(parse_target(server.url, "redis", "mymaster", "test"))
    yield session
    session.close()
