"""How fresh views are, as a server's store tells it: what is not known has its reason, many askers cost one look."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureView, Field, FileSource
from feast.types import Float64, Int64

from store.clock import restart_clock, to_us
from store.errors import RegistryUnavailable
from store.feature_store import FeatureStore
from store.kernel.keys import newest_key
from store.monitor import freshness as module
from store.monitor.freshness import ViewFreshness
from store.service import StoreService
from tests.redis_servers import RedisServer
from tests.stores import NOW, PROJECT, USER, config, make_store, user_rows, user_source, user_view, yaml_of

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def store(repo: Path, server: RedisServer) -> FeatureStore:
    server.client().flushall()
    restart_clock(repo, NOW)
    store = make_store(repo, server.url)
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    return store


@pytest.fixture
def service(store: FeatureStore) -> Iterator[StoreService]:
    return StoreService.open(store.repo_path, store.config)


def read(service: StoreService, times: int = 1, kept_seconds: float = 0) -> dict[str, ViewFreshness]:
    async def ask() -> list[ViewFreshness]:
        try:
            answers = await asyncio.gather(*(service.freshness(kept_seconds) for _ in range(times)))
            assert all(each is answers[0] for each in answers)
            return answers[0]
        finally:
            await service.close()

    return {each.view: each for each in asyncio.run(ask())}


def test_both_sides_are_told_with_ttl_and_the_end_of_the_last_materialization(
    store: FeatureStore, service: StoreService
) -> None:
    unlimited = user_view(name="unlimited", ttl=timedelta(0), online=False, source=user_view().batch_source)
    store.apply([unlimited])
    store.materialize(NOW - DAY, NOW - HOUR)
    store.push("users_push", user_rows(1, NOW))
    service._snapshots.refresh()
    newest_us = to_us(NOW - HOUR) - 60_000_000
    assert read(service) == {
        "users": ViewFreshness(
            "users",
            offline_newest_us=newest_us,
            online_newest_us=to_us(NOW) - 60_000_000,
            ttl_seconds=86_400.0,
            materialized_until_us=to_us(NOW - HOUR),
        ),
        "unlimited": ViewFreshness("unlimited", offline_newest_us=newest_us),
    }


def test_views_of_one_source_cost_one_look_at_it_and_many_askers_one_reading(
    store: FeatureStore, service: StoreService, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    original = module.FreshnessReader._read_source

    def counting(reader: Any, source: Any, now_us: int) -> Any:
        looks.append(source.name)
        return original(reader, source, now_us)

    monkeypatch.setattr(module.FreshnessReader, "_read_source", counting)
    store.apply([user_view(name="again", source=user_source())])
    service._snapshots.refresh()
    assert {view: each.offline_newest_us for view, each in read(service, times=5).items()} == dict.fromkeys(
        ("users", "again"), to_us(NOW - HOUR) - 60_000_000
    )
    assert looks == ["users_file"]
    read(service, kept_seconds=60)
    assert looks == ["users_file"]
    # A twentieth of a core at most goes to looking: what took long is told for longer.
    service._freshness._cpu_seconds = 60.0
    read(service, kept_seconds=0)
    assert len(looks) == 1
    service._freshness._cpu_seconds = 0.0
    read(service, kept_seconds=0)
    assert len(looks) == 2
    # A registry that has changed is another matter.
    store.apply([user_view(name="third", source=user_source())])
    service._snapshots.refresh()
    assert set(read(service, kept_seconds=60)) == {"users", "again", "third"}


def test_rows_from_the_future_are_told_apart(store: FeatureStore, service: StoreService) -> None:
    rows = user_rows()
    rows.loc[0, "event_timestamp"] = NOW + 3 * DAY
    rows.to_parquet(store.repo_path / "data" / "users.parquet")
    users = read(service)["users"]
    assert users.offline_newest_us == to_us(NOW - HOUR) - 120_000_000
    assert (users.offline_future_us, users.offline_problem) == (to_us(NOW + 3 * DAY), None)


def test_a_clock_in_the_past_is_named(store: FeatureStore) -> None:
    restart_clock(store.repo_path, NOW - 100 * DAY)
    users = read(StoreService.open(store.repo_path, store.config))["users"]
    assert users.offline_newest_us is None
    assert users.offline_problem is not None
    assert "source 'users_file' has rows from the future only, up to 2026-03-01T10:59:00" in users.offline_problem
    assert "clock says 2025-11-21T12:00:" in users.offline_problem


def test_an_empty_source_and_one_that_is_gone_have_their_reasons_and_others_their_times(
    store: FeatureStore, service: StoreService
) -> None:
    lost = FeatureView(
        name="lost",
        entities=[USER],
        schema=[Field(name="user_id", dtype=Int64), Field(name="x", dtype=Float64)],
        source=FileSource(name="lost_file", path="data/lost.parquet", timestamp_field="event_timestamp"),
    )
    user_rows().to_parquet(store.repo_path / "data" / "lost.parquet")
    store.apply([lost])
    (store.repo_path / "data" / "lost.parquet").unlink()
    service._snapshots.refresh()
    found = read(service)
    assert found["users"].offline_newest_us is not None
    assert found["lost"].offline_newest_us is None
    assert str(found["lost"].offline_problem).startswith("source 'lost_file': no Parquet file at ")
    user_rows().head(0).to_parquet(store.repo_path / "data" / "lost.parquet")
    service._freshness._cpu_seconds = 0.0
    assert read(service)["lost"].offline_problem == "source 'lost_file' has no row with an event time; fill it"


def test_rows_that_were_materialized_before_it_was_noted_are_unknown(
    store: FeatureStore, service: StoreService, server: RedisServer
) -> None:
    store.materialize(NOW - DAY, NOW)
    server.client().delete(newest_key(PROJECT))
    users = read(service)["users"]
    assert (users.online_newest_us, users.online_problem) == (None, None)


def test_a_redis_that_is_away_leaves_the_other_side(store: FeatureStore) -> None:
    away = config(store.repo_path, "redis://127.0.0.1:1")
    users = read(StoreService.open(store.repo_path, away))["users"]
    assert users.offline_newest_us is not None
    assert users.online_newest_us is None
    assert "127.0.0.1:1" in str(users.online_problem)


def test_a_repo_without_a_registry_has_no_views_to_tell_of(repo: Path, server: RedisServer) -> None:
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    with pytest.raises(RegistryUnavailable, match="feast apply"):
        read(StoreService.open(repo))


def test_an_asker_that_goes_away_does_not_end_the_reading_of_others(
    service: StoreService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> list[ViewFreshness]:
        impatient = asyncio.create_task(service.freshness())
        patient = asyncio.create_task(service.freshness())
        await asyncio.sleep(0)
        impatient.cancel()
        try:
            return await patient
        finally:
            await service.close()

    assert [each.view for each in asyncio.run(ask())] == ["users"]
