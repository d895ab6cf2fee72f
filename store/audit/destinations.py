"""Where the log of a feature service lies: a folder of the repo's own, which no source reads."""

import fnmatch
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.repo_config import RepoConfig

from store.definitions_from_feast import batch_source_of
from store.errors import DefinitionError
from store.offline.connection import is_pattern
from store.offline.sources import landed_folder, resolve_path


def log_folder(config: RepoConfig, service: str, destination: Any, views: Iterable[Any]) -> Path:
    """Returns the folder into which the vectors of a service are logged.

    Args:
        destination: what its `logging_config` says.
        views: all feature views, whose sources must not read the log.

    Raises:
        DefinitionError: it is no folder of files on this machine, or one that a source reads.
    """
    who = f"feature service {service!r} cannot be logged: its logging destination"
    if not isinstance(destination, FileLoggingDestination):
        raise DefinitionError(f"{who} is a {type(destination).__name__}; declare a FileLoggingDestination")
    try:
        folder = Path(resolve_path(config, destination.path))
    except DefinitionError as error:
        raise DefinitionError(f"{who} {destination.path!r} is on another machine; name a folder of this one") from error
    if not destination.path or is_pattern(destination.path):
        raise DefinitionError(f"{who} {destination.path!r} is no folder; name one, such as data/served/{service}")
    if folder.exists() and not folder.is_dir():
        raise DefinitionError(f"{who} {destination.path!r} is a file; name a folder")
    for view in views:
        source = batch_source_of(view)
        if isinstance(source, FileSource) and _reads(config, source, folder):
            raise DefinitionError(
                f"{who} {destination.path!r} lies where source {source.name!r} of feature view {view.name!r} reads its "
                "rows; name a folder of its own"
            )
    return folder


def _reads(config: RepoConfig, source: FileSource, folder: Path) -> bool:
    """Whether files of a folder would be rows of a source."""
    try:
        path = resolve_path(config, source.path)
    except DefinitionError:
        return False
    landed = landed_folder(path)
    if folder.is_relative_to(path) or folder.is_relative_to(landed):
        return True
    return is_pattern(path) and fnmatch.fnmatch(str(folder / "log.parquet"), path)
