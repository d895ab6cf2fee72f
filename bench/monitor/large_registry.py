"""A feature repo with as many features as are wanted: its registry is written as Feast writes one, without sources."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.aggregation import Aggregation
from feast.data_source import PushSource
from feast.project import Project
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64, String

PROJECT = "large"
_SETTINGS = f"""\
project: {PROJECT}
provider: local
registry:
  path: data/registry.db
  registry_store_type: store.registry.AtomicFileRegistryStore
offline_store:
  type: store.offline.DuckDBOfflineStore
online_store:
  type: store.online.RedisOnlineStore
  connection_string: embedded
batch_engine:
  type: store.engine.DuckDBComputeEngine
entity_key_serialization_version: 3
"""


def write_large_repo(folder: Path, views: int = 100, features: int = 10) -> Path:
    """Writes a repo with so many feature views of so many features each; every fourth view is windowed.

    There are a fifth as many entities and half as many sources as views, and a service for each ten of them.
    """
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(_SETTINGS)
    registry = RegistryProto(version_id="1", registry_schema_version="1")
    registry.last_updated.GetCurrentTime()
    registry.projects.append(Project(name=PROJECT).to_proto())
    entities = [_entity(number) for number in range(max(1, views // 5))]
    sources = [_source(number) for number in range(max(1, views // 2))]
    made: list[Any] = []
    for number in range(views):
        entity, source = entities[number % len(entities)], sources[number % len(sources)]
        make = _windowed_view if number % 4 == 3 else _view
        made.append(make(number, features, entity, source))
    services = [_service(number, made[at : at + 10]) for number, at in enumerate(range(0, views, 10))]
    pushes = [view.stream_source for view in made if isinstance(view, StreamFeatureView)]
    lists: tuple[tuple[Any, list[Any]], ...] = (
        (registry.entities, entities),
        (registry.data_sources, [*sources, *pushes]),
        (registry.feature_views, [view for view in made if not isinstance(view, StreamFeatureView)]),
        (registry.stream_feature_views, [view for view in made if isinstance(view, StreamFeatureView)]),
        (registry.feature_services, services),
    )
    for kept, objects in lists:
        for each in objects:
            message = each.to_proto()
            holder = message.spec if "spec" in message.DESCRIPTOR.fields_by_name else message
            holder.project = PROJECT
            kept.append(message)
    (folder / "data" / "registry.db").write_bytes(registry.SerializeToString())
    return folder


def _told(what: str, number: int) -> dict[str, Any]:
    return {
        "description": f"What is known of {what} {number}, as the people who keep it would tell somebody who is new",
        "owner": f"team{number % 7}@features.example",
        "tags": {"domain": f"domain{number % 11}", "tier": str(number % 3)},
    }


def _entity(number: int) -> Entity:
    return Entity(
        name=f"entity_{number}", join_keys=[f"key_{number}"], value_type=ValueType.STRING, **_told("entity", number)
    )


def _source(number: int) -> FileSource:
    return FileSource(
        name=f"source_{number}", path=f"data/source_{number}.parquet", timestamp_field="at", **_told("source", number)
    )


def _fields(number: int, features: int, entity: Entity, dtype: Any) -> list[Field]:
    key = Field(name=entity.join_key, dtype=String)
    return [key, *(
        Field(name=f"view_{number}_feature_{at}", dtype=dtype, description=f"Measure {at} of view {number}")
        for at in range(features)
    )]  # fmt: skip


def _view(number: int, features: int, entity: Entity, source: FileSource) -> FeatureView:
    return FeatureView(
        name=f"view_{number}", entities=[entity], schema=_fields(number, features, entity, Float64), source=source,
        ttl=timedelta(days=1), **_told("view", number),
    )  # fmt: skip


def _windowed_view(number: int, features: int, entity: Entity, source: FileSource) -> StreamFeatureView:
    push = PushSource(name=f"push_{number}", batch_source=source, **_told("push", number))
    aggregations = [
        Aggregation(
            f"column_{at}", "count", timedelta(hours=at + 1), timedelta(minutes=5), f"view_{number}_feature_{at}"
        )
        for at in range(features)
    ]
    return StreamFeatureView(
        name=f"view_{number}", entities=[entity], schema=_fields(number, features, entity, Int64), source=push,
        timestamp_field="at", aggregations=aggregations, **_told("view", number),
    )  # fmt: skip


def _service(number: int, views: list[Any]) -> FeatureService:
    return FeatureService(name=f"service_{number}", features=views, **_told("service", number))
