"""The Redis online store: Feast's plug-in over the row codec, the write script and compiled lookups."""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from feast import Entity, FeatureView, RepoConfig
from feast.batch_feature_view import BatchFeatureView
from feast.feature_service import FeatureService
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import RepeatedValue
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel
from feast.stream_feature_view import StreamFeatureView
from pydantic import Field, NonNegativeInt, PositiveInt, StrictStr, field_validator

from store.batch_aggregations import keep_aggregations
from store.clock import Clock, clock_for
from store.errors import UnequalLengths, WrongType
from store.feast_noise import quieten
from store.limits import LOOKUP_SECONDS_MAX, PUSH_SECONDS_MAX, STREAM_PARTITIONS_MAX
from store.online.client import AsyncRedisSession, OnRoundTrip, RedisSession
from store.online.connection import RedisTarget, settings_of
from store.online.conversations import Knowledge
from store.online.lookup import Lookup
from store.online.plan import Asked, OnlinePlan, ServiceName
from store.online.plans import PlanCache
from store.online.responses import online_response
from store.online.rows import ProtoRow, entity_key_rows, online_reads, rows_to_write, stored_names, write_pushed
from store.online.views import drop_project, drop_view

quieten()
keep_aggregations()

EntityRows = list[dict[str, Any]] | Mapping[str, Sequence[Any] | RepeatedValue]


class RedisOnlineStoreConfig(FeastConfigBaseModel):
    """Settings of the online store in `feature_store.yaml`, under Feast's own names."""

    type: StrictStr = "store.online.RedisOnlineStore"
    """How Feast finds this plug-in."""

    connection_string: StrictStr = "embedded"
    """`embedded` for a private Redis of this repo, `host:port,password=...,ssl=true,db=0` (several hosts for
    Cluster or Sentinel), or a `redis://` URL. The environment's `REDIS_URL` goes before it."""

    redis_type: StrictStr = "redis"
    """`redis`, `redis_cluster` or `redis_sentinel`."""

    sentinel_master: StrictStr = "mymaster"
    """The name under which Sentinel knows the master."""

    key_ttl_seconds: NonNegativeInt | None = None
    """Seconds after its last write at which an entity key expires; None or 0 for never."""

    stream_partitions: PositiveInt = Field(default=8, le=STREAM_PARTITIONS_MAX)
    """Partitions of the event log of windowed views, fixed with the project's first event; at most one worker each."""

    @field_validator("key_ttl_seconds")
    @classmethod
    def _zero_is_never(cls, value: int | None) -> int | None:
        return value or None


class RedisOnlineStore(OnlineStore):
    """Feature rows in Redis: one hash per entity key, one packed row per feature view."""

    def __init__(self) -> None:
        self._session: RedisSession | None = None
        # Weakly, so that a loop that has ended takes its session with it.
        self._async_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncRedisSession] = WeakKeyDictionary()
        self._knowledge: dict[str, Knowledge] = {}
        self._is_ordered = True
        self._lock = threading.Lock()
        self._plans = PlanCache()
        self._clock: Clock | None = None
        self.on_round_trip: OnRoundTrip | None = None
        """Is told the seconds of each round trip of asynchronous sessions; set before the first one."""

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Which of Feast's async calls are native: reading and writing."""
        return SupportedAsyncMethods(read=True, write=True)

    def _is_versioned_read_supported(self) -> bool:
        """Whether references like `view@v2:feature` are served: yes, as each version has a field of its own."""
        return True

    # --- reading ------------------------------------------------------------------------------

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Returns online features for some entity rows; see `store.online.plan` and `lookup`."""
        plan = self._plans.plan(registry, project, _asked(features), full_feature_names=full_feature_names)
        lookup = Lookup(plan, _columnar(entity_rows, plan))
        knowledge = self.knowledge(project)
        self.session(config).hold(lookup.converse(knowledge), LOOKUP_SECONDS_MAX)
        return self._response(config, lookup, project, with_versions=include_feature_view_version_metadata)

    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Returns online features for some entity rows; see `store.online.plan` and `lookup`."""
        plan = self._plans.plan(registry, project, _asked(features), full_feature_names=full_feature_names)
        lookup = Lookup(plan, _columnar(entity_rows, plan))
        knowledge = self.knowledge(project)
        session = await self.async_session(config)
        await session.hold(lookup.converse(knowledge))
        return self._response(config, lookup, project, with_versions=include_feature_view_version_metadata)

    def _response(self, config: RepoConfig, lookup: Lookup, project: str, *, with_versions: bool) -> OnlineResponse:
        found = lookup.answer(self.knowledge(project), self.clock(config).now_us())
        return online_response(lookup, found, with_versions=with_versions)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
        """Returns per entity key the event time and values of a view's row; (None, None) where there is none."""
        lookup = entity_key_rows(config, table, entity_keys, requested_features)
        knowledge = self.knowledge(config.project)
        self.session(config).hold(lookup.converse(knowledge), LOOKUP_SECONDS_MAX)
        return online_reads(lookup, knowledge, self.clock(config).now_us())

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
        """Returns per entity key the event time and values of a view's row; (None, None) where there is none."""
        lookup = entity_key_rows(config, table, entity_keys, requested_features)
        knowledge = self.knowledge(config.project)
        session = await self.async_session(config)
        await session.hold(lookup.converse(knowledge))
        return online_reads(lookup, knowledge, self.clock(config).now_us())

    # --- writing ------------------------------------------------------------------------------

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[ProtoRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Writes rows, each only if it is not older than the stored one; they count as pushed.

        Raises:
            PushedRowsError: a row whose event time lies too far in the future; nothing is written then.
        """
        knowledge, session = self.knowledge(config.project), self.session(config)
        rows = rows_to_write(config, table, data, now_us=self.clock(config).now_us())
        session.hold(write_pushed(knowledge, rows, config.online_store.key_ttl_seconds, session.slot_of()))
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[ProtoRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Writes rows, each only if it is not older than the stored one; they count as pushed.

        Raises:
            PushedRowsError: a row whose event time lies too far in the future; nothing is written then.
        """
        knowledge, session = self.knowledge(config.project), await self.async_session(config)
        rows = rows_to_write(config, table, data, now_us=self.clock(config).now_us())
        ttl_seconds = config.online_store.key_ttl_seconds
        await session.hold(write_pushed(knowledge, rows, ttl_seconds, session.slot_of()), PUSH_SECONDS_MAX)
        if progress:
            progress(len(data))

    # --- life ---------------------------------------------------------------------------------

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[BatchFeatureView | StreamFeatureView | FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Removes the rows of views that are no longer declared, and nothing else."""
        del tables_to_keep, entities_to_delete, entities_to_keep, partial
        for table in tables_to_delete:
            for name in stored_names(config, table):
                drop_view(self.session(config), config.project, name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Removes everything of the project, by its prefix: Feast's list of tables leaves stream views out."""
        del tables, entities
        drop_project(self.session(config), config.project)
        self._knowledge.pop(config.project, None)

    async def initialize(self, config: RepoConfig) -> None:
        """Connects, so that the first request finds a connection."""
        await self.async_session(config)

    async def close(self) -> None:
        """Closes the connections of the running event loop, and the synchronous ones."""
        session = self._async_sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()
        self.close_synchronous()

    def close_synchronous(self) -> None:
        """Closes the synchronous connections; the next use connects anew."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    # --- what the engine and the server use ---------------------------------------------------

    def session(self, config: RepoConfig) -> RedisSession:
        """Returns the synchronous session, connecting at first use."""
        with self._lock:
            if self._session is None:
                self._session = RedisSession(self._target(config))
            return self._session

    def open_session(self) -> AsyncRedisSession | None:
        """Returns the asynchronous session of the running event loop, None where there is none yet."""
        return self._async_sessions.get(asyncio.get_running_loop())

    async def async_session(self, config: RepoConfig) -> AsyncRedisSession:
        """Returns the asynchronous session of the running event loop, connecting at first use."""
        loop = asyncio.get_running_loop()
        session = self._async_sessions.get(loop)
        if session is None:
            target = await asyncio.to_thread(self._target, config)
            session = self._async_sessions.setdefault(loop, AsyncRedisSession(target, self.on_round_trip))
        return session

    def _target(self, config: RepoConfig) -> RedisTarget:
        """Returns which Redis to use; whether it is a cluster decides how what is known of it is checked."""
        target = target_of(config)
        self._is_ordered = not target.is_cluster
        for knowledge in list(self._knowledge.values()):
            knowledge.is_ordered = self._is_ordered
        return target

    def clock(self, config: RepoConfig) -> Clock:
        """Returns the repo's clock."""
        if self._clock is None:
            self._clock = clock_for(repo_path_of(config))
        return self._clock

    def knowledge(self, project: str) -> Knowledge:
        """Returns what this process has learnt from Redis of a project."""
        known = self._knowledge.get(project)
        return self._knowledge.setdefault(project, Knowledge(project, self._is_ordered)) if known is None else known


def target_of(config: RepoConfig) -> RedisTarget:
    """Returns which Redis the repo's settings and the environment name; starts the embedded one if it is that."""
    return settings_of(config.online_store, repo_path_of(config), os.environ)


def repo_path_of(config: RepoConfig) -> Path:
    """Returns the repo folder, against which relative paths are resolved; the working folder where Feast names none."""
    return Path(config.repo_path or ".").resolve()


def _asked(features: list[str] | FeatureService) -> Asked:
    return ServiceName(features.name) if isinstance(features, FeatureService) else features


def _columnar(entity_rows: EntityRows, plan: OnlinePlan) -> dict[str, Sequence[Any]]:
    """Returns entity rows as columns; an empty list of rows has all columns that the plan needs, without a value."""
    if not entity_rows and isinstance(entity_rows, list):
        return {name: [] for name in (*plan.entity_columns, *plan.request_columns)}
    if isinstance(entity_rows, Mapping):
        return {name: list(v.val) if isinstance(v, RepeatedValue) else v for name, v in entity_rows.items()}
    names = list(entity_rows[0]) if entity_rows and isinstance(entity_rows[0], Mapping) else []
    for number, row in enumerate(entity_rows):
        if not isinstance(row, Mapping):
            raise WrongType(f"entity row {number} is {row!r}, expected a dict of entity columns")
        if row.keys() != set(names):
            raise UnequalLengths(f"entity row {number} has the columns {sorted(row)}, the first has {sorted(names)}")
    return {name: [row[name] for row in entity_rows] for name in names}
