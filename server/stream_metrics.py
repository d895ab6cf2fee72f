"""How the event log stands, in Prometheus' words: the same from a server and from `larder ingest`."""

from collections.abc import Callable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from store.requests import PartitionStatus, StreamStatus

_GAUGES: dict[str, tuple[str, Callable[[PartitionStatus], float]]] = {
    "larder_stream_owned": ("1 if a worker owns the partition.", lambda each: each.owner is not None),
    "larder_stream_entries": ("Entries of a partition that wait to be applied or to land.", lambda each: each.entries),
    "larder_stream_lag_seconds": ("Age of the oldest event that does not count yet.", lambda each: each.lag_seconds),
    "larder_stream_landing_lag_seconds": (
        "Age of the oldest event that may not have landed yet.",
        lambda each: each.landing_lag_seconds,
    ),
}
_COUNTERS: dict[str, tuple[str, Callable[[PartitionStatus], float]]] = {
    "larder_stream_appended_rows": (
        "Rows that came into a partition, copies for other entities included.",
        lambda each: each.appended_rows,
    ),
    "larder_stream_applied_rows": ("Rows of a partition that count online.", lambda each: each.applied_rows),
    "larder_stream_landed_rows": ("Rows of a partition that have landed.", lambda each: each.landed_rows),
}


def stream_metrics(status: StreamStatus) -> list[Metric]:
    """Returns the metrics of an event log."""
    families: list[Metric] = []
    for kind, described in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
        for name, (text, value_of) in described.items():
            family = kind(name, text, labels=["partition"])
            for each in status.partitions:
                family.add_metric([str(each.partition)], float(value_of(each)))
            families.append(family)
    dropped = "Dead letters that went for newer ones."
    return [
        *families,
        GaugeMetricFamily("larder_stream_dead_letters", "Rows kept that did not fit.", value=status.letters),
        CounterMetricFamily("larder_stream_dead_letters_dropped", dropped, value=status.dropped_letters),
    ]


class StreamCollector(Collector):
    """The metrics of an event log as it was when somebody last looked."""

    def __init__(self) -> None:
        self.status = StreamStatus()

    def collect(self) -> list[Metric]:
        """Returns the metrics."""
        return stream_metrics(self.status)
