"""A small feature repo in a temp folder, over a real Redis, for tests that need a whole store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RepoConfig,
    RequestSource,
    ValueType,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, Int64, String

from store.feature_store import FeatureStore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROJECT = "shop"


def config(repo: Path, redis_url: str, project: str = PROJECT, **online: Any) -> RepoConfig:
    """Returns the settings of a repo whose three plug-ins are ours."""
    return RepoConfig(
        project=project,
        provider="local",
        registry={
            "path": "data/registry.db",
            "registry_store_type": "store.registry.AtomicFileRegistryStore",
            "serve_features_while_materializing": True,
        },
        offline_store={"type": "store.offline.DuckDBOfflineStore"},
        online_store={"type": "store.online.RedisOnlineStore", "connection_string": redis_url, **online},
        batch_engine={"type": "store.engine.DuckDBComputeEngine"},
        repo_path=repo,
        entity_key_serialization_version=3,
    )


def yaml_of(redis_url: str, project: str = PROJECT) -> str:
    """Returns the same settings as the text of a feature_store.yaml."""
    return f"""project: {project}
provider: local
registry:
  path: data/registry.db
  registry_store_type: store.registry.AtomicFileRegistryStore
  serve_features_while_materializing: true
offline_store:
  type: store.offline.DuckDBOfflineStore
online_store:
  type: store.online.RedisOnlineStore
  connection_string: {redis_url}
batch_engine:
  type: store.engine.DuckDBComputeEngine
entity_key_serialization_version: 3
"""


def user_rows(count: int = 5, at: datetime = NOW - timedelta(hours=1)) -> pd.DataFrame:
    """Returns one row per user, newest at `at`: user 2 has a null name, and nobody has a key of 0."""
    users = list(range(1, count + 1))
    return pd.DataFrame(
        {
            "user_id": users,
            "event_timestamp": [at - timedelta(minutes=user) for user in users],
            "created": [at] * count,
            "spent": [user * 1.5 for user in users],
            "orders": pd.array([user * 10 for user in users], dtype="Int64"),
            "name": [None if user == 2 else f"user {user}" for user in users],
            "last": [[float(user)] * user for user in users],
        }
    )


USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
AMOUNT = RequestSource(name="basket", schema=[Field(name="amount", dtype=Float64)])


def user_source() -> FileSource:
    """Returns the batch source of users, a Parquet file in the repo's data folder."""
    return FileSource(
        name="users_file",
        path="data/users.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


def user_view(ttl: timedelta = timedelta(days=1), **changes: Any) -> FeatureView:
    """Returns the view of users; `changes` replace its arguments."""
    arguments: dict[str, Any] = {
        "name": "users",
        "entities": [USER],
        "ttl": ttl,
        "schema": [
            Field(name="user_id", dtype=Int64),
            Field(name="spent", dtype=Float64),
            Field(name="orders", dtype=Int64),
            Field(name="name", dtype=String),
            Field(name="last", dtype=Array(Float64)),
        ],
        "source": PushSource(name="users_push", batch_source=user_source()),
    }
    return FeatureView(**(arguments | changes))


def objects(view: FeatureView | None = None) -> list[Any]:
    """Returns what to apply: an entity, a view, an on-demand view over it, and a service of both."""
    view = view or user_view()

    @on_demand_feature_view(sources=[view, AMOUNT], schema=[Field(name="share", dtype=Float64)], mode="python")
    def basket_share(inputs: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(inputs["amount"], inputs["spent"], strict=True)
        return {"share": [None if not spent else amount / spent for amount, spent in pairs]}

    service = FeatureService(name="checkout", features=[view, basket_share])
    return [USER, view, basket_share, service]


def make_store(repo: Path, redis_url: str, rows: pd.DataFrame | None = None, **online: Any) -> FeatureStore:
    """Returns a store over a repo with the users' Parquet file written and the definitions applied."""
    (repo / "data").mkdir(parents=True, exist_ok=True)
    (user_rows() if rows is None else rows).to_parquet(repo / "data" / "users.parquet")
    store = FeatureStore(repo_path=str(repo), config=config(repo, redis_url, **online))
    store.apply(objects())
    return store
