"""Every type of Feast, with its edges, is logged exactly and audited clean."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.types import Int64

from cli.audit import as_json
from store.audit.audit import audit
from store.audit.log import Span
from store.clock import restart_clock
from store.feast_values import plain_from_arrow
from store.feature_store import FeatureStore
from store.kernel.definitions import Column
from store.kernel.equality import are_equal
from store.requests import LookupRequest
from store.service import StoreService
from tests.audit.logged_shop import DAY
from tests.feast.value_matrix import ALONE, TYPES, TypeRows
from tests.redis_servers import RedisServer
from tests.stores import NOW, config, yaml_of

KINDS: dict[str, TypeRows] = {**TYPES, **ALONE}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, server: RedisServer) -> FeatureStore:
    """A store with one view of all types, one row a value, nulls where a type has fewer; served once, all logged."""
    repo = tmp_path_factory.mktemp("kinds") / "repo"
    (repo / "data").mkdir(parents=True)
    restart_clock(repo, NOW)
    count = 1 + max(len(kind.rows) for kind in KINDS.values())
    columns = {
        name: pa.array([*kind.rows, *[None] * (count - len(kind.rows))], kind.arrow) for name, kind in KINDS.items()
    }
    at = pa.array([NOW - timedelta(hours=1)] * count, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"id": list(range(count)), "at": at, **columns}), repo / "data" / "kinds.parquet")
    thing = Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="kinds",
        entities=[thing],
        ttl=DAY,
        schema=[Field(name="id", dtype=Int64), *(Field(name=name, dtype=kind.dtype) for name, kind in KINDS.items())],
        source=FileSource(name="kinds_file", path="data/kinds.parquet", timestamp_field="at"),
    )
    logging = LoggingConfig(FileLoggingDestination(path="data/log"))
    service = FeatureService(name="all", features=[view], logging_config=logging)
    store = FeatureStore(repo_path=str(repo), config=config(repo, server.url, "things"))
    store.apply([thing, view, service])
    store.materialize(NOW - DAY, NOW)
    (repo / "feature_store.yaml").write_text(yaml_of(server.url, "things"))

    async def serve() -> None:
        opened = StoreService.open(repo)
        await opened.start()
        for ids in (list(range(count)), [0, 99, None], [1]):
            await opened.lookup(LookupRequest(entities={"id": ids}, feature_service="all"))
        await opened.close()

    asyncio.run(serve())
    return store


def test_all_types_are_audited_clean(kinds: FeatureStore) -> None:
    told = as_json(audit(kinds, [], Span()))
    json.dumps(told)
    assert told["differences"] == []
    assert told["is_clean"]
    features = {feature["feature"]: feature for feature in told["services"][0]["features"]}
    assert set(features) == {f"kinds:{name}" for name in KINDS}
    assert told["services"][0]["not_audited"] == {}
    total = told["services"][0]["coverage"]["served"]
    assert {feature["reproduction"]["equal"] for feature in features.values()} == {total}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_value_is_logged_exactly(kinds: FeatureStore, name: str) -> None:
    (path,) = (Path(str(kinds.repo_path)) / "data" / "log").glob("*.parquet")
    logged = pq.read_table(path, columns=[f"kinds__{name}", "id"])
    [feature] = [feature for feature in kinds.get_feature_view("kinds").features if feature.name == name]
    column = Column(name, feature.dtype.to_value_type().name)
    source = pq.read_table(Path(str(kinds.repo_path)) / "data" / "kinds.parquet", columns=[name])
    expected: list[Any] = plain_from_arrow(column, source.column(name))
    ids, values = logged.column("id").to_pylist(), logged.column(f"kinds__{name}").to_pylist()
    assert len(ids) > len(expected)
    for number, value in zip(ids, values, strict=True):
        seen = expected[number] if number is not None and number < len(expected) else None
        assert repr(value) == repr(seen) or are_equal(value, seen), (number, value, seen)
        assert type(value) is type(seen)
