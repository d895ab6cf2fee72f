"""A push from its body to rows: checked whole, encoded per view for Redis, kept as a table for landing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config
from feast.repo_config import RepoConfig

from store.arrow_rows import EVENT_US, encode_batch, encode_columns, row_times, with_time_columns
from store.clock import from_us, said
from store.definitions_from_feast import (
    batch_source_of,
    column_of,
    join_key_columns,
    refuse_unsupported,
    view_definition,
)
from store.errors import InputError, PushedRowsError, UnequalLengths, shown
from store.feast_values import arrow_type, plain_from_arrow, plain_from_python
from store.kernel.codec import RowLayout
from store.kernel.values import FLOATS, element_type, is_opaque
from store.limits import PUSH_FUTURE_SECONDS_MAX
from store.offline import DuckDBOfflineStore
from store.offline.join_keys import check_declared_key
from store.offline.landing import StagedRows, stage_rows
from store.offline.row_transformations import transformation_of
from store.offline.sources import file_source, open_source
from store.online.rows import ViewWrite
from store.pushed import check_extents, checked_table
from store.requests import PushRequest
from store.stream.appending import LoggedPush
from store.stream.routes import check_inputs, route_of
from store.transformed_pushes import columns_to_give, transformed_push
from store.windows_from_feast import is_windowed

PUSH_TARGETS = frozenset({"online", "offline", "online_and_offline"})
_STAMP = pa.timestamp("us", tz="UTC")
_NO_CREATED = "__created"
"""Stands for the created time of a view whose source has none; no feature is called so."""


@dataclass(frozen=True, slots=True)
class Push:
    """A checked push: what goes into Redis per view, and what lands per batch source (one view each names it).

    Rows that feed windowed views go into the event log, and land from there.
    """

    row_count: int
    writes: tuple[ViewWrite, ...] = ()
    landings: tuple[tuple[Any, pa.Table], ...] = ()
    logged: LoggedPush | None = None


def checked_push(
    config: RepoConfig, request: PushRequest, views: Sequence[Any], now_us: int, *, is_logged: bool = False
) -> Push:
    """Returns a push whose every row fits the batch source of the views that it feeds.

    A created timestamp column that is not given is filled with `now_us`, the instant of arrival. With `is_logged` its
    rows go into the event log whatever they feed, and what lands lands from there.

    Raises:
        PushedRowsError: a column or row that does not fit, or a row from the future.
        TransformationError: a view's transformation fails for a row, or gives what does not fit.
        WrongType: a join key that cannot be compared with its declared type.
        SourceError: the batch source cannot be read.
    """
    what = f"push source {request.push_source_name!r}"
    for view in views:
        refuse_unsupported(view)
    source = file_source(batch_source_of(views[0]), f"feature view {views[0].name!r}")
    schema = open_source(config, source).schema
    in_file = {name_in_view: name for name, name_in_view in (source.field_mapping or {}).items()}
    transformations = {view.name: transformation_of(view) for view in views}
    # A plain view's function may compute its keys; what it makes of rows is checked when they have gone through it.
    keyed = [view for view in views if transformations[view.name] is None or is_windowed(view)]
    keys = [
        name
        for view in views
        for name in (in_file.get(key.name, key.name) for key in join_key_columns(view))
        if view in keyed or name in schema.names
    ]
    features = [
        name for view in views for name in columns_to_give(view, transformations[view.name], schema.names, in_file)
    ]
    # The columns may come by their names in the views too, which is how Feast's own class wants them.
    columns = {name if name in schema.names else in_file.get(name, name): v for name, v in request.columns.items()}
    for key in (column for view in keyed for column in join_key_columns(view)):
        name = in_file.get(key.name, key.name)
        check_declared_key(key, [schema.field(name).type] if name in schema.names else [], what)
    route = route_of(config, request.push_source_name, views)
    check_inputs(route, schema)
    row_count = len(next(iter(columns.values()), ()))
    created = source.created_timestamp_column
    if created and created in schema.names and created not in columns:
        columns[created] = [from_us(now_us)] * row_count
    not_null = list(dict.fromkeys([*keys, source.timestamp_field]))
    required = list(dict.fromkeys([*not_null, *features]))
    table = checked_table(what, columns, schema, required=required, not_null=not_null)
    if row_count == 0:
        return Push(0)
    in_views = _in_view_names(table, source)
    is_some_plain = any(transformation is None for transformation in transformations.values())
    rows = timed = _timed(what, table, source, now_us) if is_some_plain else table
    writes = []
    for view in views:
        transformation = transformations[view.name]
        if transformation is None:
            rows = timed
        else:
            # Also where they only land: rows by which the function fails would be in every training set's way.
            rows = transformed_push(what, transformation, in_views)
            _refuse_future(what, rows, now_us)
        if "online" in request.to and not is_windowed(view):
            _refuse_nulls_in_lists(what, view, rows)
            writes.append(_view_write(config, view, rows))
    lands, is_applied = "offline" in request.to, "online" in request.to and bool(route.views)
    if is_applied or is_logged:
        return Push(row_count, tuple(writes), (), LoggedPush(route, in_views, lands, is_applied))
    return Push(row_count, tuple(writes), ((views[0], in_views),) if lands else ())


def checked_write(config: RepoConfig, view: Any, columns: Mapping[str, Sequence[Any]], now_us: int) -> Push:
    """Returns rows of one view, given by join key and feature names, checked against its schema.

    The event and created time are taken under the names of the view's source, or as `event_timestamp` and
    `created`, which is how Feast's remote client sends them.

    Raises:
        PushedRowsError: a column or row that does not fit, or a row from the future.
    """
    refuse_unsupported(view)
    what = f"feature view {view.name!r}"
    if is_windowed(view):
        raise InputError(
            f"{what} aggregates over time windows: its rows are computed from events, never written; push events to "
            "its push source"
        )
    source = batch_source_of(view)
    if source is None:
        raise InputError(f"{what} has no batch source, whose columns name the times of a row; push to its sources")
    event, created = source.timestamp_field, source.created_timestamp_column or _NO_CREATED
    features_and_keys = {field.name for field in (*view.entity_columns, *view.features)}
    given = {_renamed(name, columns, (event, created), features_and_keys): v for name, v in columns.items()}
    definition = view_definition(
        config.project, view, is_versioned=config.registry.enable_online_feature_view_versioning
    )
    opaque = {}
    for column in definition.features:
        if is_opaque(column.type_name) and column.name in given:
            check_extents(what, column.name, given[column.name])
            opaque[column.name] = plain_from_python(given[column.name], column.type_name)
    declared = [c for c in (*definition.join_keys, *definition.features) if not is_opaque(c.type_name)]
    schema = pa.schema(
        [pa.field(c.name, arrow_type(c.type_name)) for c in declared]
        + [pa.field(event, _STAMP), pa.field(created, _STAMP)]
    )
    keys = [column.name for column in definition.join_keys]
    simple = {name: values for name, values in given.items() if name not in opaque}
    table = checked_table(what, simple, schema, required=[*keys, event], not_null=[*keys, event])
    for name, values in opaque.items():
        if len(values) != table.num_rows:
            raise UnequalLengths(f"{what}: column {name!r} has {len(values)} values for {table.num_rows} rows")
    timed = with_time_columns(table, event, created)
    _refuse_future(what, timed, now_us)
    _refuse_nulls_in_lists(what, view, timed)
    features = [column for column in definition.features if column.name in given]
    layout = RowLayout.of(features)
    plain = {c.name: plain_from_arrow(c, timed.column(c.name)) for c in declared} | opaque
    rows = list(encode_columns(definition, layout, plain, row_times(timed)))
    return Push(table.num_rows, (ViewWrite(definition.name, {layout: rows}),))


class Landing:
    """The offline side of a push, once per batch source: staged before the online rows are written, published after.

    All that is likely to fail (columns, room, permission) fails while staging, before anything is written online.
    An offline store that is not ours cannot stage, so there everything happens when it is published.
    """

    def __init__(self, config: RepoConfig, push: Push) -> None:
        """Stages the rows.

        Raises:
            PushedRowsError, SourceError, OutOfSpace: they cannot land; nothing stays.
        """
        self._config = config
        self._store = get_offline_store_from_config(config.offline_store)
        self._staged: list[StagedRows] = []
        self._unstaged: list[tuple[Any, pa.Table]] = []
        try:
            for view, table in push.landings:
                if isinstance(self._store, DuckDBOfflineStore):
                    source = file_source(batch_source_of(view), f"feature view {view.name!r}")
                    self._staged.append(stage_rows(config, source, table))
                else:
                    self._unstaged.append((view, table))
        except BaseException:
            self.discard()
            raise

    def publish(self, token: str | None = None) -> None:
        """Makes the rows part of their sources.

        Args:
            token: 16 hex digits by which rows are known that were published before, and not once more.

        Raises:
            SourceError: a source's folder can no longer be written.
        """
        for staged in self._staged:
            staged.publish(token)
        for view, table in self._unstaged:
            self._store.offline_write_batch(self._config, view, table, None)

    def discard(self) -> None:
        """Removes what was staged and not published."""
        for staged in self._staged:
            staged.discard()


def _renamed(name: str, columns: Mapping[str, Any], times: tuple[str, str], declared: set[str]) -> str:
    """Returns the name of a time column that came under the name that Feast's remote client gives it."""
    event, created = times
    if name == "event_timestamp" and event not in columns and name not in declared:
        return event
    return created if name == "created" and created not in columns and name not in declared else name


def _timed(what: str, table: pa.Table, source: FileSource, now_us: int) -> pa.Table:
    """Returns the table under the names of the views, with time columns; refuses rows from the future."""
    timed = with_time_columns(table, source.timestamp_field, source.created_timestamp_column or None)
    _refuse_future(what, timed, now_us)
    return _in_view_names(timed, source)


def _in_view_names(table: pa.Table, source: FileSource) -> pa.Table:
    mapping = source.field_mapping or {}
    return table.rename_columns([mapping.get(name, name) for name in table.column_names])


def _refuse_future(what: str, timed: pa.Table, now_us: int) -> None:
    limit_us = now_us + PUSH_FUTURE_SECONDS_MAX * 1_000_000
    for row, event_us in enumerate(timed.column(EVENT_US).to_pylist()):
        if event_us > limit_us:
            raise PushedRowsError(
                f"{what}, row {row}: event time {said(event_us)} is more than "
                f"{PUSH_FUTURE_SECONDS_MAX} s after now, {said(now_us)}; "
                "correct the producer's clock or time zone"
            )


def _refuse_nulls_in_lists(what: str, view: Any, table: pa.Table) -> None:
    """Refuses a null within a list, which Feast's messages cannot hold; one of floats becomes NaN, as in Feast."""
    for field in view.features:
        element = element_type(column_of(field).type_name)
        if element is None or element in FLOATS or field.name not in table.column_names:
            continue
        lists = table.column(field.name).combine_chunks()
        if not pa.types.is_list(lists.type) or not (values := lists.flatten()).null_count:
            continue
        row = pc.list_parent_indices(lists).filter(values.is_null())[0].as_py()
        raise PushedRowsError(
            f"{what}, row {row}: column {field.name!r} has a list with a null in it, {shown(lists[row].as_py())}, "
            f"which Feast's lists of {element} cannot hold; leave the element out, or push to the offline store only"
        )


def _view_write(config: RepoConfig, view: Any, timed: pa.Table) -> ViewWrite:
    definition = view_definition(
        config.project, view, is_versioned=config.registry.enable_online_feature_view_versioning
    )
    layout = RowLayout.of(definition.features)
    rows = [row for batch in timed.to_batches() for row in encode_batch(definition, layout, batch)]
    return ViewWrite(definition.name, {layout: rows})
