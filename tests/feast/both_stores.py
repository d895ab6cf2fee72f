"""One feature repo behind two offline stores: Feast's own DuckDB store, and ours.

Both read the same registry, which ours wrote, so whatever differs between two answers is the stores' doing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore, RepoConfig

OURS = "store.offline.DuckDBOfflineStore"
FEASTS = "duckdb"
IBIS_WARNING = "ignore:fetch_arrow_table:DeprecationWarning"
"""Feast's store stands on ibis, which calls DuckDB 2 by a name that is on its way out."""


@dataclass(frozen=True)
class BothStores:
    """A repo folder, and Feast's FeatureStore over it with either offline store."""

    repo: Path
    ours: FeatureStore
    feasts: FeatureStore

    def answers(self, rows: pd.DataFrame, features: Any, **options: Any) -> tuple[pa.Table, pa.Table]:
        """Returns what ours and what Feast's answers to the same question."""
        return self.ask(self.ours, rows, features, **options), self.ask(self.feasts, rows, features, **options)

    @staticmethod
    def ask(store: FeatureStore, rows: pd.DataFrame, features: Any, **options: Any) -> pa.Table:
        """Returns one store's answer; the caller's frame is not given away, since Feast's store may write into it."""
        return store.get_historical_features(entity_df=rows.copy(), features=features, **options).to_arrow()


def both_stores(repo: Path, objects: Sequence[Any]) -> BothStores:
    """Returns both stores over a repo with these objects applied."""
    repo.mkdir(parents=True, exist_ok=True)
    ours = FeatureStore(config=_config(repo, OURS))
    ours.apply(list(objects), partial=True)
    return BothStores(repo, ours, FeatureStore(config=_config(repo, FEASTS)))


def write_parquet(path: Path, columns: dict[str, Any]) -> str:
    """Writes columns as a Parquet file and returns its absolute path: Feast's store resolves no other kind alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def _config(repo: Path, offline_store: str) -> RepoConfig:
    return RepoConfig(
        project="judged",
        provider="local",
        registry={"path": str(repo / "registry.db"), "cache_ttl_seconds": 0},
        offline_store={"type": offline_store},
        online_store={"type": "sqlite", "path": str(repo / "online.db")},
        entity_key_serialization_version=3,
        repo_path=repo,
    )
