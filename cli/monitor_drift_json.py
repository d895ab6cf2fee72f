"""What `larder monitor drift --json` prints: names are stable, instants in ISO 8601, what there is none of null."""

from dataclasses import asdict
from typing import Any

from store.clock import said
from store.monitor.drift import DriftRun
from store.monitor.drift_report import DriftReport, FeatureDrift


def as_json(found: DriftRun) -> dict[str, Any]:
    """Returns what a run found as objects that JSON has."""
    return {
        "has_alarms": found.has_alarms,
        "reports": [report_as_json(each) for each in found.reports],
        "refusals": found.refusals,
        "problems": found.problems,
    }


def report_as_json(report: DriftReport) -> dict[str, Any]:
    """Returns what was found of one subject."""
    return {
        "subject_kind": str(report.subject.kind),
        "subject": report.subject.name,
        "from": said(report.span.start_us),
        "to": said(report.span.end_us),
        "rows": report.rows,
        "reference_kind": str(report.reference.kind),
        "reference": report.reference.name,
        "reference_from": said(report.reference_span.start_us),
        "reference_to": said(report.reference_span.end_us),
        "reference_rows": report.reference_rows,
        "computed": said(report.computed_us),
        "false_alarm_rate": report.false_alarm_rate,
        "rows_min": report.rows_min,
        "comparisons": report.comparisons,
        "alarms": [each.feature for each in report.alarms],
        "notes": list(report.notes),
        "features": [_feature(each) for each in report.features],
    }


def _feature(feature: FeatureDrift) -> dict[str, Any]:
    told = asdict(feature)
    told["type"] = told.pop("type_name")
    return {"feature": told.pop("feature"), **told}
