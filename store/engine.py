"""The batch engine behind `feast materialize`: newest row per key from the offline store into the online store.

Between our own stores the rows go as Arrow columns straight into packed rows; where one of the two is
another store, they go through Feast's own interfaces.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
from feast import BatchFeatureView, Entity, FeatureView, OnDemandFeatureView, StreamFeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.utils import _convert_arrow_to_proto
from pydantic import StrictStr

from store.arrow_rows import CREATED_US, EVENT_US, TIME_COLUMNS, with_time_columns
from store.clock import clock_for, from_us, to_us
from store.definitions_from_feast import batch_source_of, refuse_unsupported, ttl_us, view_definition
from store.errors import ConfigError, DefinitionError
from store.filling import Filling
from store.kernel.coverage import BEGINNING_US, Coverage, Interval, Run, ViewState, plan_run, without_start
from store.kernel.definitions import ViewDefinition
from store.kernel.newest_rows import LateRows
from store.limits import MATERIALIZE_BATCH_ROWS, MATERIALIZE_LATE_SECONDS, MATERIALIZE_WRITERS
from store.offline import DuckDBOfflineStore
from store.offline.latest import LatestRows, latest_rows
from store.offline.row_transformations import transformation_of
from store.offline.transformed_files import forget_transformed
from store.offline.window_columns import check_declared_windows
from store.online import RedisOnlineStore, repo_path_of
from store.online.conversations import (
    KnownState,
    read_state,
)
from store.online.views import lease
from store.stream.context import StreamContext
from store.stream.lines import landed_line
from store.transformation_checks import check_declared_transformation
from store.transformations_from_feast import has_transformation
from store.windowed_materialization import WindowedRun
from store.windows_from_feast import is_windowed

AnyView = BatchFeatureView | StreamFeatureView | FeatureView


@dataclass(frozen=True, slots=True)
class PlannedMaterialization:
    """What a materialization of one view would do.

    `intervals` are the event times to read, of which rows that became known late may come besides; `row_count` is how
    many keys it would write a row of. A rebuild fills a new generation with them, which then takes over.
    """

    view: str
    is_rebuild: bool
    intervals: Coverage
    row_count: int


class DuckDBComputeEngineConfig(FeastConfigBaseModel):
    """Settings of the batch engine in `feature_store.yaml`."""

    type: StrictStr = "store.engine.DuckDBComputeEngine"
    """How Feast finds this plug-in."""


class DuckDBComputeEngine(ComputeEngine):
    """Materializes views; a changed definition is built whole beside the old one and then takes its place."""

    def update(
        self,
        project: str,
        views_to_delete: Sequence[AnyView],
        views_to_keep: Sequence[AnyView | OnDemandFeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Refuses definitions that cannot be served, before Feast commits them to the registry.

        Raises:
            DefinitionError: a view that cannot be materialized as declared.
            SourceError: a windowed view's source, where it has files, does not have a column or cannot be read.
        """
        del project, entities_to_delete, entities_to_keep
        for view in views_to_keep:
            refuse_unsupported(view)
            if has_transformation(view):
                check_declared_transformation(self.repo_config, view)
            if is_windowed(view) and isinstance(self.offline_store, DuckDBOfflineStore):
                check_declared_windows(self.repo_config, view)
        self._forget(views_to_delete)

    def teardown_infra(self, project: str, fvs: Sequence[AnyView], entities: Sequence[Entity]) -> None:
        """Removes transformed files; the rest that the engine keeps lies in Redis, and the online store removes it."""
        del project, entities
        self._forget(fvs)

    def _forget(self, views: Sequence[AnyView]) -> None:
        for view in views:
            forget_transformed(self.repo_config, view.name, wait_seconds=0)

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        """Materializes one view over [start, end).

        Raises:
            DefinitionError, SourceError, OnlineStoreError, MaterializationBusy: as their names say.
        """
        del registry, kwargs
        refuse_unsupported(task.feature_view)
        requested = self._requested(task)
        if is_windowed(task.feature_view):
            self._materialize_windows(self._redis(), task, requested)
        elif isinstance(self.online_store, RedisOnlineStore):
            self._materialize_to_redis(self.online_store, task, requested)
        else:
            self._materialize_to_other(task, requested)
        job_id = f"{task.feature_view.name}-{requested.start_us}-{requested.end_us}"
        return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.SUCCEEDED)

    def _requested(self, task: MaterializationTask) -> Interval:
        """Returns what Feast asks for, its end clipped to the clock: nothing beyond now can be known yet."""
        now_us = clock_for(repo_path_of(self.repo_config)).now_us()
        if task.disable_event_timestamp:
            return Interval(BEGINNING_US, now_us)
        return Interval(to_us(task.start_time), min(to_us(task.end_time), now_us))

    def planned(self, task: MaterializationTask) -> PlannedMaterialization:
        """Returns what materializing one view over [start, end) would read and write; nothing is changed.

        Raises:
            ConfigError: the online store is not Larder's, so nothing is known of what it holds.
            DefinitionError, SourceError, OnlineStoreError: as their names say.
        """
        refuse_unsupported(task.feature_view)
        online = self.online_store
        if not isinstance(online, RedisOnlineStore):
            raise ConfigError(
                f"online_store type {self.repo_config.online_store.type!r} does not tell what it holds; a dry run "
                "needs store.online.RedisOnlineStore"
            )
        definition = self._definition(task)
        if definition.windows:
            windowed = self._windowed_run(online, task, definition, self._requested(task))
            count = windowed.events(None).key_count()
            return PlannedMaterialization(definition.name, windowed.is_rebuild, (windowed.interval,), count)
        known, run = self._known_and_run(online, task, definition, self._requested(task))
        with closing(self._latest(task, run.intervals, _late_rows(known.state, run))) as latest:
            return PlannedMaterialization(definition.name, run.is_rebuild, run.intervals, latest.total)

    def _definition(self, task: MaterializationTask) -> ViewDefinition:
        is_versioned = self.repo_config.registry.enable_online_feature_view_versioning
        return view_definition(task.project, task.feature_view, is_versioned=is_versioned)

    def _known_and_run(
        self, online: RedisOnlineStore, task: MaterializationTask, definition: ViewDefinition, requested: Interval
    ) -> tuple[KnownState, Run]:
        """Returns what Redis holds of a view, and what has to be done to it."""
        known = online.session(self.repo_config).hold(read_state(task.project, definition.name))
        registered = _registered(task.feature_view)
        run = plan_run(known.state, definition.fingerprint, requested, registered, ttl_us=definition.ttl_us)
        return known, run

    def _materialize_to_redis(self, online: RedisOnlineStore, task: MaterializationTask, requested: Interval) -> None:
        config = self.repo_config
        definition = self._definition(task)
        session = online.session(config)
        began_us = clock_for(repo_path_of(config)).now_us()
        with lease(session, task.project, definition.name):
            known, run = self._known_and_run(online, task, definition, requested)
            filling = Filling(session, definition, online, config.online_store.key_ttl_seconds, known)
            filling.begin(run)
            latest = self._latest(task, run.intervals, _late_rows(known.state, run))
            with _progress_bar(task, latest.total) as advance:
                for row_count in _each_written(partial(filling.write, filling.writer()), latest.batches):
                    advance(row_count)
            filling.end(run, began_us)

    def _redis(self) -> RedisOnlineStore:
        if not isinstance(self.online_store, RedisOnlineStore):
            raise ConfigError(
                f"online_store type {self.repo_config.online_store.type!r} cannot hold windowed features; use "
                "store.online.RedisOnlineStore"
            )
        return self.online_store

    def _windowed_run(
        self, online: RedisOnlineStore, task: MaterializationTask, definition: ViewDefinition, requested: Interval
    ) -> WindowedRun:
        config, source = self.repo_config, batch_source_of(task.feature_view)
        now_us = clock_for(repo_path_of(config)).now_us()
        session = online.session(config)
        is_streamed = task.feature_view.stream_source is not None
        run = WindowedRun.planned(
            config, definition, source, session, end_us=requested.end_us, now_us=now_us, is_streamed=is_streamed
        )
        return replace(run, transformation=transformation_of(task.feature_view))

    def _materialize_windows(self, online: RedisOnlineStore, task: MaterializationTask, requested: Interval) -> None:
        definition, session = self._definition(task), online.session(self.repo_config)
        with lease(session, task.project, definition.name):
            run = self._windowed_run(online, task, definition, requested)
            line_id = self._landed_line(definition.name) if run.has_line else None
            with _progress_bar(task, run.events(line_id).row_count) as advance:
                run.run(session, self.repo_config.online_store.key_ttl_seconds, advance, line_id=line_id)

    def _landed_line(self, view: str) -> int:
        """Returns a line through the event log, everything before which has landed."""
        context = StreamContext(repo_path_of(self.repo_config), self.repo_config)
        try:
            return landed_line(context, view)
        finally:
            context.close()

    def _materialize_to_other(self, task: MaterializationTask, requested: Interval) -> None:
        """Writes through Feast's interface; such a store keeps no coverage, so the request is taken as it is.

        A request that says nothing (START at or after END) is read back by the ttl each time: what is there
        already is written again.
        """
        if requested.start_us >= requested.end_us:
            requested = without_start(requested.end_us, ttl_us=ttl_us(task.feature_view))
        source = batch_source_of(task.feature_view)
        join_keys = {field.name: field.dtype.to_value_type() for field in task.feature_view.entity_columns}
        latest = self._latest(task, (requested,))
        with _progress_bar(task, latest.total) as advance:
            for batch in latest.batches:
                table = _with_feast_times(batch, source.timestamp_field, source.created_timestamp_column)
                rows = _convert_arrow_to_proto(table, task.feature_view, join_keys)
                self.online_store.online_write_batch(self.repo_config, task.feature_view, rows, None)
                advance(batch.num_rows)

    def _latest(
        self, task: MaterializationTask, intervals: Sequence[Interval], late: LateRows | None = None
    ) -> LatestRows:
        """Returns the newest row per key over the hull of some intervals: rows already there change nothing.

        Args:
            late: rows before the hull that are among them too.
        """
        if not intervals:
            return LatestRows(0, iter(()))
        hull = Interval(intervals[0].start_us, intervals[-1].end_us)
        source = batch_source_of(task.feature_view)
        if source is None:
            raise DefinitionError(
                f"feature view {task.feature_view.name!r} has no batch source to materialize from; declare one"
            )
        if isinstance(self.offline_store, DuckDBOfflineStore):
            start_us = None if hull.start_us == BEGINNING_US else hull.start_us
            definition = view_definition(task.project, task.feature_view)
            interval = (start_us, hull.end_us)
            transformation = transformation_of(task.feature_view)
            columns = definition.join_keys, definition.features
            return latest_rows(self.repo_config, source, *columns, interval, late, transformation)
        if has_transformation(task.feature_view):
            raise DefinitionError(
                f"feature view {task.feature_view.name!r} declares a transformation, which offline_store type "
                f"{self.repo_config.offline_store.type!r} does not run; use store.offline.DuckDBOfflineStore"
            )
        return self._latest_from_other(task, source, hull)

    def _latest_from_other(self, task: MaterializationTask, source: Any, hull: Interval) -> LatestRows:
        declared = view_definition(task.project, task.feature_view)
        assert declared.source is not None
        join_keys = [declared.source.file_column(column.name) for column in declared.join_keys]
        features = [declared.source.file_column(column.name) for column in declared.features]
        timestamp_field, created = source.timestamp_field, source.created_timestamp_column or None
        start = from_us(max(hull.start_us, 0))
        job = self.offline_store.pull_latest_from_table_or_query(
            self.repo_config, source, join_keys, features, timestamp_field, created, start, from_us(hull.end_us - 1)
        )
        table = job.to_arrow()
        mapped = table.rename_columns([source.field_mapping.get(name, name) for name in table.column_names])
        timed = with_time_columns(mapped, timestamp_field, created)
        return LatestRows(timed.num_rows, iter(timed.to_batches(max_chunksize=MATERIALIZE_BATCH_ROWS)))


def _late_rows(state: ViewState, run: Run) -> LateRows | None:
    """Returns the rows of event times that are covered already which the last run may not have known of.

    None where there was no run, or where all that is covered is read anyway.
    """
    if state.known_us is None or run.is_rebuild:
        return None
    start_us = run.coverage_after[0].start_us if run.coverage_after else BEGINNING_US
    low_us = None if start_us == BEGINNING_US else start_us
    return LateRows(state.known_us - MATERIALIZE_LATE_SECONDS * 1_000_000, low_us)


def _registered(view: AnyView) -> list[Interval]:
    """Returns the intervals that Feast's registry says were materialized."""
    return [Interval(to_us(start), to_us(end)) for start, end in view.materialization_intervals]


def _each_written(write: Callable[[pa.RecordBatch], int], batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    """Writes batches, some at a time, and yields how many rows each had.

    While one is being packed, another waits for Redis and the next is being read. Which of two is written first plays
    no part, as each key comes once. An error ends the work after what is under way.
    """
    with ThreadPoolExecutor(MATERIALIZE_WRITERS, "larder-write") as pool:
        under_way: deque[Future[int]] = deque()
        try:
            for batch in batches:
                under_way.append(pool.submit(write, batch))
                if len(under_way) > MATERIALIZE_WRITERS:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


@contextmanager
def _progress_bar(task: MaterializationTask, total: int) -> Iterator[Callable[[int], object]]:
    """Yields what advances the progress bar that Feast's command line shows."""
    if task.tqdm_builder is None:
        yield lambda _: None
        return
    with task.tqdm_builder(total) as bar:
        yield bar.update


def _with_feast_times(batch: pa.RecordBatch, timestamp_field: str, created: str) -> pa.Table:
    """Returns a batch of `latest_rows` with its times under the names that Feast's conversion looks for."""
    table = pa.Table.from_batches([batch])
    stamp = pa.timestamp("us", tz="UTC")
    table = table.append_column(timestamp_field, table.column(EVENT_US).cast(stamp))
    if created:
        table = table.append_column(created, table.column(CREATED_US).cast(stamp))
    if DUMMY_ENTITY_ID not in table.column_names:
        table = table.append_column(DUMMY_ENTITY_ID, pa.array([""] * table.num_rows))
    return table.drop_columns(list(TIME_COLUMNS))
