"""A store of clicks on a clock of its own, and workers that live as long as their test."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.feature_store import FeatureStore
from store.online.stream_log import read_states
from store.stream.context import StreamContext
from store.stream.worker import Worker
from tests.redis_servers import RedisServer, poll_until
from tests.stores import yaml_of
from tests.stream.shop import NOW, make_store
from tests.stream.workers import WarmWorkers

StartWorker = Callable[..., Worker]


@pytest.fixture
def shop(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeatureStore]:
    """A store of clicks, by user and by page, in an empty Redis."""
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    store = make_store(repo, server.url)
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    yield store
    store._get_provider().online_store.close_synchronous()


@pytest.fixture
def context(shop: FeatureStore) -> Iterator[StreamContext]:
    """The stream of that store."""
    context = StreamContext(Path(shop.repo_path), shop.config)
    yield context
    context.close()


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmWorkers]:
    """Starts workers as processes."""
    workers = WarmWorkers(tmp_path_factory.mktemp("workers"))
    yield workers
    workers.close()


@pytest.fixture
def start_worker(shop: FeatureStore) -> Iterator[StartWorker]:
    """Starts workers in threads."""
    started: list[tuple[Worker, threading.Thread, StreamContext]] = []

    def start(only: list[int] | None = None) -> Worker:
        context = StreamContext(Path(shop.repo_path), shop.config)
        worker = Worker(context, only)
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        started.append((worker, thread, context))
        return worker

    yield start
    for worker, thread, context in started:
        worker.stop()
        thread.join()
        context.close()


def wait_until_done(context: StreamContext) -> None:
    """Waits until all that was appended is applied and landed."""

    def is_done() -> bool:
        states = context.session.hold(read_states(context.log, range(context.log.partitions)))
        return all(state.applied >= state.last and state.landed >= state.last for state in states)

    poll_until(is_done, what="all partitions are done")
