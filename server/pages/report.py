"""The report of monitoring as one file, to be mailed, kept or opened anywhere: it loads nothing and runs nothing.

It shows what is kept beside the data: the last drift of each subject with pictures of what drifted, the newest
profiles, the last audit, and how fresh the views are if that is told.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from server.limits import REPORT_CHARTS_MAX
from server.pages.assets import assets
from server.pages.drawing import Drawing
from server.pages.monitored import KINDS, Monitored, chart_of, drift_row, measure_row, note_of
from server.pages.profile_lines import figures, line_of, told_span
from server.pages.shown import number, sentence, share
from server.pages.site import environment
from server.pages.standing import audit_values, fresh_views
from store.kernel.drift_measures import Verdict
from store.kernel.profiles import ColumnProfile
from store.monitor.audits import KeptAudit
from store.monitor.drift_report import DriftReport, FeatureDrift
from store.monitor.subjects import Subject, SubjectProfile

_ORDER: Final = (Verdict.ALARM, Verdict.TOO_FEW, Verdict.NOT_COMPARED, Verdict.NOT_JUDGED, Verdict.STABLE)


@dataclass(frozen=True, slots=True)
class Told:
    """What a report tells besides what monitoring keeps.

    Attributes:
        now_us: the repo's clock, in microseconds since the epoch.
        freshness: of each view as `/api/freshness` has it; None if it is not known, for the reason `freshness_problem`.
    """

    project: str
    now_us: int
    freshness: Sequence[Mapping[str, Any]] | None = None
    freshness_problem: str = ""
    audit: KeptAudit | None = None
    problems: Sequence[str] = ()


def html_report(repo: Path, told: Told) -> str:
    """Returns the report as an HTML page that stands for itself."""
    monitored, drawing = Monitored(repo), Drawing()
    drifts = {each.subject: each for each in monitored.all_reports()}
    charts = iter(range(REPORT_CHARTS_MAX))
    sections = [_drifted(monitored, drawing, each, charts) for each in _alarms_first(drifts.values())]
    profiles = [
        _profile(profile, drifts.get(subject))
        for subject in monitored.subjects()
        if (profile := monitored.current(subject)) is not None
    ]
    views = None if told.freshness is None else fresh_views({"freshness": told.freshness}, told.now_us)
    style = assets()["larder.css"].content.decode()
    values = {
        "project": told.project,
        "now_us": told.now_us,
        # Our own style sheet, and its digest, without which a browser would not take it.
        "style": Markup(style),  # noqa: S704
        "style_digest": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "drifts": sections,
        "alarms": sum(len(each.alarms) for each in drifts.values()),
        "compared": sum(len(each.features) for each in drifts.values()),
        "profiles": profiles,
        "views": views,
        "stale": [view.view for view in views or () if view.is_stale],
        "freshness_problem": told.freshness_problem,
        "audit": None if told.audit is None else audit_values(told.audit.report),
        "problems": [*told.problems, *monitored.problems],
    }
    return environment().get_template("report.html").render(values)


def _alarms_first(reports: Any) -> list[DriftReport]:
    return sorted(reports, key=lambda each: (not each.alarms, each.subject))


def _drifted(monitored: Monitored, drawing: Drawing, report: DriftReport, charts: Iterator[int]) -> dict[str, Any]:
    ordered = sorted(report.features, key=lambda each: (_ORDER.index(each.verdict), each.feature))
    return {
        "kind": KINDS[report.subject.kind],
        "name": report.subject.name,
        "note": note_of(report),
        "notes": report.notes,
        "alarms": len(report.alarms),
        "panels": [
            _panel(monitored, drawing, report, each, charts) for each in ordered if each.verdict == Verdict.ALARM
        ],
        "rows": [drift_row(each) for each in ordered],
    }


def _panel(
    monitored: Monitored, drawing: Drawing, report: DriftReport, drift: FeatureDrift, charts: Iterator[int]
) -> dict[str, Any]:
    """Returns a feature that drifted: its sentence, its picture and every measure."""
    current = _column(monitored, report.subject, report, drift.feature, is_reference=False)
    reference = _column(monitored, report.reference, report, drift.reference_feature, is_reference=True)
    is_drawn = current is not None and next(charts, None) is not None
    chart, left_out = chart_of(drawing.chart, current, reference) if is_drawn and current is not None else (None, 0.0)
    return {
        "feature": drift.feature,
        "statement": sentence(drift.statement),
        "chart": chart,
        "left_out": share(left_out, 1) if left_out else "",
        "has_reference": reference is not None,
        "figures": figures(current, reference) if current is not None else [],
        "measures": [measure_row(each) for each in drift.measures],
    }


def _column(
    monitored: Monitored, subject: Subject, report: DriftReport, feature: str, *, is_reference: bool
) -> ColumnProfile | None:
    profile = monitored.over(subject, report.reference_span if is_reference else report.span)
    return None if profile is None else profile.columns.get(feature)


def _profile(profile: SubjectProfile, report: DriftReport | None) -> dict[str, Any]:
    drifts = {each.feature: each for each in report.features} if report is not None else {}
    return {
        "kind": KINDS[profile.subject.kind],
        "name": profile.subject.name,
        "note": f"{number(profile.rows)} rows, {told_span(profile.span)}.",
        "notes": profile.notes,
        "rows": [_line(column, drifts.get(column.name)) for column in profile.columns.values()],
    }


def _line(column: ColumnProfile, drift: FeatureDrift | None) -> dict[str, Any]:
    numbers = column.numbers
    at = {
        name: None if numbers is None else numbers.quantile(share) for name, share in (("median", 0.5), ("p99", 0.99))
    }
    return {
        "name": column.name,
        "type": column.type_name,
        **line_of(column),
        "distinct": column.distinct if column.sketch else None,
        "least": numbers.least if numbers else None,
        "median": at["median"],
        "p99": at["p99"],
        "greatest": numbers.greatest if numbers else None,
        "mean": numbers.mean if numbers and numbers.finite else None,
        "deviation": numbers.standard_deviation if numbers else None,
        "verdict": drift_row(drift) if drift is not None else None,
    }
