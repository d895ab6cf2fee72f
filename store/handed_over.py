"""The store of one retrieval that runs in a process of its own, by the registry that a server has in its hands."""

import tempfile
from pathlib import Path
from typing import Any

from feast.repo_config import RegistryConfig, RepoConfig

from store.limits import HISTORICAL_CONCURRENT_MAX
from store.machine import available_bytes
from store.offline import DuckDBOfflineStoreConfig
from store.offline.settings import settings_of
from store.service import StoreService

_MEMORY_SHARE = 0.8 / HISTORICAL_CONCURRENT_MAX
"""Of the machine's memory: together they take what one takes that runs alone."""


def spill_base(config: RepoConfig) -> Path:
    """Returns the folder under which a repo's retrievals spill: its `spill_folder`, else the system's temporary one."""
    return settings_of(config).spill_folder or Path(tempfile.gettempdir())


def service_of_one_retrieval(
    repo_path: Path, config: RepoConfig, registry: Path | None, spill_folder: Path
) -> StoreService:
    """Returns a service that answers `retrieve` and nothing else, by a copy of the registry.

    Where the user has set no memory limit, each retrieval gets its share of what one alone would take.

    Args:
        config: the repo's settings; they are changed to those of this one retrieval.
        registry: a file that holds the registry, serialized; None for the one that the settings name.
        spill_folder: the folder into which alone the retrieval spills.

    Raises:
        ConfigError: as `StoreService.open`.
    """
    if registry is not None:
        if config.registry.registry_type != "file":
            # The copy is a file, wherever the registry itself is.
            is_versioned = config.registry.enable_online_feature_view_versioning
            settings: Any = config
            settings._registry = RegistryConfig(enable_online_feature_view_versioning=is_versioned)  # noqa: SLF001
        config.registry.path = str(registry)
        config.registry.registry_store_type = "store.registry.AtomicFileRegistryStore"
    offline = config.offline_store
    if isinstance(offline, DuckDBOfflineStoreConfig):
        offline.spill_folder = str(spill_folder)
        offline.memory_limit = offline.memory_limit or f"{int(_MEMORY_SHARE * available_bytes())}"
    return StoreService.open(repo_path, config)
