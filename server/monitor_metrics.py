"""What monitoring knows, in Prometheus' words: freshness of views and the last audit; the same from every worker."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from store.monitor.audits import KeptAudit
    from store.monitor.freshness import ViewFreshness


class MonitorCollector(Collector):
    """The gauges of monitoring as of when somebody last looked; what is not known has no value.

    Ages are reckoned at the scrape, so that they grow also while nobody looks.

    Attributes:
        now_us: the repo's clock.
    """

    def __init__(self) -> None:
        self.now_us: Callable[[], int] = lambda: 0
        self.views: Sequence[ViewFreshness] = ()
        self.audit: KeptAudit | None = None

    def collect(self) -> list[Metric]:
        """Returns the metrics."""
        now_us = self.now_us()
        offline, online, limits = (
            GaugeMetricFamily(name, text, labels=["view"])
            for name, text in (
                ("larder_view_offline_freshness_seconds", "Now less the newest event of the view's source."),
                ("larder_view_online_freshness_seconds", "Now less the newest event of what is served of the view."),
                ("larder_view_ttl_seconds", "How old a row of the view may be to be answered."),
            )
        )
        for view in self.views:
            if view.offline_newest_us is not None:
                offline.add_metric([view.view], (now_us - view.offline_newest_us) / 1e6)
            if view.online_newest_us is not None:
                online.add_metric([view.view], (now_us - view.online_newest_us) / 1e6)
            if view.ttl_seconds is not None:
                limits.add_metric([view.view], view.ttl_seconds)
        failed = GaugeMetricFamily("larder_audit_failed", "1 if the last audit found what it cannot explain.")
        age = GaugeMetricFamily("larder_audit_age_seconds", "Time since the last audit.")
        if self.audit is not None:
            failed.add_metric([], float(not self.audit.is_clean))
            age.add_metric([], (now_us - self.audit.ran_us) / 1e6)
        return [offline, online, limits, failed, age]
