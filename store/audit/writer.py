"""The log of a server worker: a thread that makes columns of served vectors, and files of those, beside the lookups."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count, groupby

import structlog

from store.audit.queue import ServedQueue
from store.audit.retention import remove_outdated
from store.audit.service_log import ServiceLog, Surroundings
from store.limits import (
    SERVED_CLOSE_SECONDS,
    SERVED_DRAIN_SECONDS,
    SERVED_SLICE_VALUES,
    SERVED_SWEEP_SECONDS,
)
from store.online.conversations import Knowledge
from store.online.lookup import Lookup
from store.online.stored_rows import ViewRows
from store.requests import LogTotals

_log = structlog.get_logger("larder.served")


class ServedLog:
    """Logs what its queue holds; begins with the first vector, and ends with `close`, which writes what is left.

    Attributes:
        queue: where lookups leave their answers.
        tell: is told, in the log's thread, what became of vectors.
    """

    def __init__(self, around: Surroundings, queue: ServedQueue | None = None) -> None:
        self.queue = ServedQueue() if queue is None else queue
        self.tell: Callable[[LogTotals], None] = lambda _: None
        self._around = around
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._worker = secrets.token_hex(6)
        self._requests = count()
        self._services: dict[str, ServiceLog] = {}
        self._swept: float | None = None

    def take(self, lookup: Lookup, found: Sequence[ViewRows], now_us: int, knowledge: Knowledge) -> None:
        """Takes the answer to a lookup of a logged service; never waits."""
        self.queue.offer(lookup, found, now_us, knowledge)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="larder-served-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Writes what is left and ends; waits for it so long and no longer."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(SERVED_CLOSE_SECONDS)
            if self._thread.is_alive():
                _log.error("the last served vectors are not written yet and are given up")

    def _run(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._stop.wait(SERVED_DRAIN_SECONDS)
            try:
                self.turn(is_last=is_over)
            except Exception as error:  # noqa: BLE001 - the edge of a scheduled job: told, and done again
                _log.error("served vectors cannot be logged", exc_info=error)

    def turn(self, *, is_last: bool = False) -> None:
        """Takes in what waits, and writes what is due; at last all."""
        # What comes meanwhile is for the next turn: a few vectors cost almost what thousands do, so a turn that took
        # them as well would not end as long as there are lookups, and compete with each of them.
        for vectors in self.queue.waiting(SERVED_SLICE_VALUES):
            for plan, of_plan in groupby(vectors, lambda served: served.lookup.plan):
                assert plan.logging is not None
                service = self._service(plan.logging.service)
                service.follow(plan)
                service.take([(f"{self._worker}-{next(self._requests)}", served) for served in of_plan])
        # A service of which nothing comes, as all is left out, has counts to tell all the same.
        for name in list(self.queue.counts):
            service = self._service(name)
            service.follow(self.queue.counts[name].plan)
            service.write_if_due(is_last=is_last)
            if (told := service.totals()) is not None:
                self.tell(told)
        self._sweep()

    def _service(self, name: str) -> ServiceLog:
        service = self._services.get(name)
        if service is None:
            service = ServiceLog(name, self.queue.counts[name], self._around, self._worker)
            self._services[name] = service
        return service

    def _sweep(self) -> None:
        now = time.monotonic()
        if self._swept is not None and now < self._swept + SERVED_SWEEP_SECONDS:
            return
        self._swept = now
        for folder in {folder for service in self._services.values() for folder in service.folders}:
            try:
                remove_outdated(folder, self._around.now_us(), self._around.retention_days)
            except OSError as error:
                _log.error("log files past their retention cannot be removed", folder=str(folder), exc_info=error)
