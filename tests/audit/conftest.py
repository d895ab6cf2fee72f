"""A shop whose service `checkout` is logged, on a clock of its own."""

from pathlib import Path

import pytest

from store.clock import restart_clock
from tests.audit.logged_shop import LoggedShop
from tests.redis_servers import RedisServer
from tests.stores import NOW


@pytest.fixture
def shop(repo: Path, server: RedisServer) -> LoggedShop:
    restart_clock(repo, NOW)
    server.client().flushall()
    return LoggedShop(repo, server)
