"""Views under other names and keys, without keys, with mapped columns and nanoseconds are audited as plain ones are."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.types import Float32, Float64, Int64, String, UnixTimestamp

from cli.audit import as_json
from store.audit.audit import audit
from store.audit.log import Span
from store.clock import restart_clock
from store.feature_store import FeatureStore
from store.requests import LookupRequest
from store.service import StoreService
from tests.audit.logged_shop import DAY, causes_of, different, features_of, lost_of
from tests.redis_servers import RedisServer
from tests.stores import NOW, config, yaml_of

HOUR = timedelta(hours=1)


def mapped() -> FeatureView:
    """Returns a view of two keys, one of them a time, whose source calls everything by other names."""
    source = FileSource(
        path="data/visits.parquet",
        timestamp_field="happened",
        created_timestamp_column="written",
        field_mapping={"who": "user_id", "day": "visit_day", "price": "spent", "happened": "at", "written": "known"},
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    day = Entity(name="visit", join_keys=["visit_day"], value_type=ValueType.UNIX_TIMESTAMP)
    fields = [("user_id", String), ("visit_day", UnixTimestamp), ("spent", Float32), ("visits", Int64)]
    return FeatureView(
        name="visits",
        entities=[user, day],
        ttl=DAY,
        schema=[Field(name=name, dtype=kind) for name, kind in fields],
        source=source,
    )


def overall() -> FeatureView:
    """Returns a view without entities, whose source has neither created times nor a ttl."""
    source = FileSource(path="data/overall.parquet", timestamp_field="at")
    return FeatureView(
        name="overall", entities=[], ttl=timedelta(0), schema=[Field(name="mood", dtype=Float64)], source=source
    )


def write_visits(repo: Path, price: float = 0.1) -> None:
    happened = pd.to_datetime([NOW - HOUR, NOW - 2 * HOUR, NOW - 3 * HOUR], utc=True).as_unit("ns")
    frame = pd.DataFrame(
        {
            "who": ["ann", "bob", "ann"],
            "day": pd.to_datetime([NOW.date(), NOW.date(), NOW.date()]).tz_localize("UTC").as_unit("us"),
            "happened": happened + pd.Timedelta(7, "ns"),
            "written": happened + pd.Timedelta(999, "ns"),
            "price": [price, 2.5, 3.25],
            "visits": [1, 2, 3],
        }
    )
    frame.to_parquet(repo / "data" / "visits.parquet")


@pytest.fixture
def store(tmp_path: Path, server: RedisServer) -> FeatureStore:
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    server.client().flushall()
    restart_clock(repo, NOW)
    write_visits(repo)
    pd.DataFrame({"at": pd.to_datetime([NOW - HOUR], utc=True), "mood": [0.5]}).to_parquet(
        repo / "data" / "overall.parquet"
    )
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    made = FeatureStore(repo_path=str(repo), config=config(repo, server.url))
    visits, general = mapped(), overall()
    service = FeatureService(
        name="all",
        features=[
            visits,
            visits.with_name("friends").with_join_key_map({"user_id": "friend_id"})[["spent"]],
            general,
        ],
        logging_config=LoggingConfig(FileLoggingDestination(path="data/log")),
    )
    entities = [
        Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING),
        Entity(name="visit", join_keys=["visit_day"], value_type=ValueType.UNIX_TIMESTAMP),
    ]
    made.apply([*entities, visits, general, service])
    made.materialize(NOW - DAY, NOW)
    return made


def serve(store: FeatureStore) -> None:
    day = int(pd.Timestamp(NOW.date(), tz="UTC").timestamp())

    async def look_up() -> None:
        service = StoreService.open(Path(str(store.repo_path)))
        await service.start()
        entities = {
            "user_id": ["ann", "bob", "eve"],
            "friend_id": ["bob", None, "ann"],
            "visit_day": [day, day, day],
        }
        await service.lookup(LookupRequest(entities=entities, feature_service="all", full_feature_names=True))
        await service.close()

    asyncio.run(look_up())


def found(store: FeatureStore) -> dict[str, Any]:
    store.registry.refresh()
    return as_json(audit(store, [], Span()))


def test_all_shapes_are_clean(store: FeatureStore) -> None:
    serve(store)
    told = found(store)
    assert set(features_of(told)) == {"visits:spent", "visits:visits", "friends:spent", "overall:mood"}
    assert (told["is_clean"], causes_of(told), lost_of(told), different(told)) == (True, {}, {}, {})
    assert {feature["reproduction"]["equal"] for feature in features_of(told).values()} == {3}


def test_differences_are_told_by_the_names_that_the_service_uses(store: FeatureStore) -> None:
    serve(store)
    write_visits(Path(str(store.repo_path)), price=0.2)
    told = found(store)
    rewritten = {"source rewritten": 1}
    assert causes_of(told) == {"visits:spent": rewritten, "friends:spent": rewritten}
    keys = {each["feature"]: each["key"] for each in told["differences"]}
    assert keys["friends:spent"]["friend_id"] == "ann"
    assert keys["visits:spent"]["user_id"] == "ann"


def test_a_view_that_is_gone_is_an_older_definition(store: FeatureStore) -> None:
    serve(store)
    service = store.get_feature_service("all")
    service.feature_view_projections = service.feature_view_projections[:2]
    store.apply(service)
    store.apply([], objects_to_delete=[store.get_feature_view("overall")], partial=False)
    told = found(store)
    assert told["is_clean"]
    assert lost_of(told) == {"overall:mood": {"older definition": 3}}
    assert causes_of(told) == {"overall:mood": {"older definition": 3}}
