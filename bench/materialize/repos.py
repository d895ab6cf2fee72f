"""The feature repos of the benchmark: the same views over the same files, over Larder's stores and over Feast's."""

import shutil
from pathlib import Path

from bench.offline.shapes import CREATED, EVENT, FEATURES, KEY, VIEWS, feature_names, view_name
from bench.online.repos import feast

PROJECTS = {"larder": "shop", "feast": "mall"}
_STORES = {
    "larder": """\
registry:
  path: data/registry.db
  registry_store_type: store.registry.AtomicFileRegistryStore
  serve_features_while_materializing: true
offline_store:
  type: store.offline.DuckDBOfflineStore
online_store:
  type: store.online.RedisOnlineStore
  connection_string: {address}
batch_engine:
  type: store.engine.DuckDBComputeEngine
""",
    "feast": """\
registry:
  path: data/registry.db
  serve_features_while_materializing: true
offline_store:
  type: duckdb
online_store:
  type: redis
  connection_string: {address}
""",
}
_BEFORE = "data/registry.before"


def references() -> list[str]:
    """Returns all features as Feast's references."""
    return [f"{view_name(view)}:{name}" for view in range(VIEWS) for name in feature_names(view)]


def definitions(sources: Path) -> str:
    """Returns the definitions, the same for both; without a ttl, as the rows are of a year that has passed."""
    return f"""\
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

user = Entity(name="user", join_keys=["{KEY}"], value_type=ValueType.INT64)
for number in range({VIEWS}):
    globals()[f"view_{{number}}"] = FeatureView(
        name=f"view_{{number}}",
        entities=[user],
        ttl=timedelta(0),
        schema=[Field(name="{KEY}", dtype=Int64)]
        + [Field(name=f"v{{number}}_f{{feature}}", dtype=Float64) for feature in range({FEATURES})],
        source=FileSource(
            name=f"source_{{number}}",
            path=f"{sources}/view_{{number}}.parquet",
            timestamp_field="{EVENT}",
            created_timestamp_column="{CREATED}",
        ),
    )
"""


def make_repo(folder: Path, whose: str, address: str, sources: Path) -> Path:
    """Makes a feature repo of Larder's or of Feast's and applies it."""
    (folder / "data").mkdir(parents=True)
    head = f"project: {PROJECTS[whose]}\nprovider: local\nentity_key_serialization_version: 3\n"
    (folder / "feature_store.yaml").write_text(head + _STORES[whose].format(address=address))
    (folder / "definitions.py").write_text(definitions(sources))
    feast(folder, "apply")
    shutil.copy(folder / "data/registry.db", folder / _BEFORE)
    return folder


def forget_runs(repo: Path) -> None:
    """Makes a repo's registry what it was before anything was materialized."""
    shutil.copy(repo / _BEFORE, repo / "data/registry.db")
