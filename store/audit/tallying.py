"""The counting of an audit: rows of which all is well as whole blocks, the others one by one, many at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from store.audit.columns import Answer, Truths, plain_values, together
from store.audit.on_demand import OnDemand
from store.audit.plain_views import Verdicts
from store.audit.report import WELL, AuditReport, Difference, Judged, ServiceReport
from store.kernel.served_log import REQUEST_ID, REQUEST_TIME, STATUS_NAMES, LoggedFeature, LoggedPlan
from store.limits import AUDIT_PENDING_ROWS


class ViewAudit(Protocol):
    """The audit of one view that was read; `PlainView` is that of plain views.

    One of windowed views has in the answer what it logs (`TileColumns`) and what training sees at the same times.
    """

    name: str
    """Of the view, as the request calls it."""
    prefix: str
    """Of its features' names in what training sees."""
    features: list[LoggedFeature]

    def settled(self, answer: Answer) -> Truths:
        """Returns the rows of which all is well: reproduced, and as training sees them."""

    def judged(self, answer: Answer) -> Verdicts:
        """Returns what is found of each feature of some rows, by feature column."""


@dataclass(frozen=True, slots=True)
class PlanAudit:
    """What is audited in the files of one plan."""

    plan: LoggedPlan
    views: tuple[ViewAudit, ...]
    on_demand: tuple[OnDemand, ...]

    @property
    def features(self) -> list[LoggedFeature]:
        """All features that are audited."""
        return [
            *(f for view in self.views for f in view.features),
            *(f for view in self.on_demand for f in view.features),
        ]


@dataclass(slots=True)
class _Pending:
    """Rows of which not all is well, and which views each of them has to be judged by."""

    answers: list[Answer] = field(default_factory=list)
    unsettled: list[dict[str, Truths]] = field(default_factory=list)
    row_count: int = 0


class Tallying:
    """Counts the rows of one plan into a report."""

    def __init__(self, report: AuditReport, service: ServiceReport, audit: PlanAudit) -> None:
        self._report = report
        self._service = service
        self._audit = audit
        self._pending = _Pending()

    def add(self, answer: Answer) -> None:
        """Counts a block of rows."""
        self._service.audited += len(answer)
        unsettled: dict[str, Truths] = {}
        for view in self._audit.views:
            unsettled[view.name] = ~view.settled(answer)
        for computed in self._audit.on_demand:
            reproduced, agreeing = computed.reproduced(answer), computed.agreeing(answer)
            is_unsettled = np.zeros(len(answer), bool)
            for feature in computed.features:
                is_unsettled |= ~(reproduced[feature.column] & agreeing[feature.column])
            unsettled[computed.name] = is_unsettled
        for feature in self._audit.features:
            if feature.is_output:
                tally = self._service.tally(f"{feature.view}:{feature.name}", feature.type_name)
                tally.audited += len(answer)
        is_pending = np.logical_or.reduce([*unsettled.values(), np.zeros(len(answer), bool)])
        if not is_pending.any():
            return
        self._pending.answers.append(answer.taken(is_pending))
        self._pending.unsettled.append({name: rows[is_pending] for name, rows in unsettled.items()})
        self._pending.row_count += int(is_pending.sum())
        if self._pending.row_count >= AUDIT_PENDING_ROWS:
            self.end()

    def end(self) -> None:
        """Judges the rows that are left."""
        if not self._pending.answers:
            return
        pending, self._pending = self._pending, _Pending()
        answer = together(pending.answers)
        unsettled = {name: np.concatenate([each[name] for each in pending.unsettled]) for name in pending.unsettled[0]}
        rows = _Rows(answer)
        verdicts: Verdicts = {}
        for view in self._audit.views:
            is_asked = unsettled[view.name]
            found = _spread(view.judged(answer.taken(is_asked)), is_asked) if is_asked.any() else {}
            verdicts |= found
            self._count(view.features, found, answer, rows, view.prefix)
        for computed in self._audit.on_demand:
            if unsettled[computed.name].any():
                found = computed.judged(answer, verdicts)
                self._count(computed.features, found, answer, rows, computed.prefix)

    def _count(
        self,
        features: list[LoggedFeature],
        found: Mapping[str, list[Judged]],
        answer: Answer,
        rows: "_Rows",
        prefix: str,
    ) -> None:
        for feature in features:
            if not feature.is_output or feature.column not in found:
                continue
            tally = self._service.tally(f"{feature.view}:{feature.name}", feature.type_name)
            served: list[Any] | None = None
            seen: list[Any] = []
            for number, judged in enumerate(found[feature.column]):
                if judged.reproduction.lost is not None:
                    tally.lost[judged.reproduction.lost] += 1
                elif not judged.reproduction.is_equal:
                    tally.different += 1
                if judged.is_skewed:
                    tally.skewed[judged.cause] += 1
                if judged.reproduction.is_equal and not judged.is_skewed:
                    continue
                if served is None:
                    served = answer.logged(feature.column).to_pylist()
                    seen = plain_values(feature.declared, answer.trained(f"{prefix}{feature.name}"), len(answer))
                self._list(feature, judged, rows.told(self._audit.plan, feature, number), served[number], seen[number])

    def _list(self, feature: LoggedFeature, judged: Judged, told: "_Told", served: Any, seen: Any) -> None:
        reproduction = judged.reproduction
        kinds = []
        if not reproduction.is_equal:
            kinds.append(("reproduction", reproduction.lost))
        if judged.is_skewed:
            kinds.append(("skew", judged.cause))
        for judgement, cause in kinds:
            self._report.list_one(
                Difference(
                    judgement=judgement,
                    service=self._service.service,
                    feature=f"{feature.view}:{feature.name}",
                    type_name=feature.type_name,
                    request_id=told.request_id,
                    at_us=told.at_us,
                    key=told.key,
                    status=told.status,
                    served=served,
                    trained=seen,
                    cause=cause,
                )
            )


@dataclass(frozen=True, slots=True)
class _Told:
    """What tells one value from others in a report."""

    request_id: str
    at_us: int
    key: Mapping[str, Any]
    status: str


class _Rows:
    """What tells rows from each other, made when first asked for."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._lists: dict[str, list[Any]] = {}

    def told(self, plan: LoggedPlan, feature: LoggedFeature, number: int) -> _Told:
        """Returns what tells one value of a feature."""
        key_columns = next((view.key_columns for view in plan.views if view.name == feature.view), None)
        names = key_columns if key_columns is not None else [name for name, _ in plan.entity_columns]
        return _Told(
            self._list(REQUEST_ID)[number],
            self._list(REQUEST_TIME)[number],
            {name: self._list(name)[number] for name in names},
            STATUS_NAMES.get(self._list(f"{feature.column}__status")[number], "INVALID"),
        )

    def _list(self, name: str) -> list[Any]:
        if name not in self._lists:
            column = self._answer.logged(name)
            self._lists[name] = (column.cast(pa.int64()) if name == REQUEST_TIME else column).to_pylist()
        return self._lists[name]


def _spread(found: Verdicts, is_asked: Truths) -> Verdicts:
    """Returns verdicts on some rows as verdicts on all, where the others are as they should be."""
    places = np.flatnonzero(is_asked)
    spread: Verdicts = {}
    for name, verdicts in found.items():
        spread[name] = [WELL] * len(is_asked)
        for place, judged in zip(places, verdicts, strict=True):
            spread[name][place] = judged
    return spread
