"""What the demo tells of its audit: of what was served, what recomputing reproduces and why training differs today."""

from collections import Counter
from typing import TYPE_CHECKING

from demo.lookups import SHOWN_MAX
from demo.printer import Printer
from store.audit.audit import audit
from store.audit.log import Span
from store.audit.report import AuditReport
from store.audit.report_json import as_json
from store.clock import clock_for, said
from store.kernel.judging import CAUSES, Cause
from store.monitor.audits import keep_audit

if TYPE_CHECKING:
    from feast import FeatureStore


def audit_served(printer: Printer, store: "FeatureStore", service: str) -> bool:
    """Audits what was served by a feature service, as `larder audit` does, and returns whether all of it is clean.

    Raises:
        LarderError: it cannot be audited.
    """
    with printer.step("larder audit: what was served, held against what was known then and today"):
        report = audit(store, [service], Span())
        ran_at = said(clock_for(store.repo_path).now_us())
        keep_audit(store.repo_path, {"ran_at": ran_at, "asked_services": [service], **as_json(report)})
    (of_service,) = report.services
    covered = of_service.coverage
    values = sum(tally.audited for tally in report.tallies)
    different = sum(tally.different for tally in report.tallies)
    printer.note(
        f"{covered.served:,} vectors served, {covered.logged:,} logged, {covered.dropped:,} dropped, "
        f"{of_service.audited:,} audited: {values:,} values of {len(of_service.features)} features. Recomputed from "
        f"what was known then: {different:,} reproduction differences. Recomputed from what is known today: "
        f"{sum(tally.skewed.total() for tally in report.tallies):,} values differ (skew), because"
    )
    printer.table(["values", "cause", "which says"], [list(line) for line in _causes(report)], left=3)
    for reason, count in sorted(Counter(of_service.not_audited.values()).items()):
        printer.note(f"{count} features are not audited: {reason}.")
    for each in [each for each in report.differences if each.is_failure][:SHOWN_MAX]:
        printer.note(
            f"{each.judgement} of {each.feature} for {dict(each.key)}: served {each.served!r} ({each.status}), "
            f"training {each.trained!r}, and nothing explains it"
        )
    return report.is_clean


def _causes(report: AuditReport) -> list[tuple[str, str, str]]:
    skewed: Counter[Cause | None] = Counter()
    for tally in report.tallies:
        skewed += tally.skewed
    return [
        (f"{count:,}", cause or "NO CAUSE", CAUSES[cause] if cause else "nothing explains it")
        for cause, count in sorted(skewed.items(), key=lambda each: -each[1])
    ]
