"""The demo's use of Feast in its own process: opening the repo quietly, and asking whether Redis is filled."""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast import FeatureStore

_PROBES = (
    ("origin_weather:temperature_f", {"origin": "JFK"}),
    ("origin_hourly:overdue_departures", {"origin": "JFK"}),
    ("plane_facts:seats", {"tailnum": "N10156"}),
    ("carrier_facts:airline", {"carrier": "UA"}),
    ("origin_departures:origin_departure_delay_1d", {"origin": "JFK"}),
    ("carrier_departures:carrier_departure_delay_1d", {"carrier": "UA"}),
    ("plane_arrivals:plane_arrival_delay_7d", {"tailnum": "N328AA"}),
    ("route_arrivals:route_arrival_delay_30d", {"origin": "JFK", "dest": "LAX"}),
)
"""One value of each view that is there whenever Redis is filled."""


class _SaidOnPurpose(logging.Filter):
    """Drops Feast's remark that our registry setting is meant for SQL registries.

    It is there because the file registry needs it too: without it, Feast refuses reads for as long as a view is
    being materialized, and for ever after a run that was killed.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "serve_features_while_materializing" not in record.getMessage()


def open_feature_store(repo: Path) -> "FeatureStore":
    """Returns Feast's own `FeatureStore` of a repo."""
    logger = logging.getLogger("feast.repo_config")
    logger.addFilter(_SaidOnPurpose())
    from feast import FeatureStore

    return FeatureStore(repo_path=str(repo))


def is_filled(store: "FeatureStore") -> bool:
    """Returns whether Redis has a value for keys that are there after every materialization of the demo."""
    try:
        return all(_has_value(store, feature, key) for feature, key in _PROBES)
    finally:
        # An open connection would count as a user of the embedded Redis, which then could not be stopped.
        asyncio.run(store.close())


def empty(store: "FeatureStore") -> None:
    """Removes what a replay leaves: all of the project in Redis, landed events, and what is kept for the audit."""
    from store.online import RedisOnlineStore

    online = RedisOnlineStore()
    try:
        online.teardown(store.config, [], [])
    finally:
        online.close_synchronous()
    for name in ("departures", "arrivals"):
        shutil.rmtree(store.repo_path / "data" / "flights" / f"{name}.parquet.landed", ignore_errors=True)
    for name in ("served", "accepted"):
        shutil.rmtree(store.repo_path / "data" / name, ignore_errors=True)


def _has_value(store: "FeatureStore", feature: str, key: dict[str, str]) -> bool:
    answer = store.get_online_features(features=[feature], entity_rows=[key]).to_dict()
    return answer[feature.partition(":")[2]][0] is not None
