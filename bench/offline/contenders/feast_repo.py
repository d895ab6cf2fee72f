"""The benchmark's feature views behind a stock `feast.FeatureStore`, for every contender that is a Feast plug-in."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Float64, Int64
from feast.value_type import ValueType

from bench.offline.contenders import Answer
from bench.offline.shapes import CREATED, EVENT, KEY, TTL_DAYS, feature_names, view_name
from bench.offline.task import Task


@dataclass
class FeastContender:
    """A retrieval through Feast's public interface, whichever offline store is behind it."""

    task: Task
    store: FeatureStore
    entity_df: pd.DataFrame | str
    keeps_order: bool
    versions: dict[str, str]

    def run(self) -> Answer:
        """Returns what `get_historical_features` answers."""
        options: dict[str, Any] = {"filter_by_created_timestamp": True} if self.task.is_cut_by_created else {}
        job = self.store.get_historical_features(
            entity_df=self.entity_df,
            features=[f"{view_name(view)}:{name}" for view in self._views for name in feature_names(view)],
            **options,
        )
        if self.task.output is None:
            return job.to_arrow()
        job.persist(SavedDatasetFileStorage(path=self.task.output), allow_overwrite=True)
        return Path(self.task.output)

    @property
    def _views(self) -> range:
        return range(len(self.task.history))


def feast_contender(
    task: Task, offline_store: dict[str, Any], versions: dict[str, str], *, keeps_order: bool
) -> FeastContender:
    """Returns a contender over a registry of its own in the task's folder, with the entity rows in memory."""
    folder = task.folder
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry={"path": str(folder / "registry.db")},
            offline_store=offline_store,
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    user = Entity(name="user", join_keys=[KEY], value_type=ValueType.INT64)
    store.apply([user, *(_view(user, view, path) for view, path in enumerate(task.history))])
    entities = task.entities if task.is_entity_path else pq.read_table(task.entities).to_pandas()
    return FeastContender(task, store, entities, keeps_order, versions)


def _view(user: Entity, view: int, path: str) -> FeatureView:
    source = FileSource(
        name=f"{view_name(view)}_source", path=path, timestamp_field=EVENT, created_timestamp_column=CREATED
    )
    features = [Field(name=name, dtype=Float64) for name in feature_names(view)]
    return FeatureView(
        name=view_name(view),
        entities=[user],
        ttl=timedelta(days=TTL_DAYS),
        schema=[Field(name=KEY, dtype=Int64), *features],
        source=source,
    )
