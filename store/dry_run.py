"""What a materialization would do, told by the engine that would do it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from feast import FeatureStore
from feast.errors import FeatureViewNotFoundException
from feast.infra.common.materialization_job import MaterializationTask
from feast.on_demand_feature_view import OnDemandFeatureView

from store.clock import to_us
from store.engine import DuckDBComputeEngine, PlannedMaterialization
from store.errors import ConfigError, InputError, UnknownObject

_WITHOUT_TTL = timedelta(weeks=52)
"""How far back Feast's first incremental run goes where a view has no ttl; the engine goes on as it sees fit."""


def planned_materializations(
    store: FeatureStore, start: datetime | None, end: datetime, views: Sequence[str] | None = None
) -> list[PlannedMaterialization]:
    """Returns what `feast materialize`, or without a start `feast materialize-incremental`, would do; changes nothing.

    Args:
        views: names of feature views; None for all that are served online.

    Raises:
        ConfigError: the batch engine or the online store is not Larder's.
        UnknownObject: a feature view that is not registered.
        InputError: START is after END.
        DefinitionError, SourceError, OnlineStoreError: as their names say.
    """
    engine = store._get_provider().batch_engine  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
    if not isinstance(engine, DuckDBComputeEngine):
        raise ConfigError(
            f"batch_engine {type(engine).__name__} does not tell what it would do; a dry run needs "
            "store.engine.DuckDBComputeEngine"
        )
    if start is not None and to_us(start) > to_us(end):
        raise InputError(f"START {start.isoformat()} is after END {end.isoformat()}; exchange them")
    try:
        chosen = store._get_feature_views_to_materialize(None if views is None else list(views))  # noqa: SLF001 - Feast's choice
    except FeatureViewNotFoundException as error:
        raise UnknownObject(f"{error}; run 'feast apply' or correct the name") from error
    except ValueError as error:
        raise InputError(str(error)) from error
    tasks = [
        MaterializationTask(store.project, view, start or _incremental_start(view), end)
        for view in chosen
        if not isinstance(view, OnDemandFeatureView)
    ]
    return [engine.planned(task) for task in tasks]


def _incremental_start(view: Any) -> datetime:
    """Returns from when on Feast materializes a view where nobody says it."""
    latest: datetime | None = view.most_recent_end_time
    return latest if latest is not None else datetime.now(UTC) - (view.ttl or _WITHOUT_TTL)
