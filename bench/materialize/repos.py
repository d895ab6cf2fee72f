"""The feature repos of the benchmark: the same views over the same files, over Larder's stores and over Feast's."""

import shutil
from pathlib import Path

from bench import feature_repos
from bench.offline.shapes import CREATED, EVENT, FEATURES, KEY, VIEWS, feature_names, view_name

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
    feature_repos.make_repo(folder, whose, address, definitions(sources))
    shutil.copy(folder / "data/registry.db", folder / _BEFORE)
    return folder


def forget_runs(repo: Path) -> None:
    """Makes a repo's registry what it was before anything was materialized."""
    shutil.copy(repo / _BEFORE, repo / "data/registry.db")
