"""What the handlers of one worker share: the store, the metrics, and the places for long work."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import structlog

from server.auth import TokenTable
from server.limits import GAUGE_SECONDS, MATERIALIZE_CONCURRENT_MAX, PUSH_CONCURRENT_MAX
from server.metrics import Metrics
from server.pages.client import PageProcess
from server.retrieval.client import Retrievals
from server.threads import Slots
from store.errors import LarderError

_log = structlog.get_logger("larder.server")

if TYPE_CHECKING:
    from starlette.requests import Request

    from store.service import StoreService


@dataclass(frozen=True, slots=True)
class ServerState:
    """What one worker's handlers share."""

    store: "StoreService"
    metrics: Metrics
    retrievals: Retrievals
    tokens: TokenTable | None = None
    pages: PageProcess = field(init=False)
    push_slots: Slots = field(default_factory=lambda: Slots("large pushes", PUSH_CONCURRENT_MAX))
    materialize_slots: Slots = field(default_factory=lambda: Slots("materializations", MATERIALIZE_CONCURRENT_MAX))

    def __post_init__(self) -> None:
        # Its process is forked from the zygote of retrievals.
        object.__setattr__(self, "pages", PageProcess(self.retrievals.begin_pages))

    async def renew_gauges(self) -> None:
        """Renews the gauges that describe this worker; asks Redis, which may take as long as its deadline."""
        readiness = await self.store.readiness()
        self.metrics.is_ready.set(readiness.is_ready)
        self.metrics.registry_age.set(readiness.registry_age_seconds)
        self.metrics.is_registry_broken.set(readiness.registry_problem is not None)
        self.metrics.stream.status = readiness.stream

    async def keep_gauges_fresh(self) -> None:
        """Renews the gauges for as long as the worker lives."""
        while True:
            try:
                await self.renew_gauges()
            except Exception as error:  # noqa: BLE001 - the edge of a scheduled job: told, and done again
                self.metrics.is_ready.set(0)
                _log.error("gauges cannot be renewed", exc_info=error)
            await asyncio.sleep(GAUGE_SECONDS)

    async def renew_monitor(self) -> None:
        """Renews what monitoring tells: looks at sources and at Redis, if nobody has for a while."""
        try:
            self.metrics.monitor.views = await self.store.freshness(GAUGE_SECONDS)
        except LarderError:
            # Without a registry there are no views; readiness says so.
            self.metrics.monitor.views = ()
        self.metrics.monitor.audit, _ = await asyncio.to_thread(self.store.last_audit)
        self.metrics.monitor.drift = await asyncio.to_thread(self.store.drift_states)

    async def keep_monitor_fresh(self) -> None:
        """Renews what monitoring tells for as long as the worker lives; never in the way of the gauges above."""
        while True:
            try:
                await self.renew_monitor()
            except Exception as error:  # noqa: BLE001 - the edge of a scheduled job: told, and done again
                self.metrics.monitor.views, self.metrics.monitor.audit, self.metrics.monitor.drift = (), None, ()
                _log.error("monitoring cannot be renewed", exc_info=error)
            await asyncio.sleep(GAUGE_SECONDS)


def state_of(request: "Request") -> ServerState:
    """Returns what the handlers of a request's server share."""
    return cast("ServerState", request.app.state.larder)
