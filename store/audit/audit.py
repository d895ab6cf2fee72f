"""The audit: what was served against what was known then and what is known today, service by service."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from feast import FeatureService, FeatureStore

from store.audit.columns import Answer, wanted_columns
from store.audit.destinations import log_folder
from store.audit.erasures import Erasures
from store.audit.forms import log_schema
from store.audit.log import ROW_FILE, Sample, ServedFiles, Span, served_files
from store.audit.on_demand import OnDemand
from store.audit.plain_views import PlainView
from store.audit.recompute import AuditedView, Recomputation
from store.audit.report import AuditReport, ServiceReport
from store.audit.tallying import PlanAudit, Tallying
from store.audit.windowed_views import WindowedView
from store.clock import Clock, clock_for
from store.errors import ConfigError, InputError, UnknownObject
from store.kernel.served_log import LoggedFeature, LoggedPlan, LoggedState
from store.offline import DuckDBOfflineStoreConfig
from store.online import RedisOnlineStore, RedisOnlineStoreConfig, repo_path_of
from store.online.conversations import read_state
from store.stream.lines import have_events_kept

_INCOMPUTABLE = "computed from features that this audit does not recompute"


def audit(store: FeatureStore, services: Sequence[str], span: Span, sample: int | None = None) -> AuditReport:
    """Returns what was served by feature services, held against what was known then and what training sees today.

    Args:
        services: their names; all that are logged if none are given.
        sample: at most so many vectors of each service, evenly spread; all by default.

    Raises:
        UnknownObject: a service that is not registered.
        InputError: one that is not logged, or none is; or no vector was logged in the span.
        ConfigError: online or offline store are not Larder's.
        DefinitionError, SourceError, OnlineStoreError: as their names say.
    """
    _require_own_stores(store)
    auditor = _Auditor(store, span, sample)
    for service in _services(store, services):
        auditor.add(service)
    if not auditor.report.audited:
        raise InputError(
            "no served vector was logged in this span of time, so nothing can be audited; vectors are written a minute "
            "after they were served at the latest, or when the server stops"
        )
    return auditor.report


def _require_own_stores(store: FeatureStore) -> None:
    for name, own in (("online_store", RedisOnlineStoreConfig), ("offline_store", DuckDBOfflineStoreConfig)):
        setting = getattr(store.config, name)
        if not isinstance(setting, own):
            raise ConfigError(f"{name} type {setting.type!r} cannot be audited; use {own.model_fields['type'].default}")


def _services(store: FeatureStore, names: Sequence[str]) -> list[FeatureService]:
    known = {service.name: service for service in store.list_feature_services()}
    for name in names:
        if name not in known:
            raise UnknownObject(
                f"feature service {name!r} is not registered in project {store.project!r}, which has {sorted(known)}; "
                "correct the name or run 'feast apply'"
            )
        if known[name].logging_config is None:
            raise InputError(
                f"feature service {name!r} is not logged; declare it with logging_config=LoggingConfig(destination="
                f"FileLoggingDestination(path='data/served/{name}'), sample_rate=1.0) and run 'feast apply'"
            )
    logged = [service for name, service in sorted(known.items()) if service.logging_config is not None]
    if not logged:
        raise InputError(
            f"no feature service of project {store.project!r} is logged; declare one with logging_config=LoggingConfig("
            "destination=FileLoggingDestination(path='data/served'), sample_rate=1.0) and run 'feast apply'"
        )
    return [service for service in logged if not names or service.name in names]


class _Auditor:
    """Adds one service after the other to a report."""

    def __init__(self, store: FeatureStore, span: Span, sample: int | None) -> None:
        self.report = AuditReport(span.start_us, span.end_us)
        self._store = store
        self._span = span
        self._sample = sample
        self._online = RedisOnlineStore()
        self._repo = repo_path_of(store.config)
        self._clock: Clock = clock_for(self._repo)
        self._erasures = Erasures(self._repo)
        self._states: dict[str, LoggedState] = {}
        self._are_kept = False

    def add(self, service: FeatureService) -> None:
        """Audits one service."""
        assert service.logging_config is not None
        views = self._store.list_all_feature_views()
        folder = log_folder(self._store.config, service.name, service.logging_config.destination, views)
        found = served_files(folder, self._store.project, service.name, self._span)
        report = ServiceReport(service.name, found.coverage)
        self.report.services.append(report)
        keep = Sample(self._sample, report.coverage.logged)
        for plan, places in found.by_plan().items():
            self._add_plan(report, found, plan, places, keep)

    def _add_plan(
        self, report: ServiceReport, found: ServedFiles, plan: LoggedPlan, places: Sequence[int], keep: Sample
    ) -> None:
        recomputation = Recomputation(self._store, plan, self._clock)
        left_out = dict.fromkeys(recomputation.incomputable, _INCOMPUTABLE)
        report.not_audited |= {f"{f.view}:{f.name}": left_out[f.view] for f in plan.features if f.view in left_out}
        tallying = Tallying(self.report, report, self._plan_audit(plan, recomputation, found))
        columns = wanted_columns(plan)
        rows = found.rows(places, columns, keep)
        for table in recomputation.answers(rows, _schema(plan, columns)):
            tallying.add(Answer(table, [*columns, ROW_FILE]))
        tallying.end()

    def _plan_audit(self, plan: LoggedPlan, recomputation: Recomputation, found: ServedFiles) -> PlanAudit:
        notes = [file.note for file in found.files]
        views: list[PlainView | WindowedView] = []
        for name, view in recomputation.views.items():
            features, facts = _of_view(plan, name), self._facts_of(view)
            if view.logged.is_windowed:
                self._have_events_kept(view)
                views.append(WindowedView(self._store, self._clock, view, features, facts))
            else:
                views.append(PlainView(view, features, notes, self._state_now, facts))
        on_demand = [
            OnDemand(logged, _of_view(plan, logged.name), plan, recomputation.on_demand.get(logged.name))
            for logged in plan.on_demand
            if logged.name not in recomputation.incomputable
        ]
        return PlanAudit(plan, tuple(views), tuple(on_demand))

    def _have_events_kept(self, view: AuditedView) -> None:
        """Waits until all events that were applied are kept; a partition that no worker owns is drained here."""
        if not self._are_kept and getattr(view.today, "stream_source", None) is not None:
            have_events_kept(self._store.config, self._repo)
            self._are_kept = True

    def _state_now(self, stored_name: str) -> LoggedState:
        """Returns what Redis holds of a view now."""
        if stored_name not in self._states:
            session = self._online.session(self._store.config)
            try:
                known = session.hold(read_state(self._store.project, stored_name))
            finally:
                self._online.close_synchronous()
            self._states[stored_name] = LoggedState.of(known.state)
        return self._states[stored_name]

    def _facts_of(self, view: AuditedView) -> Mapping[str, Any]:
        join_keys = [name for name, _ in view.logged.join_keys]
        return {
            "has_key_ttl": self._store.config.online_store.key_ttl_seconds is not None,
            "erased_us": self._erasures.last_us(frozenset(join_keys)),
        }


def _of_view(plan: LoggedPlan, name: str) -> list[LoggedFeature]:
    return [feature for feature in plan.features if feature.view == name]


def _schema(plan: LoggedPlan, columns: Sequence[str]) -> pa.Schema:
    whole = log_schema(plan)
    return pa.schema([*(whole.field(name) for name in columns), (ROW_FILE, pa.int32())])
