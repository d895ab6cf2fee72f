"""Profiles of a push source: the raw rows that were pushed, as they landed and, online only, as they were kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Final

from feast import FeatureStore
from feast.infra.offline_stores.file_source import FileSource

from store.clock import Clock
from store.definitions_from_feast import batch_source_of, join_key_columns
from store.kernel.profiles import Profile
from store.monitor.feature_types import Declared, type_name_of_arrow
from store.monitor.source_profiles import SourceRows
from store.monitor.subjects import Span
from store.offline.accepted_events import EVENT, IS_LANDED, accepted_folder, open_accepted
from store.offline.column_sums import kind_of
from store.offline.sources import LARDER_ID, file_source, open_source
from store.online import repo_path_of
from store.windows_from_feast import is_windowed

_VALUE: Final = "__value_"
"""What the names of columns begin with in the files of events that are kept for audits."""


@dataclass(frozen=True)
class PushedRows:
    """All rows that were pushed: those that landed, and of those that went online only what is kept for audits."""

    landed: SourceRows
    kept: Sequence[SourceRows]

    def extent(self) -> Span | None:
        """Returns the time that its rows lie in, None if it has none."""
        found = [extent for rows in (self.landed, *self.kept) if (extent := rows.extent()) is not None]
        return Span(min(each.start_us for each in found), max(each.end_us for each in found)) if found else None

    def changed(self, known: Mapping[Span, int]) -> list[Span]:
        """Returns those of some spans that have rows in a younger file."""
        return sorted({span for rows in (self.landed, *self.kept) for span in rows.changed(known)})

    def profiles(self, spans: Sequence[Span]) -> list[Profile]:
        """Returns a profile for each of some spans, which are in order of time and do not overlap.

        Raises:
            SourceError, OfflineStoreError, OutOfSpace: files cannot be read.
        """
        landed = self.landed.profiles(spans)
        kept = [rows.profiles(spans) for rows in self.kept]
        return [_together(landed[number], [of_view[number] for of_view in kept]) for number in range(len(spans))]


def _together(landed: Profile, kept: Sequence[Profile]) -> Profile:
    """Returns the profile of all rows; each of the others has the same online events, of which it has some columns."""
    online = max((profile.rows for profile in kept), default=0)
    if not online:
        return landed
    merged = reduce(Profile.merge, kept, landed)
    note = (
        f"{online} events were pushed online only; of these only the columns are known that windows of logged views "
        "aggregate"
    )
    return replace(merged, rows=landed.rows + online, notes=(*merged.notes, note))


def push_rows(store: FeatureStore, clock: Clock, push_source: Any) -> PushedRows:
    """Returns what is profiled of a push source.

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
    rows = SourceRows(store.config, clock, owner, unmapped, replace(found, files=landed), declared)
    return PushedRows(rows, _kept(store, clock, push_source, owner))


def _kept(store: FeatureStore, clock: Clock, push_source: Any, owner: str) -> list[SourceRows]:
    """Returns the events that windowed views over a push source were given online only, each column once."""
    found, seen = [], set[str]()
    for view in sorted(store.list_all_feature_views(allow_cache=True), key=lambda each: str(each.name)):
        stream = getattr(view, "stream_source", None)
        if stream is None or stream.name != push_source.name or not is_windowed(view):
            continue
        columns: set[str] = set()
        for folder in sorted(accepted_folder(repo_path_of(store.config), view.name).glob("*/")):
            accepted = open_accepted(folder)
            if accepted is None:
                continue
            values = {each.removeprefix(_VALUE): each for each in accepted.schema.names if each.startswith(_VALUE)}
            new = [name for name in values if name not in seen]
            columns.update(new)
            kinds = {name: accepted.schema.field(values[name]).type for name in new}
            declared = [Declared(name, type_name_of_arrow(kind), kind_of(kind)) for name, kind in kinds.items()]
            mapping = {values[name]: name for name in new}
            file = FileSource(name=view.name, path=str(folder), timestamp_field=EVENT, field_mapping=mapping)
            if declared:
                found.append(SourceRows(store.config, clock, owner, file, accepted, declared, unless=IS_LANDED))
        seen |= columns
    return found


def _keys_and_times(store: FeatureStore, file: FileSource) -> set[str]:
    in_file = {in_view: name for name, in_view in file.field_mapping.items()}
    names = {file.timestamp_field, file.created_timestamp_column}
    for view in store.list_all_feature_views(allow_cache=True):
        source = batch_source_of(view)
        if isinstance(source, FileSource) and source.path == file.path:
            names |= {key.name for key in join_key_columns(view)}
    return names | {in_file[name] for name in names if name in in_file}
