"""What a server does for its callers: one object over registry, online store and offline store."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from feast import FeatureStore
from feast.errors import FeatureViewNotFoundException
from feast.infra.registry.registry import Registry
from feast.repo_config import RepoConfig

from store.audit.around import StoreSurroundings
from store.audit.writer import ServedLog
from store.catalogue import Catalogue
from store.catalogue_from_feast import catalogue_of
from store.clock import Clock, clock_for, from_us
from store.errors import ConfigError, InputError, LarderError, OnlineStoreError, RegistryUnavailable, UnknownObject
from store.feature_store import pushed_views
from store.kernel.definitions import Column
from store.limits import FRESHNESS_KEPT_SECONDS, PUSH_SECONDS_MAX, REGISTRY_REFRESH_SECONDS
from store.monitor.audits import AuditFiles, KeptAudit
from store.monitor.drift_states import DriftState, DriftStates
from store.monitor.freshness import FreshnessReader, ViewFreshness
from store.online import RedisOnlineStore, RedisOnlineStoreConfig
from store.online.conversations import try_reading
from store.online.json_answers import json_answer
from store.online.log_appends import PushName, append, is_known_push
from store.online.lookup import Lookup
from store.online.plan import Asked, OnlinePlan, ServiceName
from store.online.plans import PlanCache
from store.online.rows import ViewWrite, write_pushed
from store.online.stream_log import open_log
from store.online.stream_status import read_status
from store.pushing import PUSH_TARGETS, Landing, Push, checked_push, checked_write
from store.requests import (
    HistoricalRequest,
    LogTotals,
    LookupAnswer,
    LookupRequest,
    MaterializeRequest,
    PushRequest,
    Readiness,
    StreamStatus,
)
from store.snapshot import RegistrySnapshots, Snapshot, load_config
from store.stream.appending import LoggedPush, PreparedPush


class StoreService:
    """Serves one feature repo; made by `open`, then `start` in the event loop, at the end `close`."""

    def __init__(self, repo_path: Path, config: RepoConfig | None = None) -> None:
        self.repo_path = repo_path.resolve()
        self._config = load_config(self.repo_path) if config is None else config
        self._snapshots = RegistrySnapshots(self._config, self.repo_path)
        self._plans = PlanCache()
        self._catalogue: tuple[Snapshot, Catalogue] | None = None
        self._online = RedisOnlineStore()
        self._refreshing: asyncio.Task[None] | None = None
        self.clock: Clock = clock_for(self.repo_path)
        self.project: str = self._config.project
        self._audits = AuditFiles(self.repo_path)
        self._drift = DriftStates(self.repo_path)
        self._freshness = FreshnessReader(self._config, self._online, self.clock, self._snapshots)
        self._served = ServedLog(StoreSurroundings(self._config, self._online, self.clock, self._all_views))

    @classmethod
    def open(cls, repo_path: Path, config: RepoConfig | None = None) -> "StoreService":
        """Returns the service of a feature repo, with its registry if there is one yet.

        Args:
            config: settings to use in place of those in `feature_store.yaml`.

        Raises:
            ConfigError: the repo has no usable `feature_store.yaml`, or its online store is not ours.
        """
        service = cls(repo_path, config)
        if not isinstance(service._config.online_store, RedisOnlineStoreConfig):
            raise ConfigError(
                f"online_store type {service._config.online_store.type!r} in {str(repo_path)!r} cannot be served; "
                "use store.online.RedisOnlineStore"
            )
        service._snapshots.refresh()
        return service

    async def start(self) -> None:
        """Connects and begins to renew the registry in the background."""
        self._refreshing = asyncio.create_task(self._refresh_for_ever())
        with contextlib.suppress(OnlineStoreError):
            # A Redis that is away now may be there at the first request; readiness says so meanwhile.
            await self._online.initialize(self._config)

    def on_round_trip(self, tell: Callable[[float], None]) -> None:
        """Has the seconds of each round trip to Redis told; called before `start`."""
        self._online.on_round_trip = tell

    def on_logged(self, tell: Callable[[LogTotals], None]) -> None:
        """Has told, from another thread, what became of the vectors of logged services; called before `start`."""
        self._served.tell = tell

    async def close(self) -> None:
        """Ends the renewal, writes the served vectors that are not yet logged, and closes the connections."""
        await asyncio.to_thread(self._served.close)
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing
        await self._online.close()

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REGISTRY_REFRESH_SECONDS)
            await asyncio.to_thread(self._snapshots.refresh)

    @property
    def registry_version(self) -> str:
        """The version of the registry that is served, '' where the registry has none."""
        return self._snapshots.current().version

    def catalogue(self) -> Catalogue:
        """Returns all that is registered, made once per state of the registry: some 100 ms for a thousand features.

        Raises:
            RegistryUnavailable: there is no registry yet.
        """
        snapshot = self._snapshots.current()
        if self._catalogue is None or self._catalogue[0] is not snapshot:
            self._catalogue = snapshot, catalogue_of(snapshot.store, snapshot.version)
        return self._catalogue[1]

    def _all_views(self) -> list[Any]:
        return list(self._snapshots.current().store.list_all_feature_views())

    def refresh_registry(self) -> str | None:
        """Takes in the registry if it has changed; returns what is wrong with it, None if nothing is."""
        self._snapshots.refresh()
        return self._snapshots.problem

    @property
    def is_registry_quick(self) -> bool:
        """Whether a look at a registry that has not changed is one stat of a file."""
        return self._snapshots.is_quick

    # --- reading ------------------------------------------------------------------------------

    def given_columns(self, features: Sequence[str], feature_service: str | None) -> Mapping[str, Column]:
        """Returns the columns, join keys and request data, that a lookup of something has to give, by name.

        Raises:
            InputError, RegistryUnavailable: as `lookup` does.
        """
        return self._plan(features, feature_service, full_feature_names=False).given_columns

    async def lookup(self, request: LookupRequest) -> LookupAnswer:
        """Returns online features; see `store.online.plan` and `store.online.lookup`.

        Raises:
            InputError, RegistryUnavailable, OnlineStoreError: as their names say.
        """
        plan = self._plan(request.features, request.feature_service, full_feature_names=request.full_feature_names)
        lookup = Lookup(plan, request.entities)
        knowledge = self._online.knowledge(self.project)
        session = self._online.open_session() or await self._online.async_session(self._config)
        await session.hold(lookup.converse(knowledge))
        now_us = self.clock.now_us()
        found = lookup.answer(knowledge, now_us)
        if plan.logging is not None:
            self._served.take(lookup, found, now_us, knowledge)
        return json_answer(lookup, found, now_us, with_versions=request.include_feature_view_version_metadata)

    def retrieve(self, request: HistoricalRequest) -> Any:
        """Returns the job of a training-set retrieval; its `to_arrow` does the work.

        Raises:
            InputError, SourceError, RegistryUnavailable: as their names say.
        """
        store = self._snapshots.current().store
        self._plan(request.features, request.feature_service, full_feature_names=request.full_feature_names)
        features = request.feature_service and store.get_feature_service(request.feature_service, allow_cache=True)
        return store.get_historical_features(
            entity_df=request.entity_rows,
            features=features or list(request.features),
            full_feature_names=request.full_feature_names,
            filter_by_created_timestamp=request.filter_by_created_timestamp,
        )

    def registry_copy(self) -> bytes | None:
        """Returns the registry that is served, serialized; None where Feast does not hold it as a whole (SQL).

        Raises:
            RegistryUnavailable: there is none yet.
        """
        registry = self._snapshots.current().store.registry
        return registry.cached_registry_proto.SerializeToString() if isinstance(registry, Registry) else None

    def _plan(self, features: Sequence[str], feature_service: str | None, *, full_feature_names: bool) -> OnlinePlan:
        """Returns the compiled plan of what a request asks for; retrievals use it to check their request."""
        if bool(features) == bool(feature_service):
            given = "both" if features else "neither"
            raise InputError(f"give either 'features' or 'feature_service', got {given}")
        snapshot = self._snapshots.current()
        asked: Asked = ServiceName(feature_service) if feature_service else features
        return self._plans.plan(
            snapshot.store.registry, self.project, asked, full_feature_names=full_feature_names, state=snapshot
        )

    # --- writing ------------------------------------------------------------------------------

    async def push(self, request: PushRequest) -> int:
        """Checks all rows, stages them offline, writes them online, then lands them; returns how many there were.

        Landing comes last: a push that fails before it can be repeated without landing twice, as online rows
        are only replaced by rows that are not older. One with an idempotency key can be repeated after it, too.

        Raises:
            UnknownObject: no feature view has such a push source.
            PushedRowsError: a row that does not fit; nothing was written.
            SourceError, OutOfSpace: the rows cannot land; nothing was written.
            OnlineStoreError: Redis failed, maybe in the middle: some rows may be online and none has landed.
        """
        if request.to not in PUSH_TARGETS:
            raise InputError(f"push target {request.to!r} is unknown; expected one of {sorted(PUSH_TARGETS)}")
        views = pushed_views(self._snapshots.current().store, request.push_source_name)
        name = _name_of(request)
        push = await asyncio.to_thread(checked_push, self._config, request, views, self.clock.now_us())
        if name is not None and push.logged is None and await self._is_known(name):
            return push.row_count
        landing = await asyncio.to_thread(Landing, self._config, push)
        try:
            await self._write_online(push.writes)
            if push.logged is not None:
                await self._append(push.logged, name)
        except BaseException:
            landing.discard()
            raise
        await asyncio.to_thread(landing.publish, None if name is None else name.key.hex()[:16])
        if name is not None and push.logged is None:
            await self._remember(name)
        return push.row_count

    async def _is_known(self, name: PushName) -> bool:
        session, knowledge = await self._online.async_session(self._config), self._online.knowledge(self.project)
        log = await session.hold(open_log(knowledge, self._config.online_store.stream_partitions))
        return await session.hold(is_known_push(log, name, self.clock.now_us()))

    async def _remember(self, name: PushName) -> None:
        """Notes that a push was done which left nothing in the event log."""
        session, knowledge = await self._online.async_session(self._config), self._online.knowledge(self.project)
        log = await session.hold(open_log(knowledge, self._config.online_store.stream_partitions))
        await session.hold(append(log, {}, self.clock.now_us(), push=name))

    async def _append(self, logged: LoggedPush, name: PushName | None) -> None:
        partitions = self._config.online_store.stream_partitions
        prepared = await asyncio.to_thread(PreparedPush, logged, partitions)
        session = await self._online.async_session(self._config)
        conversation = prepared.converse(self._online.knowledge(self.project), self.clock.now_us(), name)
        await session.hold(conversation, PUSH_SECONDS_MAX)

    async def write_online(self, feature_view_name: str, columns: Mapping[str, Sequence[Any]]) -> int:
        """Checks rows of one view, given by feature names, and writes them online; returns how many there were."""
        store = self._snapshots.current().store
        try:
            view = store.registry.get_any_feature_view(feature_view_name, self.project, allow_cache=True)
        except FeatureViewNotFoundException as error:
            raise UnknownObject(
                f"feature view {feature_view_name!r} is not registered in project {self.project!r}; "
                "run 'feast apply' or correct the name"
            ) from error
        push: Push = await asyncio.to_thread(checked_write, self._config, view, columns, self.clock.now_us())
        await self._write_online(push.writes)
        return push.row_count

    async def _write_online(self, writes: Sequence[ViewWrite]) -> None:
        knowledge = self._online.knowledge(self.project)
        ttl_seconds = self._config.online_store.key_ttl_seconds
        for write in writes:
            session = await self._online.async_session(self._config)
            await session.hold(write_pushed(knowledge, write, ttl_seconds, session.slot_of()), PUSH_SECONDS_MAX)

    def materialize(self, request: MaterializeRequest) -> None:
        """Materializes as Feast's command line does; blocks until done.

        Raises:
            UnknownObject: a feature view that is not registered.
            InputError: START is after END.
            RegistryUnavailable: the registry as it is now cannot be read; the last good one is not enough here.
            LarderError: as the stores raise.
        """
        self._snapshots.refresh()
        if self._snapshots.problem is not None:
            # Feast would start an empty registry in the place of a missing one, and materialize nothing.
            raise RegistryUnavailable(self._snapshots.problem)
        # A registry of its own: Feast writes states and intervals into the one it materializes by.
        store = FeatureStore(repo_path=str(self.repo_path), config=self._config)
        views = list(request.feature_views) if request.feature_views is not None else None
        try:
            if request.start is None and not request.disable_event_timestamp:
                store.materialize_incremental(request.end, feature_views=views)
            else:
                store.materialize(
                    request.start or from_us(0),
                    request.end,
                    feature_views=views,
                    disable_event_timestamp=request.disable_event_timestamp,
                )
        except FeatureViewNotFoundException as error:
            raise UnknownObject(f"{error}; run 'feast apply' or correct the name") from error
        except LarderError:
            raise
        except ValueError as error:
            raise InputError(str(error)) from error
        finally:
            # Feast's objects hold each other in rings, so that its connections would stay until they are collected.
            online = store._get_provider().online_store  # noqa: SLF001 - there is no public way
            if isinstance(online, RedisOnlineStore):
                online.close_synchronous()

    async def readiness(self) -> Readiness:
        """Returns whether lookups can be answered, and what is wrong if not."""
        online_problem, stream = None, StreamStatus()
        try:
            session = await self._online.async_session(self._config)
            await session.hold(try_reading(self.project))
            stream = await session.hold(read_status(self.project, self.clock.now_us()))
        except (OnlineStoreError, ConfigError) as error:
            online_problem = str(error)
        note = (
            None if self.clock.is_system else f"the clock is not the system's: it says {self.clock.now().isoformat()}"
        )
        return Readiness(
            has_registry=self._snapshots.is_loaded,
            registry_problem=self._snapshots.problem,
            online_store_problem=online_problem,
            clock_note=note,
            registry_age_seconds=self._snapshots.age_seconds,
            stream=stream,
        )

    async def freshness(self, kept_seconds: float = FRESHNESS_KEPT_SECONDS) -> list[ViewFreshness]:
        """Returns how fresh each view is, offline and online, as of some seconds ago; never on a lookup's way.

        Raises:
            RegistryUnavailable: there is none yet.
        """
        return await self._freshness.read(kept_seconds)

    def drift_states(self) -> list[DriftState]:
        """Returns how many features of each subject have drifted, as its last kept report says."""
        return self._drift.look()

    def last_audit(self) -> tuple[KeptAudit | None, Sequence[str]]:
        """Returns the last audit, None if there was none, and a sentence for each damaged report in front of it."""
        return self._audits.look()


def _name_of(request: PushRequest) -> PushName | None:
    """Returns what tells a push from others that may come with the same idempotency key, None without such a key."""
    if request.idempotency_key is None:
        return None
    key = f"{request.push_source_name}\0{request.idempotency_key}".encode()
    return PushName(blake2b(key, digest_size=16).digest(), request.digest)
