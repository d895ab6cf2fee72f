"""A server's registry and settings: what is broken is named without its secrets, and what is held keeps serving."""

import asyncio
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from store.errors import ConfigError
from store.requests import HistoricalRequest
from store.service import StoreService
from store.snapshot import load_config
from tests.redis_servers import RedisServer
from tests.stores import NOW, make_store, user_view, yaml_of

SECRET = "hunter2-is-secret"
GOOD = yaml_of(f"redis.example:6379,password={SECRET}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{GOOD}\n  broken: [", "line 16, column 9"),
        (GOOD.replace("connection_string: ", "connection_string: {"), "not valid YAML at line 1"),
        (f"{GOOD}\tpassword: {SECRET}", "line 15, column 1"),
        (f"- {SECRET}", "not a mapping"),
        (SECRET, "not a mapping"),
        ("", "not a mapping"),
        (GOOD.replace("connection_string:", "connection_strings:"), "'connection_strings'.*[Ee]xtra"),
        (f"{GOOD}online_store: {SECRET}\n", "type"),
        (f"{GOOD}online_store: redis://:{SECRET}@redis.example.RedisOnlineStore\n", "a 'type' in it"),
        (GOOD.replace("store.online.RedisOnlineStore", "store.online.NoSuchStore"), "NoSuchStore"),
        (GOOD.replace("project: shop", "project: a-b"), "'project'"),
        (GOOD.replace("project: shop\n", ""), "'project'"),
        (GOOD.replace("cache_ttl", "x").replace("path: data/registry.db", f"path: [{SECRET}]"), "path"),
        (GOOD.replace("entity_key_serialization_version: 3", f"  key_ttl_seconds: {SECRET}"), "key_ttl_seconds"),
        (GOOD.replace("  connection_string:", f"  key_ttl_seconds: {SECRET}\n  connection_string:"), "key_ttl_seconds"),
        (GOOD.replace("store.engine.DuckDBComputeEngine", SECRET), "cannot be used"),
    ],
)
def test_settings_that_cannot_be_read_are_one_sentence_without_a_value_of_theirs(
    repo: Path, text: str, words: str
) -> None:
    (repo / "feature_store.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words) as refusal:
        load_config(repo)
    told = "".join(traceback.format_exception(refusal.value))
    assert SECRET not in told
    assert "\n" not in str(refusal.value)


def test_settings_in_another_encoding_are_one_sentence(repo: Path) -> None:
    (repo / "feature_store.yaml").write_bytes(GOOD.encode() + b"# \xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(repo)


def test_good_settings_are_taken(repo: Path) -> None:
    (repo / "feature_store.yaml").write_text(GOOD)
    assert load_config(repo).project == "shop"


def retrieved(service: StoreService) -> list[Any]:
    rows = pa.table({"user_id": [1], "event_timestamp": pa.array([NOW], pa.timestamp("us", "UTC"))})
    answer = service.retrieve(HistoricalRequest(rows, features=["users:orders"])).to_arrow()
    values: list[Any] = answer.column("orders").to_pylist()
    return values


def test_a_retrieval_is_made_by_the_registry_that_is_held_also_when_its_file_is_gone(
    repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    make_store(repo, server.url)
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    service = StoreService.open(repo)
    registry = repo / "data" / "registry.db"
    whole = registry.read_bytes()
    for broken in (None, b"", b"torn"):
        registry.unlink(missing_ok=True)
        if broken is not None:
            registry.write_bytes(broken)
        assert retrieved(service) == [10]
    registry.write_bytes(whole)
    asyncio.run(service.close())


def test_a_registry_that_is_renewed_is_the_one_that_retrievals_use(
    repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    store = make_store(repo, server.url)
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    service = StoreService.open(repo)
    before = service.registry_version
    store.apply([user_view(name="others")])
    service._snapshots.refresh()
    assert service.registry_version != before
    assert service._snapshots.current().store.get_feature_view("others").name == "others"
    asyncio.run(service.close())
