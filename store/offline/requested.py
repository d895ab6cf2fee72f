"""What a retrieval asks for, checked against files and entity rows, with views that read the same history together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from feast.feature_view import FeatureView
from feast.repo_config import RepoConfig
from feast.types import from_feast_to_pyarrow_type

from store.definitions_from_feast import (
    batch_source_of,
    join_key_columns,
    refuse_unsupported,
    ttl_us,
    view_definition,
)
from store.errors import EntityRowsError, UnknownObject
from store.kernel.windows import WindowFeature, input_columns
from store.offline.entity_rows import EntityRows
from store.offline.join_keys import check_join_key
from store.offline.planned import (
    CheckedView,
    JoinKey,
    Planned,
    PlannedHistory,
    PlannedWindows,
    RequestedView,
    ViewPart,
    WindowPart,
    owner_of,
)
from store.offline.row_transformations import transformation_of
from store.offline.searches import History
from store.offline.source_columns import NeededColumns, needed_columns, scan_of, source_types
from store.offline.sources import Source, file_source, open_source
from store.offline.transformed_files import transformed
from store.offline.window_columns import check_window_columns, columns_of
from store.offline.window_history import WindowHistory
from store.windows_from_feast import is_windowed


def requested_view(view: FeatureView, references: Sequence[str], has_full_names: bool) -> RequestedView:
    """Returns what is asked of a feature view by references `view:feature`, in their order.

    Raises:
        UnknownObject: a feature that the view does not have.
    """
    prefix = f"{view.projection.name_to_use()}:"
    features = tuple(dict.fromkeys(ref.removeprefix(prefix) for ref in references if ref.startswith(prefix)))
    types = {field.name: field.dtype for field in view.features}
    unknown = [name for name in features if name not in types]
    if unknown:
        raise UnknownObject(f"feature view {view.name!r} has no feature {unknown[0]!r}; it has {sorted(types)}")
    base = view.projection.name_alias or view.name
    columns = tuple(f"{base}__{name}" if has_full_names else name for name in features)
    return RequestedView(view, features, columns, tuple(_arrow_type(types[name]) for name in features))


def _arrow_type(declared: Any) -> pa.DataType | None:
    try:
        return from_feast_to_pyarrow_type(declared)
    except ValueError:
        # A type that Feast cannot say in Arrow is answered as the file has it.
        return None


def plan_histories(
    config: RepoConfig,
    views: Sequence[RequestedView],
    rows: EntityRows,
    added: Mapping[str, str],
    *,
    is_cut_by_created: bool,
) -> tuple[Planned, ...]:
    """Returns the histories and windows that a retrieval searches, after all checks that need no scan.

    Args:
        added: the columns that on-demand views will add to the answer, with the reference of each.

    Raises:
        InputError: the entity rows do not fit the views.
        DefinitionError: a view that this version does not serve.
        SourceError: a source that is not there, or lacks a column.
    """
    _refuse_clashes(rows, views, added)
    opened: dict[str, Source] = {}
    keys: dict[tuple[Any, ...], JoinKey] = {}
    shared: dict[tuple[Any, ...], list[tuple[int, CheckedView]]] = {}
    join_keys: dict[tuple[Any, ...], tuple[JoinKey, ...]] = {}
    for number, requested in enumerate(views):
        checked = _checked(config, requested, rows, opened, keys)
        needed = checked.needed
        same = (id(checked.source), needed.keys, needed.event, needed.created, checked.columns, bool(checked.windows))
        shared.setdefault(same, []).append((number, checked))
        types = [source_types(checked.source, name) for name in needed.keys]
        join_keys[same] = tuple(keys[pair] for pair in zip(checked.columns, types, strict=True))
    return tuple(
        _windows(found, join_keys[same], is_cut_by_created)
        if found[0][1].windows
        else _history(number, found, join_keys[same], is_cut_by_created)
        for number, (same, found) in enumerate(shared.items())
    )


def _checked(
    config: RepoConfig,
    requested: RequestedView,
    rows: EntityRows,
    opened: dict[str, Source],
    keys: dict[tuple[Any, ...], JoinKey],
) -> CheckedView:
    """Returns a view that was checked, having noted the sources and join keys that it needs."""
    view = requested.view
    refuse_unsupported(view)
    owner = f"feature view {view.name!r}"
    declared = file_source(batch_source_of(view), owner)
    # A source is opened once, so that all views of a retrieval see the same rows of it.
    identity = repr((declared.path, declared.file_format, declared.timestamp_field, declared.created_timestamp_column))
    if identity not in opened:
        opened[identity] = open_source(config, declared)
    source = opened[identity]
    transformation = transformation_of(view)
    if transformation is not None:
        # Of the rows that were opened, so that it sees no others than views without a transformation.
        identity = f"{identity} {view.name} {transformation.digest(source.schema)}"
        if identity not in opened:
            opened[identity] = transformed(config, declared, source, transformation)
        source = opened[identity]
    names = [column.name for column in join_key_columns(view)]
    windows = _asked_windows(config, requested, source) if is_windowed(view) else ()
    wanted = input_columns(windows) if windows else requested.features
    needed = needed_columns(owner, declared, source, names, wanted)
    scan_of(source, needed)
    stored = dict(zip(wanted, needed.features, strict=True))
    windows = tuple(replace(feature, column=stored[feature.column]) for feature in windows)
    columns = []
    for name, in_file in zip(names, needed.keys, strict=True):
        column = view.projection.join_key_map.get(name, name)
        label = f"join key {column!r}" if column == name else f"join key {name!r} (asked for as {column!r})"
        types = source_types(source, in_file)
        check_join_key(rows, column, types, f"{owner}: {label}")
        keys.setdefault((column, types), JoinKey(len(keys), column, types, f"{owner}: {label}"))
        columns.append(column)
    return CheckedView(requested, source, needed, tuple(columns), windows)


def _asked_windows(config: RepoConfig, requested: RequestedView, source: Source) -> tuple[WindowFeature, ...]:
    """Returns the windowed features that are asked of a view, in the order of the request, checked."""
    definition = view_definition(config.project, requested.view)
    known = {feature.name: feature for feature in definition.windows}
    unknown = [name for name in requested.features if name not in known]
    if unknown:
        raise UnknownObject(
            f"feature view {requested.view.name!r} has no feature {unknown[0]!r}; it has {sorted(known)}"
        )
    asked = tuple(known[name] for name in requested.features)
    check_window_columns(replace(definition, windows=asked), columns_of(source))
    return asked


def _history(
    number: int, found: Sequence[tuple[int, CheckedView]], keys: tuple[JoinKey, ...], is_cut: bool
) -> PlannedHistory:
    """Returns the history that some views share, with the features of all of them."""
    first = found[0][1]
    in_file = tuple(dict.fromkeys(name for _, checked in found for name in checked.needed.features))
    needed = first.needed
    scan = scan_of(first.source, NeededColumns(needed.owner, needed.keys, needed.event, needed.created, in_file))
    fetched = dict(zip(in_file, scan.feature_names, strict=True))
    parts = tuple(
        ViewPart(
            place,
            checked.requested,
            ttl_us(checked.requested.view),
            tuple(fetched[name] for name in checked.needed.features),
        )
        for place, checked in found
    )
    ttls = [part.ttl_us for part in parts]
    search = History(number, scan, max(ttls) if all(ttls) else 0, has_cutoff=is_cut and scan.has_created)
    return PlannedHistory(first.source, keys, search, parts)


def _windows(found: Sequence[tuple[int, CheckedView]], keys: tuple[JoinKey, ...], is_cut: bool) -> PlannedWindows:
    """Returns the windowed features of some views that read the same events, each feature once."""
    first = found[0][1]
    places: dict[WindowFeature, int] = {}
    features: list[WindowFeature] = []
    for feature in (feature for _, checked in found for feature in checked.windows):
        # The same aggregate of two views, or of one by two names, is found once.
        if places.setdefault(replace(feature, name=""), len(places)) == len(features):
            features.append(feature)
    parts = tuple(
        WindowPart(place, checked.requested, tuple(places[replace(feature, name="")] for feature in checked.windows))
        for place, checked in found
    )
    columns = input_columns(features)
    needed = first.needed
    scan = scan_of(first.source, NeededColumns(needed.owner, needed.keys, needed.event, needed.created, columns))
    search = WindowHistory(
        scan=scan,
        features=tuple(features),
        columns=columns,
        key_columns=first.columns,
        has_cutoff=is_cut and scan.has_created,
        owner=f"feature view {owner_of(parts)}",
    )
    return PlannedWindows(first.source, keys, search, parts)


def _refuse_clashes(rows: EntityRows, views: Sequence[RequestedView], added: Mapping[str, str]) -> None:
    taken = dict.fromkeys(rows.schema.names, "the entity rows")
    columns = [
        (f"{requested.view.projection.name_to_use()}:{feature}", column)
        for requested in views
        for feature, column in zip(requested.features, requested.columns, strict=True)
    ]
    for reference, column in [*columns, *((reference, column) for column, reference in added.items())]:
        if column in taken:
            raise EntityRowsError(
                f"feature {reference!r} would stand in the answer as {column!r}, which {taken[column]} already have; "
                "pass full_feature_names=True or rename the column"
            )
        taken[column] = f"the features of view {reference.partition(':')[0]!r}"
