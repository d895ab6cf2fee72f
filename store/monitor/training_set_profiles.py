"""Profiles of training sets: all rows of a saved dataset of Feast's, by its name, or of a Parquet file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.types as pat
from feast import FeatureStore
from feast.data_format import DeltaFormat
from feast.errors import SavedDatasetNotFound
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage

from store.clock import Clock
from store.errors import DefinitionError, InputError, UnknownObject
from store.kernel.profiles import Profile
from store.monitor.feature_types import Declared, type_name_of_arrow
from store.monitor.source_profiles import SourceRows
from store.monitor.subjects import Span
from store.offline.column_sums import kind_of
from store.offline.entity_rows import DEFAULT_TIMESTAMP_COLUMN
from store.offline.sources import Source, open_source, resolve_path

ANY_TIME = Span(0, 1)
"""The span of a training set without rows."""


@dataclass(frozen=True)
class TrainingSetRows:
    """The rows of a training set, which is profiled whole, over the time of its event timestamps."""

    rows: SourceRows

    def extent(self) -> Span | None:
        """Returns the time that its rows lie in, None if it has none."""
        return self.rows.extent()

    def changed(self, known: Mapping[Span, int]) -> list[Span]:
        """Returns its span if a file is younger than the last profile, or if its rows lie in other time than that."""
        extent = self.rows.extent() or ANY_TIME
        newest = max(known.values(), default=None)
        if newest is None or extent not in known:
            return [extent]
        return [extent] if self.rows.changed({extent: known[extent]}) else []

    def profiles(self, spans: Sequence[Span]) -> list[Profile]:
        """Returns the profile of all rows for its span."""
        return self.rows.profiles(spans)


def training_set_rows(store: FeatureStore, clock: Clock, name: str) -> TrainingSetRows:
    """Returns what is profiled of a training set.

    Args:
        name: of a saved dataset, or the path of a Parquet file or of a folder of them, from the repo folder.

    Raises:
        UnknownObject: there is neither.
        InputError: it has no column of event timestamps.
        SourceError: its files cannot be read.
    """
    path, file_format, keys = _location(store, name)
    owner = f"training set {name!r}"
    probe = FileSource(name=name, path=path, timestamp_field=DEFAULT_TIMESTAMP_COLUMN, file_format=file_format)
    found = open_source(store.config, probe)
    time = _time_column(owner, found)
    declared = [
        Declared(field.name, type_name_of_arrow(field.type), kind_of(field.type))
        for field in found.schema
        if field.name != time and field.name not in keys
    ]
    file = FileSource(name=name, path=path, timestamp_field=time, file_format=file_format)
    return TrainingSetRows(SourceRows(store.config, clock, owner, file, found, declared))


def _location(store: FeatureStore, name: str) -> tuple[str, Any, frozenset[str]]:
    """Returns where a training set is, its format, and the names of its join keys."""
    try:
        saved = store.registry.get_saved_dataset(name, store.project, allow_cache=True)
    except SavedDatasetNotFound:
        if not Path(resolve_path(store.config, name)).exists():
            known = sorted(each.name for each in store.registry.list_saved_datasets(store.project, allow_cache=True))
            raise UnknownObject(
                f"no training set {name!r}: no saved dataset of project {store.project!r} has this name (there are "
                f"{known}), and no file of the feature repo has this path; correct it"
            ) from None
        is_delta = (Path(resolve_path(store.config, name)) / "_delta_log").is_dir()
        return name, DeltaFormat() if is_delta else None, frozenset(_join_keys(store))
    storage = saved.storage
    if not isinstance(storage, SavedDatasetFileStorage):
        raise DefinitionError(
            f"training set {name!r} is saved in a {type(storage).__name__}, expected a SavedDatasetFileStorage; save "
            "it as files"
        )
    return storage.file_options.uri, storage.file_options.file_format, frozenset(saved.join_keys)


def _join_keys(store: FeatureStore) -> list[str]:
    return [entity.join_key for entity in store.list_entities(allow_cache=True)]


def _time_column(owner: str, found: Source) -> str:
    times = [field.name for field in found.schema if pat.is_timestamp(field.type)]
    if times:
        return DEFAULT_TIMESTAMP_COLUMN if DEFAULT_TIMESTAMP_COLUMN in times else str(times[0])
    raise InputError(
        f"{owner} has no column of timestamps (it has {found.schema.names}); add the event timestamps of its rows as "
        f"{DEFAULT_TIMESTAMP_COLUMN!r}"
    )
