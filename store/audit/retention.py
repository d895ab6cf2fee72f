"""Log files past their retention, deleted beside readers and writers."""

from pathlib import Path

from feast.repo_config import RepoConfig

from store.files import sync_folder
from store.offline import DuckDBOfflineStoreConfig
from store.offline.landed_files import ReadGuard, is_unread, list_landed, remove_abandoned

_DAY_NS = 86_400 * 1_000_000_000


def remove_outdated(folder: Path, now_us: int, days: int) -> int:
    """Deletes the files that Larder wrote into a log folder more than some days ago; returns how many.

    Files that an audit reads stay until the next time, as do files that Larder did not name.

    Raises:
        OSError: the folder cannot be read or written.
    """
    if not folder.is_dir():
        return 0
    remove_abandoned(folder)
    limit_ns = now_us * 1_000 - days * _DAY_NS
    guard = ReadGuard(folder)
    outdated = [file for file in list_landed(folder).files if _arrival_ns(file.last) < limit_ns]
    guard.drop()
    if not outdated or not is_unread(folder):
        return 0
    for file in outdated:
        (folder / file.name).unlink(missing_ok=True)
    sync_folder(folder)
    return len(outdated)


def _arrival_ns(stem: str | None) -> int:
    """Returns when a file came, from its name; a file of another name never goes."""
    return 2**63 if stem is None else int(stem.partition("-")[0])


def retention_days(config: RepoConfig) -> int:
    """Returns for how many days served vectors are kept; another offline store than ours has no say."""
    offline = config.offline_store
    settings = offline if isinstance(offline, DuckDBOfflineStoreConfig) else DuckDBOfflineStoreConfig()
    return settings.served_log_days
