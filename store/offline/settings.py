"""The user's DuckDB settings, read from `offline_store:` of feature_store.yaml."""

from pathlib import Path

from feast.repo_config import RepoConfig

from store.offline.connection import ConnectionSettings


def settings_of(config: RepoConfig) -> ConnectionSettings:
    """Returns the settings of the offline store; a relative spill folder is taken from the repo folder."""
    declared = config.offline_store
    folder = getattr(declared, "spill_folder", None)
    return ConnectionSettings(
        threads=getattr(declared, "threads", None),
        memory_limit=getattr(declared, "memory_limit", None),
        spill_folder=(Path(config.repo_path or ".") / folder).absolute() if folder else None,
    )
