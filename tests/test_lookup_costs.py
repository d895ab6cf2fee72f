"""What one lookup of a server costs: no work with the registry, one round trip, no wait while a registry is renewed."""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

from store.feature_store import FeatureStore
from store.limits import REGISTRY_REFRESH_SECONDS
from store.requests import LookupRequest
from store.service import StoreService
from tests.redis_servers import RedisServer
from tests.stores import NOW, make_store, user_rows, user_view, yaml_of

VIEWS_OF_A_LARGE_REGISTRY = 20_000
KEYS = {"user_id": list(range(1, 101)), "item_id": list(range(1, 101))}


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A store of three views, two of users and one of items, and a service of all of them."""
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    store = make_store(repo, server.url)
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    prices = pd.DataFrame({"item_id": KEYS["item_id"], "price": 2.5, "event_timestamp": NOW})
    prices.to_parquet(repo / "data" / "items.parquet")
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    items = FeatureView(
        name="items",
        entities=[item],
        schema=[Field(name="item_id", dtype=Int64), Field(name="price", dtype=Float64)],
        source=FileSource(path="data/items.parquet", timestamp_field="event_timestamp"),
    )
    users, visitors = user_view(), user_view(name="visitors")
    service = FeatureService(name="shop", features=[users[["orders", "name"]], visitors[["spent"]], items])
    store.apply([item, items, users, visitors, service])
    for view in ("users", "visitors"):
        store.write_to_online_store(view, user_rows(100))
    store.write_to_online_store("items", prices)
    return store


@asynccontextmanager
async def serving(store: FeatureStore) -> AsyncIterator[StoreService]:
    """A server's store, without the renewal of its registry beside the requests."""
    service = StoreService.open(Path(str(store.repo_path)))
    try:
        yield service
    finally:
        await service.close()


async def shop(service: StoreService, keys: int = 2) -> list[str]:
    """Looks the service up, and returns the names of the answer."""
    entities = {name: values[:keys] for name, values in KEYS.items()}
    answer = await service.lookup(LookupRequest(entities, feature_service="shop"))
    names: list[str] = json.loads(answer.content)["metadata"]["feature_names"]
    return names


# --- no work with the registry ------------------------------------------------------------------------


@contextmanager
def calls_noted() -> Iterator[list[tuple[str, str]]]:
    """Notes every call of this thread, of Python's and of C's functions: the file or module, and the name."""
    noted: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            noted.append((frame.f_code.co_filename, frame.f_code.co_name))
        elif event == "c_call":
            noted.append((str(argument.__module__), argument.__name__))

    sys.setprofile(note)
    try:
        yield noted
    finally:
        sys.setprofile(None)


# Which registry is held, and that it never grows old by itself: two looks at attributes.
LOOKS_AT_THE_REGISTRY = {"registry", "is_cache_valid"}
PROTOBUF_CALLS = {"FromString", "ParseFromString", "SerializeToString", "CopyFrom", "MergeFrom"}


def registry_work(noted: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (where, name)
        for where, name in noted
        if name in PROTOBUF_CALLS
        or "/google/protobuf/" in where
        or ("/site-packages/feast/" in where and name not in LOOKS_AT_THE_REGISTRY)
    ]


def compilations(noted: list[tuple[str, str]]) -> int:
    return [name for _, name in noted].count("compile_plan")


def test_a_service_is_resolved_once_per_version_of_the_registry_and_never_on_a_later_request(
    store: FeatureStore,
) -> None:
    async def ask() -> None:
        async with serving(store) as service:
            for version in range(2):
                with calls_noted() as first:
                    await shop(service)
                with calls_noted() as later:
                    for keys in (1, 2, 100):
                        await shop(service, keys)
                assert compilations(first) == 1
                assert registry_work(first), "resolving a service is the work that is looked for"
                assert (compilations(later), registry_work(later)) == (0, [])
                # Another version of the registry, in which nothing has changed that a lookup could see.
                if not version:
                    store.apply([Entity(name="other", join_keys=["other_id"], value_type=ValueType.INT64)])
                    service._snapshots.refresh()

    asyncio.run(ask())


# --- one round trip -----------------------------------------------------------------------------------


class Reads:
    """How often Redis has read from a connection: once for each batch, where it has a few KB and comes in one piece."""

    def __init__(self, server: RedisServer) -> None:
        self._client = server.client()
        self._last = self._count()

    def since_last(self) -> int:
        """Returns how often it was since the last time, without this look."""
        before, self._last = self._last, self._count()
        return self._last - before - 1

    def _count(self) -> int:
        return int(self._client.info("stats")["total_reads_processed"])


CASES: dict[str, dict[str, Any]] = {
    "one key": {"features": ["users:orders"], "entities": {"user_id": [1]}},
    "a hundred keys": {"features": ["users:orders", "users:name"], "entities": {"user_id": KEYS["user_id"]}},
    "one unknown key": {"features": ["users:orders"], "entities": {"user_id": [12_345]}},
    "three views of two entities": {"feature_service": "shop", "entities": {"user_id": [1, 2], "item_id": [3, 4]}},
    "the same for twenty keys": {"feature_service": "shop", "entities": {n: keys[:20] for n, keys in KEYS.items()}},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("by", ["server", "sdk"])
def test_a_lookup_is_one_round_trip(store: FeatureStore, server: RedisServer, case: dict[str, Any], by: str) -> None:
    reads = Reads(server)

    async def by_server() -> int:
        async with serving(store) as service:
            # The first lookup connects, and learns how the rows are laid out.
            await service.lookup(LookupRequest(**case))
            reads.since_last()
            await service.lookup(LookupRequest(**case))
            return reads.since_last()

    def by_sdk() -> int:
        features = case.get("features") or store.get_feature_service(case["feature_service"])
        store.get_online_features(features, case["entities"])
        reads.since_last()
        store.get_online_features(features, case["entities"])
        return reads.since_last()

    assert (asyncio.run(by_server()) if by == "server" else by_sdk()) == 1


# --- a registry that is renewed -----------------------------------------------------------------------


def test_lookups_go_on_while_the_registry_is_being_read_and_the_new_one_then_holds(store: FeatureStore) -> None:
    """The registry's file becomes a pipe: reading it takes until the test writes into it."""
    path = Path(str(store.repo_path)) / "data" / "registry.db"
    users = store.get_feature_view("users")
    before = path.read_bytes()
    store.apply([FeatureService(name="shop", features=[users[["spent"]], store.get_feature_view("items")])])
    changed = path.read_bytes()
    path.write_bytes(before)

    is_read, is_enough = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with path.open("wb") as pipe:
            is_read.set()
            # Lookups that do not go on fail the test, and do not hang it.
            is_enough.wait(20)
            pipe.write(changed)

    async def ask() -> None:
        async with serving(store) as service:
            await service.start()
            assert await shop(service) == ["user_id", "item_id", "orders", "name", "spent", "price"]
            path.unlink()
            os.mkfifo(path)
            writing = asyncio.create_task(asyncio.to_thread(write_slowly))
            while not is_read.is_set():
                await shop(service)
            for _ in range(20):
                assert len(await shop(service)) == 6
            assert not writing.done(), "no lookup went on while the registry was read"
            is_enough.set()
            await writing
            path.unlink()
            path.write_bytes(changed)
            await until_shop_is(service, ["user_id", "item_id", "spent", "price"])

    asyncio.run(ask())


async def until_shop_is(service: StoreService, names: list[str]) -> None:
    deadline = time.monotonic() + REGISTRY_REFRESH_SECONDS + 10
    while await shop(service) != names:
        assert time.monotonic() < deadline, "the changed service is not served"
        await asyncio.sleep(0.02)


def test_a_service_changed_by_somebody_else_takes_effect_by_itself(store: FeatureStore) -> None:
    async def ask() -> None:
        async with serving(store) as service:
            await service.start()
            assert len(await shop(service)) == 6
            view = store.get_feature_view("users")
            store.apply([FeatureService(name="shop", features=[view[["spent"]], store.get_feature_view("items")])])
            await until_shop_is(service, ["user_id", "item_id", "spent", "price"])

    asyncio.run(ask())
