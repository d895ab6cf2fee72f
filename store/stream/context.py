"""What all that works on the stream of one project shares: settings, Redis, the log, and where rows go."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import FeatureStore
from feast.data_source import KafkaSource, PushSource
from feast.repo_config import RepoConfig

from store.clock import Clock, clock_for
from store.errors import ConfigError, LogEntryError, UnknownObject
from store.feature_store import pushed_views
from store.kernel.definitions import ViewDefinition
from store.limits import REGISTRY_REFRESH_SECONDS
from store.offline.accepted_events import end_keeping
from store.online import RedisOnlineStore, RedisOnlineStoreConfig
from store.online.client import RedisSession
from store.online.dead_letters import DeadLetter, keep_letters
from store.online.stream_log import StreamLog, load_schema, open_log
from store.snapshot import RegistrySnapshots, load_config
from store.stream.routes import Route, logged_windows, route_of
from store.stream.rows import parsed_schema


class StreamContext:
    """The stream of one project, as one process works on it.

    Attributes:
        log: the event log.
        letters: dead letters kept by this process so far.
    """

    def __init__(self, repo_path: Path, config: RepoConfig | None = None) -> None:
        """Reads the settings and connects.

        Raises:
            ConfigError: the online store is not Larder's, or the log has other partitions than the settings say.
            OnlineStoreError: Redis cannot serve.
        """
        self.config = load_config(repo_path) if config is None else config
        if not isinstance(self.config.online_store, RedisOnlineStoreConfig):
            raise ConfigError(
                f"online_store type {self.config.online_store.type!r} in {str(repo_path)!r} has no event log; use "
                "store.online.RedisOnlineStore"
            )
        self.project: str = self.config.project
        self.clock: Clock = clock_for(repo_path)
        self.letters = 0
        self.repo_path = repo_path
        self._snapshots = RegistrySnapshots(self.config, repo_path)
        self._refreshed = float("-inf")
        self._routes: dict[str, Route] = {}
        self._version: object = None
        self._logged: Mapping[str, ViewDefinition] | None = None
        self._online = RedisOnlineStore()
        self.session: RedisSession = self._online.session(self.config)
        self.knowledge = self._online.knowledge(self.project)
        self._schemas: dict[bytes, pa.Schema] = {}
        self.log: StreamLog = self.open_log()

    def open_log(self) -> StreamLog:
        """Opens the log anew: it may have been lost with all of Redis, and is then another one."""
        self.log = self.session.hold(open_log(self.knowledge, self.config.online_store.stream_partitions))
        return self.log

    @property
    def key_ttl_seconds(self) -> int | None:
        """Seconds after which an entity key expires, None for never."""
        ttl: int | None = self.config.online_store.key_ttl_seconds
        return ttl

    def another_session(self) -> RedisSession:
        """Returns a session of its own, for another thread."""
        return RedisSession(self.session.target)

    def close(self) -> None:
        """Closes the connections."""
        self._online.close_synchronous()

    # --- definitions --------------------------------------------------------------------------

    def refresh(self, *, is_due: bool = True) -> None:
        """Takes note of changed definitions; not due, only if looking is quick or the last look is some time ago."""
        now = time.monotonic()
        is_recent = now - self._refreshed < REGISTRY_REFRESH_SECONDS
        if not is_due and is_recent and not self._snapshots.is_quick:
            return
        self._refreshed = now
        self._snapshots.refresh()
        if not self._snapshots.is_loaded:
            return
        snapshot = self._snapshots.current()
        if snapshot is not self._version:
            self._version = snapshot
            self._routes.clear()
            self._logged = None

    @property
    def store(self) -> FeatureStore:
        """Feast's store over the registry as last seen.

        Raises:
            RegistryUnavailable: it was never seen.
        """
        if self._version is None:
            self.refresh()
        return self._snapshots.current().store

    def views_of(self, push_source: str) -> list[Any]:
        """Returns the views that a push source or a Kafka source feeds, by name.

        Raises:
            UnknownObject: there is none.
        """
        return pushed_views(self.store, push_source, kinds=(PushSource, KafkaSource))

    def route(self, push_source: str) -> Route | None:
        """Returns the route of a push source's rows, None where it feeds no view.

        Raises:
            DefinitionError: a view that cannot be served as declared.
        """
        if push_source not in self._routes:
            # It may have been declared a moment ago.
            self.refresh()
            try:
                views = self.views_of(push_source)
            except UnknownObject:
                return None
            self._routes[push_source] = route_of(self.config, push_source, views)
        return self._routes[push_source]

    @property
    def logged_views(self) -> Mapping[str, ViewDefinition]:
        """The windowed views whose served values are logged, by their names in Redis; another one after a change."""
        if self._logged is None:
            self._logged = logged_windows(self.store)
            end_keeping(self.repo_path, self._logged.keys())
        return self._logged

    # --- rows -----------------------------------------------------------------------------------

    def schema(self, tag: bytes) -> pa.Schema:
        """Returns the schema of logged rows.

        Raises:
            LogEntryError: it is not known.
        """
        if tag not in self._schemas:
            content = self.session.hold(load_schema(self.project, tag))
            if content is None:
                raise LogEntryError(
                    f"logged rows of project {self.project!r} carry schema tag {tag.hex()}, whose schema is not in "
                    "Redis; restore the whole backup"
                )
            self._schemas[tag] = parsed_schema(content)
        return self._schemas[tag]

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps rows that do not fit."""
        if letters:
            self.letters += self.session.hold(keep_letters(self.project, letters))
