"""Profiles of a push source: the raw rows that were pushed, as they landed and, online only, as they were kept."""

from dataclasses import replace
from typing import Any

from feast import FeatureStore
from feast.infra.offline_stores.file_source import FileSource

from store.clock import Clock
from store.definitions_from_feast import batch_source_of, join_key_columns
from store.monitor.feature_types import Declared, type_name_of_arrow
from store.monitor.source_profiles import SourceRows
from store.offline.column_sums import kind_of
from store.offline.sources import LARDER_ID, file_source, open_source


def push_rows(store: FeatureStore, clock: Clock, push_source: Any) -> SourceRows:
    """Returns what is profiled of a push source: the rows that landed beside its batch source.

    Raises:
        DefinitionError: its batch source is no file source.
        SourceError: its files cannot be read.
    """
    owner = f"push source {push_source.name!r}"
    file = file_source(push_source.batch_source, owner)
    found = open_source(store.config, file)
    landed = tuple(each for each in found.files if each.is_landed)
    schema = {field.name: field.type for each in landed or found.files for field in each.schema}
    left_out = _keys_and_times(store, file) | {LARDER_ID}
    declared = [
        Declared(name, type_name_of_arrow(kind), kind_of(kind)) for name, kind in schema.items() if name not in left_out
    ]
    # Columns are told by their names in the file: these are the rows as they were pushed.
    in_file = {in_view: name for name, in_view in file.field_mapping.items()}
    times = [
        name if name in schema else in_file.get(name, name)
        for name in (file.timestamp_field, file.created_timestamp_column)
    ]
    unmapped = FileSource(
        name=file.name,
        path=file.path,
        timestamp_field=times[0],
        created_timestamp_column=times[1],
        file_format=file.file_format,
    )
    return SourceRows(store.config, clock, owner, unmapped, replace(found, files=landed), declared)


def _keys_and_times(store: FeatureStore, file: FileSource) -> set[str]:
    in_file = {in_view: name for name, in_view in file.field_mapping.items()}
    names = {file.timestamp_field, file.created_timestamp_column}
    for view in store.list_all_feature_views(allow_cache=True):
        source = batch_source_of(view)
        if isinstance(source, FileSource) and source.path == file.path:
            names |= {key.name for key in join_key_columns(view)}
    return names | {in_file[name] for name in names if name in in_file}
