"""Feast's own FeatureStore over our offline store, with a registry in a folder of the test's own."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Int64
from feast.value_type import ValueType


def config_for(repo: Path, **offline: Any) -> RepoConfig:
    """Returns a configuration with our offline store and Feast's own registry and online store."""
    return RepoConfig(
        project="tests",
        provider="local",
        registry={"path": str(repo / "registry.db"), "cache_ttl_seconds": 0},
        offline_store={"type": "store.offline.DuckDBOfflineStore", **offline},
        online_store={"type": "sqlite", "path": str(repo / "online.db")},
        entity_key_serialization_version=3,
        repo_path=repo,
    )


def store_with(repo: Path, objects: Sequence[Any], **offline: Any) -> FeatureStore:
    """Returns a feature store with these objects applied."""
    store = FeatureStore(config=config_for(repo, **offline))
    store.apply(list(objects), partial=True)
    return store


DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)


def driver_view(
    path: str = "data/stats.parquet",
    *,
    name: str = "driver_stats",
    features: Mapping[str, Any] | None = None,
    ttl: timedelta | None = None,
    created: str = "",
    **source: Any,
) -> FeatureView:
    """Returns a view of one entity over a file source."""
    return FeatureView(
        name=name,
        entities=[DRIVER],
        ttl=ttl,
        schema=[
            Field(name="driver_id", dtype=Int64),
            *(Field(name=feature, dtype=dtype) for feature, dtype in (features or {"trips": Int64}).items()),
        ],
        source=FileSource(
            name=f"{name}_source",
            path=path,
            timestamp_field="event_timestamp",
            created_timestamp_column=created,
            **source,
        ),
    )


def write(repo: Path, columns: Mapping[str, Any], path: str = "data/stats.parquet", **options: Any) -> Path:
    """Writes columns as a Parquet file of the repo, with options of Arrow's writer, and returns its path."""
    target = repo / path
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), target, **options)
    return target


def instants(*micros: int | None, unit: str = "us", zone: str | None = "UTC") -> pa.Array:
    """Returns microseconds since the epoch as a timestamp column."""
    column = pa.array(micros, pa.int64()).cast(pa.timestamp("us", zone))
    return column.cast(pa.timestamp(unit, zone))
