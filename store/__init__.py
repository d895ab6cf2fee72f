"""Larder: a self-hosted feature store on Feast, DuckDB, Parquet and Redis.

`store.FeatureStore` is Feast's `FeatureStore` with the few methods that its class keeps from plug-ins.
It is imported on first use, because importing Feast takes seconds and most parts of this package do without.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.feature_store import FeatureStore

__all__ = ["FeatureStore"]


def __getattr__(name: str) -> Any:
    """Returns `FeatureStore`, importing Feast only when it is asked for."""
    if name == "FeatureStore":
        from store.feature_store import FeatureStore

        return FeatureStore
    raise AttributeError(f"module 'store' has no attribute {name!r}")
