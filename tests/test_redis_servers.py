"""The private Redis of the tests leaves nothing behind."""

import os
from pathlib import Path

from store.online.embedded_settings import SOCKET_PATH_BYTES_MAX
from tests.online.embedded.processes import is_alive
from tests.redis_servers import private_redis


def test_private_redis_of_the_tests_leaves_nothing(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        with server.client() as client:
            client.set("a", 1)
        assert server.socket_path is not None
        assert len(os.fsencode(server.socket_path)) < SOCKET_PATH_BYTES_MAX
    assert not server.socket_path.exists()
    assert not is_alive(server.process.pid)
    assert [path.name for path in tmp_path.iterdir()] == ["redis.log"]
