"""Fixtures for all tests: a feature repo folder of one's own, and the rule that nothing needed may be missing in CI."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.redis_servers import RedisServer

# Set by `.ci/run`, which installs every optional part: a test that skips there would never run anywhere.
REQUIRE_ALL_VARIABLE = "LARDER_REQUIRE_ALL"

# How long a machine takes to draw examples says nothing about what is tested.
settings.register_profile("larder", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("larder")

# Settings of the person who runs the tests must not leak into them.
CALLERS_SETTINGS = (
    "REDIS_URL",
    "LARDER_CLOCK",
    "LARDER_TOKENS_FILE",
    "LARDER_ALLOWED_HOSTS",
    "LARDER_EMBEDDED_IDLE_SECONDS",
    "FEAST_FS_YAML_FILE_PATH",
    "FEATURE_STORE_YAML_BASE64",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip into a failure where every part has to be there."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get(REQUIRE_ALL_VARIABLE) == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but {REQUIRE_ALL_VARIABLE}=1 allows no skip: {reason}"
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of asynchronous tests: Larder runs on asyncio only."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CALLERS_SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _no_embedded_redis_outlives_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stops at once what would stop by itself half a minute later; one still in use is left alone."""
    yield
    folders = [*tmp_path_factory.getbasetemp().rglob("data/redis")]
    if not folders:
        # The import takes seconds, and a run of a few small tests has no need of it.
        return
    from store.online.embedded import stop_if_unused

    for folder in folders:
        stop_if_unused(folder.parent.parent)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RedisServer]":
    """A private Redis for the tests of one module."""
    # The import takes seconds, and a run of a few small tests has no need of it.
    from tests.redis_servers import private_redis

    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """An empty feature repo folder of this test alone, with its `data` folder."""
    folder = tmp_path / "repo"
    (folder / "data").mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds pyproject.toml."""
    return Path(__file__).resolve().parent.parent
