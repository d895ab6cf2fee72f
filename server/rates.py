"""What lookups were answered with since the server began, by view: read from the counters of all workers."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.core import Metric

ROWS, UNKNOWN, VALUES = "larder_lookup_rows", "larder_lookup_unknown_keys", "larder_lookup_values"


@dataclass(slots=True)
class ViewRates:
    """Of one view: entity rows looked up, those whose key it has nothing of, and values by their status."""

    view: str
    rows: int = 0
    unknown_keys: int = 0
    statuses: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LookupRates:
    """The same of all views, by name, since an instant of the system's clock.

    Units: `since_us` is microseconds since the epoch. An on-demand view has values and no rows of its own.
    """

    since_us: int
    views: tuple[ViewRates, ...]


def rates_of(families: Iterable[Metric], since_us: int) -> LookupRates:
    """Returns what the counters of lookups say."""
    views: dict[str, ViewRates] = {}
    for family in families:
        if family.name not in {ROWS, UNKNOWN, VALUES}:
            continue
        for sample in family.samples:
            if not sample.name.endswith("_total"):
                continue
            name = sample.labels["view"]
            rates = views.setdefault(name, ViewRates(name))
            if family.name == ROWS:
                rates.rows = int(sample.value)
            elif family.name == UNKNOWN:
                rates.unknown_keys = int(sample.value)
            else:
                rates.statuses[sample.labels["status"]] = int(sample.value)
    for rates in views.values():
        rates.statuses = dict(sorted(rates.statuses.items()))
    return LookupRates(since_us, tuple(views[name] for name in sorted(views)))
