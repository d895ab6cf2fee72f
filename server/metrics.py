"""What the server counts, in Prometheus' words; right across workers when there are several.

With several workers `PROMETHEUS_MULTIPROC_DIR` is set before this module is imported (the client library looks at
it once), every worker keeps its values in files there, and a scrape of any worker adds up all of them.
"""

import os
from bisect import bisect_right
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from store.clock import to_us
from store.requests import LookupAnswer

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUSES = ("PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE")

# From a tenth of a millisecond (a lookup) to minutes (a materialization), about three a decade.
_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
)  # fmt: skip


# From ten seconds to half a year.
_AGES_SECONDS = (10, 60, 600, 3_600, 6 * 3_600, 86_400, 3 * 86_400, 7 * 86_400, 30 * 86_400, 180 * 86_400)


class _Ages(Histogram):
    """A histogram that takes many values at once: a lookup of a hundred keys has three hundred of them."""

    def observe_all(self, seconds: list[float]) -> None:
        """Counts all values."""
        self._sum.inc(sum(seconds))
        ordered = sorted(seconds)
        before = 0
        for bucket, bound in zip(self._buckets, self._upper_bounds, strict=True):
            upto = len(ordered) if bound == float("inf") else bisect_right(ordered, bound)
            if upto > before:
                bucket.inc(upto - before)
                before = upto


class Metrics:
    """The counters, histograms and gauges of one worker."""

    def __init__(self, *, has_other_workers: bool = False) -> None:
        self.registry = CollectorRegistry()
        self._folder = Path(os.environ[MULTIPROCESS_VARIABLE]) if has_other_workers else None
        self.requests = Counter(
            "larder_requests_total", "Requests answered.", ["path", "method", "status"], registry=self.registry
        )
        self.latency = Histogram(
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
        self.future_rows = Counter(
            "larder_lookup_future_rows_total", "Rows looked up whose event time had not come.", registry=self.registry
        )
        self.row_age = _Ages(
            "larder_lookup_row_age_seconds",
            "Request time less event time of the rows looked up; below zero for rows whose time had not come.",
            ["view"],
            buckets=_AGES_SECONDS,
            registry=self.registry,
        )
        self.redis_round_trip = Histogram(
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
        self.requests_of = cache(self.requests.labels)
        self.latency_of = cache(self.latency.labels)
        self.pushed_rows = Counter(
            "larder_pushed_rows_total", "Rows accepted by push and write.", registry=self.registry
        )
        self.registry_age = self._gauge("larder_registry_age_seconds", "Time since the registry was last read well.")
        self.is_ready = self._gauge("larder_ready", "1 if lookups can be answered (the worst worker's).", "livemin")

    def _gauge(self, name: str, text: str, mode: str = "livemax") -> Gauge:
        return Gauge(name, text, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def count_lookup(self, answer: LookupAnswer, row_count: int) -> None:
        """Counts the keys of a lookup and the statuses of its values by view."""
        self.keys.inc(row_count)
        self.future_rows.inc(answer.future_rows)
        now_us = to_us(answer.request_time)
        for read, event_us in answer.view_rows:
            if event_us:
                self._age_of(read).observe_all([(now_us - us) / 1e6 for us in event_us])
        totals: dict[tuple[str, str], int] = {}
        columns: dict[tuple[str, int], list[Any]] = {}
        for view, statuses in zip(answer.views, answer.statuses, strict=True):
            if view is not None:
                # Columns of one view share their statuses where these are equal.
                columns.setdefault((view, id(statuses)), [statuses, 0])[1] += 1
        for (view, _), (statuses, times) in columns.items():
            left = row_count
            for status in STATUSES:
                if not left:
                    break
                count = statuses.count(status)
                if count:
                    totals[view, status] = totals.get((view, status), 0) + count * times
                    left -= count
        for (view, status), count in totals.items():
            self._values_of(view, status).inc(count)

    def scrape(self) -> bytes:
        """Returns all metrics of the server in Prometheus' text format."""
        if self._folder is None:
            return generate_latest(self.registry)
        _forget_dead_workers(self._folder)
        everything = CollectorRegistry()
        MultiProcessCollector(everything, path=str(self._folder))
        return generate_latest(everything)


def _forget_dead_workers(folder: Path) -> None:
    """Drops the gauges of workers that are gone; their counters stay, as what was counted did happen."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(folder))
