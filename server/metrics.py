"""What the server counts, in Prometheus' words; right across workers when there are several.

With several workers `PROMETHEUS_MULTIPROC_DIR` is set before this module is imported (the client library looks at
it once), every worker keeps its values in files there, and a scrape of any worker adds up all of them.
"""

import asyncio
import contextlib
import os
import time
from bisect import bisect_left, bisect_right
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from server.monitor_metrics import MonitorCollector
from server.rates import LookupRates, rates_of
from server.stream_metrics import StreamCollector
from store.requests import LogTotals, LookupAnswer

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a tenth of a millisecond (a lookup) to minutes (a materialization), about three a decade.
_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
)  # fmt: skip


# From ten seconds to half a year.
_AGES_SECONDS = (10, 60, 600, 3_600, 6 * 3_600, 86_400, 3 * 86_400, 7 * 86_400, 30 * 86_400, 180 * 86_400)


_MANY_ROWS_MIN = 16
"""Rows of one lookup from which on their ages are counted alone; those of smaller ones are counted together."""


class _ManyAtOnce(Histogram):
    """A histogram that takes many values at once: a lookup of a hundred keys has three hundred row ages."""

    def observe_ages(self, now_us: int, event_us: Sequence[int]) -> None:
        """Counts the ages of many rows, in seconds; mostly all of them lie between the same bounds."""
        newest, oldest = (now_us - max(event_us)) / 1e6, (now_us - min(event_us)) / 1e6
        place = bisect_left(self._upper_bounds, newest)
        if bisect_left(self._upper_bounds, oldest) == place:
            self._sum.inc((now_us * len(event_us) - sum(event_us)) / 1e6)
            self._buckets[place].inc(len(event_us))
        else:
            self.observe_all([(now_us - us) / 1e6 for us in event_us])

    def observe_all(self, seconds: list[float]) -> None:
        """Counts all values."""
        self._sum.inc(sum(seconds))
        low, high = (bisect_left(self._upper_bounds, end) for end in (min(seconds), max(seconds)))
        if low == high:
            self._buckets[low].inc(len(seconds))
            return
        ordered = sorted(seconds)
        before = 0
        for place in range(low, high + 1):
            upto = bisect_right(ordered, self._upper_bounds[place])
            if upto > before:
                self._buckets[place].inc(upto - before)
                before = upto


class Metrics:
    """The counters, histograms and gauges of one worker.

    What requests count is kept until the event loop's turn ends, and then counted together: a counter behind a lock
    takes as long as a good part of a lookup, and a busy worker answers a dozen lookups in one turn.
    """

    def __init__(self, *, has_other_workers: bool = False) -> None:
        self.registry = CollectorRegistry()
        # Redis and files know these, so each worker tells all of them: nothing is to be added up.
        self.stream = StreamCollector()
        self.monitor = MonitorCollector()
        self._known_alike = CollectorRegistry()
        self._known_alike.register(self.stream)
        self._known_alike.register(self.monitor)
        self._folder = Path(os.environ[MULTIPROCESS_VARIABLE]) if has_other_workers else None
        self._since_us = time.time_ns() // 1_000 if self._folder is None else _began_us(self._folder)
        self.requests = Counter(
            "larder_requests_total", "Requests answered.", ["path", "method", "status"], registry=self.registry
        )
        self.latency = _ManyAtOnce(
            "larder_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.keys = Counter("larder_lookup_keys_total", "Entity rows looked up.", registry=self.registry)
        self.values = Counter(
            "larder_lookup_values_total", "Feature values answered.", ["view", "status"], registry=self.registry
        )
        self.view_rows = Counter(
            "larder_lookup_rows_total", "Entity rows looked up of each view.", ["view"], registry=self.registry
        )
        self.unknown_keys = Counter(
            "larder_lookup_unknown_keys_total",
            "Entity rows looked up whose key a view has nothing of.",
            ["view"],
            registry=self.registry,
        )
        self.future_rows = Counter(
            "larder_lookup_future_rows_total", "Rows looked up whose event time had not come.", registry=self.registry
        )
        self.overflows = Counter(
            "larder_lookup_overflows_total",
            "Windowed sums of integers beyond int64, answered as nulls.",
            registry=self.registry,
        )
        self.row_age = _ManyAtOnce(
            "larder_lookup_row_age_seconds",
            "Request time less event time of the rows looked up; below zero for rows whose time had not come.",
            ["view"],
            buckets=_AGES_SECONDS,
            registry=self.registry,
        )
        self.redis_round_trip = _ManyAtOnce(
            "larder_redis_round_trip_seconds",
            "Time from a batch of commands to its last reply, connecting included.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.is_registry_broken = self._gauge(
            "larder_registry_broken", "1 if the registry cannot be read well and the last good one serves."
        )
        # Resolved once: finding a labelled counter takes longer than counting.
        self._values_of = cache(self.values.labels)
        self._age_of = cache(self.row_age.labels)
        self._rows_of = cache(self.view_rows.labels)
        self._unknown_of = cache(self.unknown_keys.labels)
        self._requests_of = cache(self.requests.labels)
        self._latency_of = cache(self.latency.labels)
        self._is_counting = False
        self._lookups: list[LookupAnswer] = []
        self._answered: list[tuple[str, str, int, float]] = []
        self._round_trips: list[float] = []
        self.pushed_rows = Counter(
            "larder_pushed_rows_total", "Rows accepted by push and write.", registry=self.registry
        )
        self.served = Counter(
            "larder_served_vectors_total",
            "Vectors of logged feature services: logged, left out by sampling, dropped.",
            ["service", "outcome"],
            registry=self.registry,
        )
        self.served_failures = Counter(
            "larder_served_log_failures_total",
            "Log files that could not be written, and are tried again.",
            ["service"],
            registry=self.registry,
        )
        self.registry_age = self._gauge("larder_registry_age_seconds", "Time since the registry was last read well.")
        self.is_ready = self._gauge("larder_ready", "1 if lookups can be answered (the worst worker's).", "livemin")

    def _gauge(self, name: str, text: str, mode: str = "livemax") -> Gauge:
        return Gauge(name, text, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def count_lookup(self, answer: LookupAnswer) -> None:
        """Counts the keys of a lookup, the statuses of its values by view, and how old its rows are."""
        self._lookups.append(answer)
        self._count_soon()

    def count_request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Counts a request that was answered, and how long it took."""
        self._answered.append((path, method, status, seconds))
        self._count_soon()

    def count_round_trip(self, seconds: float) -> None:
        """Counts a round trip to Redis."""
        self._round_trips.append(seconds)
        self._count_soon()

    def count_logged(self, totals: LogTotals) -> None:
        """Counts what became of served vectors; called from the log's thread."""
        for outcome in ("logged", "sampled_out", "dropped"):
            if number := getattr(totals, outcome):
                self.served.labels(totals.service, outcome).inc(number)
        if totals.failures:
            self.served_failures.labels(totals.service).inc(totals.failures)

    def _count_soon(self) -> None:
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        """Counts what this turn of the event loop brought."""
        self._is_counting = False
        lookups, self._lookups = self._lookups, []
        answered, self._answered = self._answered, []
        round_trips, self._round_trips = self._round_trips, []
        if round_trips:
            self.redis_round_trip.observe_all(round_trips)
        seconds_of: defaultdict[str, list[float]] = defaultdict(list)
        for path, _, _, seconds in answered:
            seconds_of[path].append(seconds)
        for path, each in seconds_of.items():
            self._latency_of(path).observe_all(each)
        for labels, count in Counts((path, method, status) for path, method, status, _ in answered).items():
            self._requests_of(*labels).inc(count)
        if lookups:
            self._count_lookups(lookups)

    def _count_lookups(self, lookups: list[LookupAnswer]) -> None:
        self.keys.inc(sum([answer.row_count for answer in lookups]))
        if future_rows := sum([answer.future_rows for answer in lookups]):
            self.future_rows.inc(future_rows)
        if overflows := sum([answer.overflows for answer in lookups]):
            self.overflows.inc(overflows)
        ages: defaultdict[str, list[float]] = defaultdict(list)
        totals: defaultdict[tuple[str, str], int] = defaultdict(int)
        rows: defaultdict[str, int] = defaultdict(int)
        for answer in lookups:
            for view, event_us in answer.view_rows:
                rows[view] += answer.row_count
                if len(event_us) < _MANY_ROWS_MIN:
                    ages[view] += [(answer.now_us - us) / 1e6 for us in event_us]
                else:
                    self._age_of(view).observe_ages(answer.now_us, event_us)
            for labels, count in answer.status_counts.items():
                totals[labels] += count
            for view, count in answer.unknown_keys:
                self._unknown_of(view).inc(count)
        for view, seconds in ages.items():
            if seconds:
                self._age_of(view).observe_all(seconds)
        for labels, count in totals.items():
            self._values_of(*labels).inc(count)
        for view, count in rows.items():
            self._rows_of(view).inc(count)

    def scrape(self) -> bytes:
        """Returns all metrics of the server in Prometheus' text format."""
        self._count()
        if self._folder is not None:
            _forget_dead_workers(self._folder)
        return generate_latest(self._of_all_workers()) + generate_latest(self._known_alike)

    def rates(self) -> LookupRates:
        """Returns what lookups were answered with since the server began; may be called from any thread."""
        return rates_of(self._of_all_workers().collect(), self._since_us)

    def _of_all_workers(self) -> CollectorRegistry:
        if self._folder is None:
            return self.registry
        everything = CollectorRegistry()
        MultiProcessCollector(everything, path=str(self._folder))
        return everything


def _began_us(folder: Path) -> int:
    """Returns when the first worker of this start began: the others, and those that replace it, find its mark."""
    mark = folder / "began"
    with contextlib.suppress(FileExistsError):
        mark.touch(exist_ok=False)
    return mark.stat().st_mtime_ns // 1_000


def _forget_dead_workers(folder: Path) -> None:
    """Drops the gauges of workers that are gone; their counters stay, as what was counted did happen."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(folder))
