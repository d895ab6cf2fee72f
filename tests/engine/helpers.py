"""What the tests of the engine do again and again."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import FeatureStore as StockFeatureStore

from store.feature_store import FeatureStore
from tests.stores import NOW, user_rows

DAY = timedelta(days=1)


def orders(store: StockFeatureStore, users: list[int], feature: str = "users:orders") -> list[Any]:
    answer = store.get_online_features([feature], {"user_id": users}).to_dict()
    return list(answer[feature.partition(":")[2]])


def same_repo(store: FeatureStore) -> FeatureStore:
    """Returns another store over the same repo, as another process has it."""
    return FeatureStore(repo_path=str(store.repo_path), config=store.config)


def write_users(repo: Path, rows: list[tuple[int, datetime, int]], created: datetime = NOW) -> None:
    """Writes the users' file anew: rows of (user, event time, orders)."""
    frame = user_rows(len(rows), created)
    frame["user_id"] = [user for user, _, _ in rows]
    frame["event_timestamp"] = [at for _, at, _ in rows]
    frame["orders"] = pd.array([count for _, _, count in rows], dtype="Int64")
    frame.to_parquet(repo / "data" / "users.parquet")
