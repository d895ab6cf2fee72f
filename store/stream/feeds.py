"""The feeds of a project, and those of them that one worker reads."""

import time
from collections.abc import Sequence

import structlog
from feast.data_source import KafkaSource, PushSource

from store.errors import DefinitionError, LarderError, OnlineStoreError, RegistryUnavailable
from store.limits import REGISTRY_REFRESH_SECONDS
from store.stream.context import StreamContext
from store.stream.feeding import Feed, Feeder
from store.stream.inbox import Inbox
from store.stream.kafka import KafkaTopic
from store.windows_from_feast import is_windowed

_RETRY_SECONDS = 0.5
"""Before a feed is read again whose rows could not be passed on: the log is full, or a source away."""

_TOPIC_SECONDS = 0.02
"""Between two looks at topics that had nothing."""

_log = structlog.get_logger("larder.ingest")


class Feeds:
    """The feeds that one worker reads."""

    def __init__(self, context: StreamContext) -> None:
        self._context = context
        self._feeders: dict[str, Feeder] = {}
        self._known: dict[str, Feed] = {}
        self._looked = float("-inf")
        self._retry_at: dict[str, float] = {}

    def tasks(self) -> Sequence[str]:
        """Returns the names of all feeds that are declared, looking into the registry from time to time."""
        if time.monotonic() - self._looked >= REGISTRY_REFRESH_SECONDS:
            self._looked = time.monotonic()
            try:
                self._known = {feed.task: feed for feed in self._declared()}
            except RegistryUnavailable as error:
                _log.warning("feeds are not known", error=str(error))
        return sorted(self._known)

    def _declared(self) -> list[Feed]:
        context = self._context
        context.refresh(is_due=False)
        views = [*context.store.list_feature_views(allow_cache=True), *context.store.list_stream_feature_views(True)]
        feeds: dict[str, Feed] = {}
        for view in views:
            source = view.stream_source
            if isinstance(source, PushSource):
                feeds.setdefault(source.name, Inbox(context, source.name))
            elif isinstance(source, KafkaSource) and is_windowed(view):
                try:
                    feeds.setdefault(source.name, KafkaTopic(context, source, view))
                except DefinitionError as error:
                    _log.error("topic is not read", error=str(error))
        return list(feeds.values())

    def begin(self, task: str) -> None:
        """Begins to read a feed."""
        self._feeders[task] = Feeder(self._context, self._known[task])

    def end(self, task: str) -> None:
        """Stops reading a feed."""
        feeder = self._feeders.pop(task, None)
        if feeder is not None:
            feeder.close()

    def owned(self) -> list[str]:
        """Returns the feeds that are read."""
        return list(self._feeders)

    def inboxes(self) -> list[bytes]:
        """Returns the streams of the inboxes that are read and have not just failed."""
        now = time.monotonic()
        return [
            feeder.feed.key
            for task, feeder in self._feeders.items()
            if isinstance(feeder.feed, Inbox) and self._retry_at.get(task, 0.0) <= now
        ]

    def wait_seconds_max(self) -> float:
        """Returns how long a worker may wait for something else: Kafka cannot be waited for together with Redis."""
        return _TOPIC_SECONDS if any(isinstance(f.feed, KafkaTopic) for f in self._feeders.values()) else float("inf")

    def step(self) -> bool:
        """Passes on what the feeds have now; whether there was anything."""
        is_busy = False
        for task, feeder in self._feeders.items():
            if time.monotonic() < self._retry_at.get(task, 0.0):
                continue
            try:
                is_busy = feeder.step() or is_busy
            except LarderError as error:
                _log.warning("feed waits", feed=task, error=str(error), is_redis=isinstance(error, OnlineStoreError))
                self._retry_at[task] = time.monotonic() + _RETRY_SECONDS
        return is_busy
