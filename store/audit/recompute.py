"""The ordinary historical retrieval over logged keys and times: what training sees today of what was served."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from feast import FeatureStore, Field
from feast.errors import FeastObjectNotFoundException, FeatureViewNotFoundException
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import UnixTimestamp

from store.audit.forms import on_demand_fingerprint
from store.clock import Clock
from store.definitions_from_feast import batch_source_of, ttl_us, view_definition
from store.errors import EntityRowsError
from store.feast_values import python_from_plain
from store.kernel.definitions import ViewDefinition
from store.kernel.served_log import REQUEST_TIME, LoggedFeature, LoggedPlan, LoggedView
from store.kernel.values import is_opaque
from store.limits import AUDIT_BATCH_ROWS
from store.offline import DuckDBOfflineStore
from store.offline.exact_rows import ExactRows

AT = "event_timestamp"
_SECONDS = pa.timestamp("s", "UTC")


@dataclass(frozen=True, slots=True)
class AuditedView:
    """A view as it was logged, and as it is today.

    Attributes:
        today: Feast's object; None for a view that is no longer there, or is windowed and was not, or the other way.
        definition: of a windowed view that is still there, else None.
        exact: its source, searched by exact times; None where it has none.
        names: the names of the features that it still has.
        time_columns: the columns of the answer with event and created time of the row that training sees.
    """

    logged: LoggedView
    today: Any
    exact: ExactRows | None
    fingerprint: str
    ttl_now_us: int
    names: frozenset[str]
    prefix: str
    time_columns: tuple[str, ...]
    definition: ViewDefinition | None = None

    @property
    def is_retrieved(self) -> bool:
        """Whether training sees anything of it."""
        return self.exact is not None or self.definition is not None

    @property
    def is_redefined(self) -> bool:
        """Whether it is another definition today."""
        return self.fingerprint != self.logged.fingerprint


class Recomputation:
    """What training sees today of the rows of one plan's files.

    Attributes:
        views: the plan's views by name.
        on_demand: names of the plan's on-demand views that are today as they were logged, with Feast's objects.
    """

    def __init__(self, store: FeatureStore, plan: LoggedPlan, clock: Clock) -> None:
        """Finds the plan's views as they are declared today.

        Raises:
            DefinitionError, SourceError: a source cannot be read.
            EntityRowsError: the service asks for an entity column with the name of the time.
        """
        self._store = store
        self._plan = plan
        self._clock = clock
        given = [name for name, _ in (*plan.entity_columns, *plan.request_columns)]
        if AT in given:
            raise EntityRowsError(
                f"feature service {plan.service!r} asks for a column called {AT!r}, which is the time of entity rows; "
                "rename it to have the service audited"
            )
        self._projections = self._projected()
        self.views = {view.name: self._audited(view) for view in plan.views}
        self.on_demand = self._on_demand_today()

    def _projected(self) -> dict[str, Any]:
        """Returns the views of the service as it is declared today, by the names that it calls them."""
        try:
            service = self._store.get_feature_service(self._plan.service, allow_cache=True)
        except FeastObjectNotFoundException:
            return {}
        found = {}
        for projection in service.feature_view_projections:
            view = self._view(projection.name)
            if view is not None:
                whole = copy.copy(view)
                # All features may be asked for, whichever the service has today.
                whole.projection = copy.copy(view.projection)
                whole.projection.name_alias = projection.name_alias
                whole.projection.join_key_map = projection.join_key_map
                found[projection.name_to_use()] = whole
        return found

    def _view(self, name: str) -> Any:
        try:
            return self._store.registry.get_any_feature_view(name, self._store.project, allow_cache=True)
        except (FeatureViewNotFoundException, FeastObjectNotFoundException):
            return None

    def _today(self, name: str) -> Any:
        return self._projections.get(name) or self._view(name)

    def _audited(self, logged: LoggedView) -> AuditedView:
        today = self._today(logged.name)
        if today is None or (isinstance(today, OnDemandFeatureView) and not today.write_to_online_store):
            return AuditedView(logged, None, None, "", 0, frozenset(), "", ())
        is_versioned = self._store.config.registry.enable_online_feature_view_versioning
        definition = view_definition(self._store.project, today, is_versioned=is_versioned)
        source = batch_source_of(today)
        exact, times = None, ()
        if source is not None and not definition.windows:
            owner = f"feature view {today.name!r}"
            exact = ExactRows(self._store.config, source, owner, self._clock)
            times = tuple(
                source.field_mapping.get(name, name)
                for name in (source.timestamp_field, source.created_timestamp_column)
                if name
            )
        if logged.is_windowed != bool(definition.windows):
            return AuditedView(logged, None, None, "", 0, frozenset(), "", ())
        names = frozenset(column.name for column in definition.features)
        prefix = today.projection.name_alias or today.name
        return AuditedView(
            logged,
            today,
            exact,
            definition.fingerprint,
            ttl_us(today),
            names,
            f"{prefix}__",
            times,
            definition if definition.windows else None,
        )

    def _on_demand_today(self) -> dict[str, Any]:
        found = {}
        for logged in self._plan.on_demand:
            today = self._today(logged.name)
            if isinstance(today, OnDemandFeatureView) and on_demand_fingerprint(today) == logged.fingerprint:
                found[logged.name] = today
        return found

    @property
    def incomputable(self) -> list[str]:
        """The on-demand views whose inputs are not all retrieved, as some are in no source."""
        retrieved = {f.column for view in self.views.values() if view.is_retrieved for f in self.features_of(view)}
        return [
            logged.name
            for logged in self._plan.on_demand
            if logged.name in self.on_demand and any(column not in retrieved for _, column in logged.inputs)
        ]

    def features_of(self, view: AuditedView) -> list[LoggedFeature]:
        """Returns the logged features of a view that it still has."""
        return [f for f in self._plan.features if f.view == view.logged.name and f.name in view.names]

    def on_demand_features(self) -> list[LoggedFeature]:
        """Returns the logged features of on-demand views that are today as they were logged."""
        left_out = self.incomputable
        names = {
            name: {field.name for field in view.features}
            for name, view in self.on_demand.items()
            if name not in left_out
        }
        return [f for f in self._plan.features if f.name in names.get(f.view, ())]

    def answers(self, rows: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
        """Yields logged rows as they came, their columns called `l0`, `l1`, ..., with what training sees beside them.

        Args:
            rows: the logged columns in any order, as `schema` says, `__file` among them.

        Raises:
            LarderError: as the retrieval raises.
        """
        first = self._entity_rows(schema.empty_table())
        reader = pa.RecordBatchReader.from_batches(
            first.schema, (batch for table in rows for batch in self._entity_rows(table).to_batches())
        )
        views, references = self._asked()
        if not references:
            yield from (pa.Table.from_batches([batch]) for batch in reader)
            return
        job = DuckDBOfflineStore.get_historical_features(
            self._store.config, views, references, reader, self._store.registry, self._store.project,
            full_feature_names=True,
        )  # fmt: skip
        for batch in job.to_arrow_batches(AUDIT_BATCH_ROWS):  # type: ignore[attr-defined]  # ours has it
            yield pa.Table.from_batches([batch])

    def _entity_rows(self, table: pa.Table) -> pa.Table:
        columns = {name: _as_given(table.column(name), kind) for name, kind in self._plan.entity_columns}
        if self.on_demand:
            columns |= {name: _as_given(table.column(name), kind) for name, kind in self._plan.request_columns}
        columns[AT] = table.column(REQUEST_TIME)
        carried = {f"l{place}": column for place, column in enumerate(table.columns)}
        return pa.table({**columns, **carried})

    def _asked(self) -> tuple[list[Any], list[str]]:
        """Returns the views to retrieve, with the times of their rows as if they were features, and the references."""
        views, references = [], []
        for view in self.views.values():
            if not view.is_retrieved:
                continue
            timed = copy.copy(view.today)
            own = {field.name: field for field in timed.features}
            timed.features = list(
                ({name: Field(name=name, dtype=UnixTimestamp) for name in view.time_columns} | own).values()
            )
            views.append(timed)
            names = [*(feature.name for feature in self.features_of(view)), *view.time_columns]
            references += [f"{timed.projection.name_to_use()}:{name}" for name in dict.fromkeys(names)]
        references += [f"{feature.view}:{feature.name}" for feature in self.on_demand_features()]
        return views, references


def _as_given(column: pa.ChunkedArray, type_name: str) -> pa.ChunkedArray:
    """Returns a logged join key or request column as entity rows have it."""
    if type_name == "UNIX_TIMESTAMP":
        return column.cast(_SECONDS)
    if is_opaque(type_name):
        return pa.chunked_array([pa.array([python_from_plain(value, type_name) for value in column.to_pylist()])])
    return column
