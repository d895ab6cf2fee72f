"""What an audit found as JSON has it: printed by `larder audit --json`, kept, and answered by `/api/audit`."""

from collections.abc import Mapping
from typing import Any

from store.audit.report import AuditReport, Difference, FeatureTally, ServiceReport
from store.clock import said
from store.feast_values import json_converter


def as_json(report: AuditReport) -> dict[str, Any]:
    """Returns what an audit found as objects that JSON has; instants in ISO 8601."""
    return {
        "is_clean": report.is_clean,
        "from": None if report.start_us is None else said(report.start_us),
        "to": None if report.end_us is None else said(report.end_us),
        "services": [_service_as_json(service) for service in report.services],
        "differences": [difference_as_json(each) for each in report.differences],
        "differences_left_out": report.left_out,
    }


def _service_as_json(service: ServiceReport) -> dict[str, Any]:
    covered = service.coverage
    return {
        "feature_service": service.service,
        "coverage": {
            "served": covered.served,
            "logged": covered.logged,
            "sampled_out": covered.sampled_out,
            "dropped": covered.dropped,
            "audited": service.audited,
            "workers_without_last_file": covered.cut_workers,
            "missing_files": covered.missing_files,
        },
        "features": [_tally_as_json(tally) for tally in service.features.values()],
        "not_audited": dict(sorted(service.not_audited.items())),
    }


def _tally_as_json(tally: FeatureTally) -> dict[str, Any]:
    return {
        "feature": tally.feature,
        "type": tally.type_name,
        "audited": tally.audited,
        "is_clean": tally.is_clean,
        "reproduction": {
            "equal": tally.reproduced,
            "different": tally.different,
            "no_longer_known": _causes_as_json(tally.lost),
        },
        "skew": {
            "equal": tally.audited - tally.skewed.total(),
            "different": tally.skewed.total(),
            "causes": _causes_as_json({cause: n for cause, n in tally.skewed.items() if cause is not None}),
            "without_cause": tally.unexplained,
        },
    }


def _causes_as_json(causes: Mapping[Any, int]) -> dict[str, int]:
    return {str(cause): number for cause, number in sorted(causes.items()) if number}


def difference_as_json(difference: Difference) -> dict[str, Any]:
    """Returns a difference likewise."""
    return {
        "judgement": difference.judgement,
        "feature_service": difference.service,
        "feature": difference.feature,
        "request_id": difference.request_id,
        "request_time": said(difference.at_us),
        "key": {
            name: _plain(value, "BYTES" if isinstance(value, bytes) else "") for name, value in difference.key.items()
        },
        "status": difference.status,
        "served": _plain(difference.served, difference.type_name),
        "training": _plain(difference.trained, difference.type_name),
        "cause": difference.cause,
        "is_failure": difference.is_failure,
    }


def _plain(value: Any, type_name: str) -> Any:
    convert = json_converter(type_name) if type_name else None
    return value if value is None or convert is None else convert(value)
