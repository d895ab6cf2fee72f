"""A shop whose service `checkout` is logged, on a clock of its own; made once and copied for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.clicks_shop import ClicksShop
from tests.audit.logged_shop import LoggedShop
from tests.redis_servers import RedisServer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: RedisServer) -> LoggedShop:
    return LoggedShop.make(tmp_path_factory.mktemp("made") / "repo", server)


@pytest.fixture
def shop(made: LoggedShop, tmp_path: Path) -> LoggedShop:
    return made.copied(tmp_path / "repo")


@pytest.fixture
def clicks_shop(tmp_path: Path, server: RedisServer) -> Iterator[ClicksShop]:
    """A store of clicks with logged windows, in an empty Redis."""
    server.client().flushall()
    shop = ClicksShop(tmp_path / "repo", server)
    yield shop
    shop.close()
