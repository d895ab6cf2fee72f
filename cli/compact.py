"""`larder compact`: which landed folders there are, and what was done to each, as text."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from feast import FeatureStore
from feast.infra.offline_stores.file_source import FileSource

from store.definitions_from_feast import batch_source_of
from store.errors import LarderError, UnknownObject
from store.offline.accepted_events import accepted_folders
from store.offline.compaction import CompactionReport, compact, planned_compaction
from store.offline.sources import landed_folder, resolve_path
from store.online import repo_path_of
from store.snapshot import RegistrySnapshots, load_config


@dataclass(frozen=True, slots=True)
class _Target:
    """A landed folder, and the names of the views and sources that lead to it."""

    source: str
    folder: Path
    names: frozenset[str]


def run(repo: Path, names: Sequence[str], *, is_dry_run: bool) -> int:
    """Compacts the landed files of the named views and sources, of all without a name; returns the exit status.

    A folder that cannot be compacted is told on stderr, the others are compacted all the same, and the status is 1.

    Raises:
        UnknownObject: a name that is no feature view and no source; nothing was done.
    """
    config = load_config(repo)
    snapshots = RegistrySnapshots(config, repo)
    snapshots.refresh()
    targets = _targets(snapshots.current().store)
    known = frozenset().union(*(target.names for target in targets))
    unknown = sorted(set(names) - known)
    if unknown:
        raise UnknownObject(f"no feature view or file source is called {unknown[0]!r}; there are {sorted(known)}")
    status = 0
    for target in targets:
        if names and not target.names.intersection(names):
            continue
        try:
            report = planned_compaction(target.folder) if is_dry_run else compact(target.folder)
        except LarderError as error:
            print(f"larder: {target.source}: {error}", file=sys.stderr)
            status = 1
        else:
            print(f"{target.source}: {_told(report, is_dry_run=is_dry_run)}")
    return status


def _targets(store: FeatureStore) -> list[_Target]:
    """Returns the landed folder of each file source, by the names of the sources, then those of accepted events."""
    named = [(view.name, batch_source_of(view)) for view in store.list_all_feature_views()]
    # Behind a push source stands the file source into which it lands.
    named += [(source.name, getattr(source, "batch_source", None) or source) for source in store.list_data_sources()]
    names: dict[Path, set[str]] = {}
    sources: dict[Path, str] = {}
    for name, source in named:
        if isinstance(source, FileSource):
            folder = landed_folder(resolve_path(store.config, source.path))
            names.setdefault(folder, set()).update((name, source.name))
            sources.setdefault(folder, source.name)
    targets = [_Target(sources[folder], folder, frozenset(found)) for folder, found in names.items()]
    # Events that are kept for audits come in as many files as rows that land.
    for folder in accepted_folders(repo_path_of(store.config)):
        view = unquote(folder.parent.name)
        targets.append(_Target(f"accepted events of {view}", folder, frozenset({view})))
    return sorted(targets, key=lambda target: target.source)


def _told(report: CompactionReport, *, is_dry_run: bool) -> str:
    parts = sum(len(merge.parts) for merge in report.merges)
    rows = sum(merge.rows for merge in report.merges)
    megabytes = sum(merge.stored_bytes for merge in report.merges) / 1e6
    said = ["nothing to merge"]
    if parts:
        verb = "would merge" if is_dry_run else "merged"
        said = [f"{verb} {parts} files ({rows} rows, {megabytes:.1f} MB) into {len(report.merges)}"]
    if report.removed:
        said.append(f"removed {report.removed} replaced files")
    if report.still_read:
        said.append(f"left {report.still_read} replaced files to their readers, for the next run to remove")
    if report.abandoned:
        said.append(f"removed {report.abandoned} unfinished files of writers that were killed")
    return "; ".join(said)
