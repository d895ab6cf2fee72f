"""`larder ingest`: the worker of the event log, as a process that serves its metrics and stops when it is told to."""

import signal
import threading
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.logs import configure_logs
from server.stream_metrics import stream_metrics
from store.errors import InputError, OnlineStoreError
from store.online.stream_status import read_status
from store.stream.context import StreamContext
from store.stream.worker import Worker


def run(repo: Path, partitions: str, metrics: tuple[str, int] | None) -> int:
    """Works on the event log of a repo until SIGTERM or SIGINT; returns the exit status.

    Args:
        partitions: to which the worker restricts itself, as in `0,3-5`; "" for any.
        metrics: host and port on which it serves its metrics.

    Raises:
        InputError: no such partitions.
        ConfigError, OnlineStoreError: the log cannot be worked on.
    """
    context = StreamContext(repo.resolve())
    try:
        worker = Worker(context, parsed_partitions(partitions, context.log.partitions) if partitions else None)
        # From here on: what is wrong at the start is for a person to read.
        configure_logs()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        if metrics is not None:
            _serve_metrics(context, *metrics)
        worker.run()
    finally:
        context.close()
    return 0


def parsed_partitions(text: str, count: int) -> list[int]:
    """Returns the partitions that `0,3-5` names.

    Raises:
        InputError: it names none, or one that there is not.
    """
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise InputError(f"--partitions {text!r}: {part!r} is no partition; write them as in 0,3-5")
        found.update(range(int(low), int(high or low) + 1))
        if not found or max(found) >= count:
            raise InputError(f"--partitions {text!r}: the event log has the partitions 0 to {count - 1}")
    return sorted(found)


class _StreamMetrics(Collector):
    """Asks Redis how the log stands at each scrape."""

    def __init__(self, context: StreamContext) -> None:
        self._session = context.another_session()
        self._context = context
        self._lock = threading.Lock()

    def collect(self) -> list[Metric]:
        """Returns the metrics; only that Redis is away, if it is."""
        up = GaugeMetricFamily("larder_stream_up", "1 if Redis answers the worker.")
        try:
            with self._lock:
                status = self._session.hold(read_status(self._context.project, self._context.clock.now_us()))
        except OnlineStoreError:
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *stream_metrics(status)]


def _serve_metrics(context: StreamContext, host: str, port: int) -> None:
    registry = CollectorRegistry()
    registry.register(_StreamMetrics(context))
    try:
        start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise InputError(f"metrics on {host}:{port}: {error.strerror or error}; give a free port") from error
