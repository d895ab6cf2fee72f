"""How fresh views are: the newest event of each in its source, and among what Redis serves."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from feast import OnDemandFeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.clock import Clock, said, to_us
from store.definitions_from_feast import batch_source_of, ttl_us, view_definition
from store.errors import ConfigError, LarderError, OnlineStoreError
from store.limits import FRESHNESS_KEPT_SECONDS, FRESHNESS_PAUSE_SHARE
from store.offline.newest_event import NewestEventReader, NewestEvents
from store.offline.sources import file_source
from store.online import RedisOnlineStore
from store.online.newest_reads import ServedView, read_newest
from store.snapshot import RegistrySnapshots, Snapshot

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ViewFreshness:
    """The newest events of one view, in microseconds since the epoch; what is not known is None.

    Attributes:
        offline_newest_us: of its batch source, landed rows included, at or before now.
        offline_future_us: of the same, the last event whose time has not come; such rows count for nothing else here.
        online_newest_us: of what came into what Redis serves of it; erased and expired rows came in too.
        offline_problem: why there is no `offline_newest_us`, a sentence; likewise the next one. A view without a batch
            source or whose rows are not kept online has neither time nor problem.
        ttl_seconds: how old a row may be to be answered, None for no limit (as of a windowed view).
        materialized_until_us: the end of the last materialization that the registry knows of.
    """

    view: str
    offline_newest_us: int | None = None
    online_newest_us: int | None = None
    offline_problem: str | None = None
    online_problem: str | None = None
    offline_future_us: int | None = None
    ttl_seconds: float | None = None
    materialized_until_us: int | None = None


@dataclass(frozen=True, slots=True)
class _Watched:
    """A view of the registry, as far as its freshness wants it."""

    known: ViewFreshness
    source: Any
    stored: ServedView | None


class FreshnessReader:
    """Reads how fresh all views are, off the event loop; a reading is told for some seconds.

    Files are read in a thread, and what was learnt of them is kept; nothing here is ever on a lookup's way.
    """

    def __init__(
        self, config: RepoConfig, online: RedisOnlineStore, clock: Clock, snapshots: RegistrySnapshots
    ) -> None:
        self._config = config
        self._online = online
        self._clock = clock
        self._snapshots = snapshots
        self._sources = NewestEventReader()
        self._watched: tuple[Snapshot, list[_Watched]] | None = None
        self._known: list[ViewFreshness] = []
        self._read_at = float("-inf")
        self._cpu_seconds = 0.0
        self._reading: asyncio.Task[list[ViewFreshness]] | None = None

    async def read(self, kept_seconds: float = FRESHNESS_KEPT_SECONDS) -> list[ViewFreshness]:
        """Returns how fresh the views are, by name; as of a reading that is `kept_seconds` old at most.

        A reading that took a core for long is told for longer (`FRESHNESS_PAUSE_SHARE`).

        Raises:
            RegistryUnavailable: there is none yet.
        """
        snapshot = self._snapshots.current()
        is_of_this = self._watched is not None and self._watched[0] is snapshot
        kept_seconds = max(kept_seconds, FRESHNESS_PAUSE_SHARE * self._cpu_seconds)
        if is_of_this and time.monotonic() < self._read_at + kept_seconds:
            return self._known
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_anew(snapshot))
        # Others wait for the same reading: one of them that goes away must not end it.
        return await asyncio.shield(self._reading)

    async def _read_anew(self, snapshot: Snapshot) -> list[ViewFreshness]:
        watched, watch_seconds = await asyncio.to_thread(_timed, self._watch, snapshot)
        now_us = self._clock.now_us()
        online, online_problem = await self._read_online([each.stored for each in watched if each.stored is not None])
        found, read_seconds = await asyncio.to_thread(_timed, self._read_offline, watched, now_us)
        noted = iter(online)
        self._known = [
            each
            if of_view.stored is None
            else replace(each, online_newest_us=next(noted, None), online_problem=online_problem)
            for of_view, each in zip(watched, found, strict=True)
        ]
        self._read_at, self._cpu_seconds = time.monotonic(), watch_seconds + read_seconds
        return self._known

    def _watch(self, snapshot: Snapshot) -> list[_Watched]:
        """Returns the views of a registry, made once for each state of it."""
        if self._watched is None or self._watched[0] is not snapshot:
            views = sorted(snapshot.store.list_all_feature_views(allow_cache=True), key=lambda view: view.name)
            watched = [self._watched_view(view) for view in views if _has_rows(view)]
            self._watched = snapshot, watched
        return self._watched[1]

    def _watched_view(self, view: Any) -> _Watched:
        is_versioned = self._config.registry.enable_online_feature_view_versioning
        ends_us = [to_us(end) for _, end in getattr(view, "materialization_intervals", ())]
        known = ViewFreshness(view.name, materialized_until_us=max(ends_us, default=None))
        stored = None
        try:
            definition = view_definition(self._config.project, view, is_versioned=is_versioned)
        except LarderError as error:
            # It was registered by another version, or with other plug-ins.
            return _Watched(replace(known, offline_problem=str(error)), None, None)
        if not definition.windows and (limit_us := ttl_us(view)):
            known = replace(known, ttl_seconds=limit_us / 1e6)
        if getattr(view, "online", True):
            stored = ServedView(definition.name, definition.fingerprint if definition.windows else "")
        return _Watched(known, batch_source_of(view), stored)

    async def _read_online(self, views: Sequence[ServedView]) -> tuple[list[int | None], str | None]:
        try:
            session = await self._online.async_session(self._config)
            return await session.hold(read_newest(self._config.project, views)), None
        except (OnlineStoreError, ConfigError) as error:
            return [], str(error)

    def _read_offline(self, watched: Sequence[_Watched], now_us: int) -> list[ViewFreshness]:
        """Returns what the sources say, each read once for all views that have it."""
        said_of: dict[object, tuple[NewestEvents | None, str | None]] = {}
        found = []
        for each in watched:
            if each.source is None:
                found.append(each.known)
                continue
            key = _key_of(each.source)
            if key not in said_of:
                said_of[key] = self._read_source(each.source, now_us)
            newest, problem = said_of[key]
            if newest is None:
                found.append(replace(each.known, offline_problem=problem))
            else:
                found.append(
                    replace(
                        each.known,
                        offline_newest_us=newest.newest_us,
                        offline_future_us=newest.last_us,
                        offline_problem=problem,
                    )
                )
        return found

    def _read_source(self, source: Any, now_us: int) -> tuple[NewestEvents | None, str | None]:
        try:
            declared = file_source(source, f"source {source.name!r}")
            newest = self._sources.newest(self._config, declared, now_us)
        except LarderError as error:
            return None, str(error)
        return newest, None if newest.newest_us is not None else _nothing(declared, newest, now_us)


def _timed(work: Callable[..., Answer], *arguments: Any) -> tuple[Answer, float]:
    """Returns what work gives, and how many seconds of a core this thread took for it."""
    began = time.thread_time()
    return work(*arguments), time.thread_time() - began


def _nothing(source: FileSource, newest: NewestEvents, now_us: int) -> str:
    """Returns why a source that can be read has no newest event."""
    if newest.last_us is None:
        return f"source {source.name!r} has no row with an event time; fill it"
    return (
        f"source {source.name!r} has rows from the future only, up to {said(newest.last_us)}, as the clock says "
        f"{said(now_us)}; correct the clock, or the event times and their zone"
    )


def _has_rows(view: Any) -> bool:
    return not isinstance(view, OnDemandFeatureView) or bool(view.write_to_online_store)


def _key_of(source: Any) -> object:
    """Returns what is equal for sources with the same rows and timestamp column."""
    if not isinstance(source, FileSource):
        return source.name
    kind = type(source.file_format).__name__
    return source.path, kind, source.timestamp_field, tuple(sorted(source.field_mapping.items()))
