"""A shop whose service `checkout` is logged, on a clock of its own; made once and copied for each test."""

from pathlib import Path

import pytest

from tests.audit.logged_shop import LoggedShop
from tests.redis_servers import RedisServer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: RedisServer) -> LoggedShop:
    return LoggedShop.make(tmp_path_factory.mktemp("made") / "repo", server)


@pytest.fixture
def shop(made: LoggedShop, tmp_path: Path) -> LoggedShop:
    return made.copied(tmp_path / "repo")
