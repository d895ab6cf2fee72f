"""A client of either kind, and servers to connect to."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.online.connection import RedisTarget, connect, connect_async, settings_of, translated
from store.online.embedded import is_running, stop_if_unused
from tests.online.connection.targets import SECRET, config
from tests.redis_servers import RedisServer, poll_until, private_redis_tcp


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Any:
    """Runs one command over a new client of either kind, as the store would: errors are translated."""

    def call_sync(target: RedisTarget, *words: object) -> object:
        client = connect(target)
        try:
            with translated(target):
                return client.execute_command(*words)
        finally:
            client.close()

    def call_async(target: RedisTarget, *words: object) -> object:
        async def run() -> object:
            client = connect_async(target)
            try:
                with translated(target):
                    return await client.execute_command(*words)
            finally:
                await client.aclose()
                # A cluster client closes the nodes that it has dropped in tasks of their own.
                await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

        return asyncio.run(run())

    return call_sync if request.param == "sync" else call_async


@pytest.fixture
def embedded_target(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisTarget]:
    monkeypatch.setenv("LARDER_EMBEDDED_IDLE_SECONDS", "60")
    try:
        yield settings_of(config("embedded"), repo)
    finally:
        poll_until(lambda: stop_if_unused(repo) or not is_running(repo), what="the embedded Redis stops")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("tcp")
    with private_redis_tcp(folder, "--requirepass", SECRET) as running:
        yield running
