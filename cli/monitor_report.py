"""`larder monitor report`: what monitoring last found, as one HTML file for people and as JSON for machines."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from cli.monitor_drift_json import report_as_json
from server.pages.report import Told, html_report
from store.clock import said
from store.errors import LarderError, OfflineStoreError
from store.files import write_atomically
from store.monitor.audits import AuditFiles
from store.monitor.drift_files import DriftFiles
from store.monitor.drift_report import DriftReport
from store.monitor.profile_files import ProfileFiles
from store.service import StoreService

WELL, ALARM, NOT_RUN = 0, 1, 2
DEFAULT = ("data", "monitor", "report.html")
"""Where in the repo the report lies unless another place is named."""


def run(repo: Path, output: Path | None, *, is_json: bool) -> int:
    """Writes the report; returns 0 if all is well, 1 if a feature drifted or the audit failed, 2 without a report."""
    try:
        told = asyncio.run(_told(repo))
        path = repo.joinpath(*DEFAULT) if output is None else output
        _write(path, html_report(repo, told))
        files = DriftFiles(repo)
        reports = [each for each in map(files.latest, ProfileFiles(repo).subjects()) if each is not None]
    except LarderError as error:
        print(f"larder: {error}", file=sys.stderr)
        return NOT_RUN
    has_failed = told.audit is not None and not told.audit.is_clean
    has_alarms = any(each.alarms for each in reports)
    if is_json:
        print(json.dumps(_as_json(told, reports, path), indent=2))
    else:
        _show(told, reports, path)
    return ALARM if has_alarms or has_failed else WELL


async def _told(repo: Path) -> Told:
    service = StoreService.open(repo)
    await service.start()
    freshness, problem = None, ""
    try:
        freshness = [asdict(each) for each in await service.freshness()]
    except LarderError as error:
        # The rest of the report does not need Redis.
        problem = str(error)
    finally:
        await service.close()
    audit, problems = AuditFiles(repo).look()
    return Told(
        project=service.project,
        now_us=service.clock.now_us(),
        freshness=freshness,
        freshness_problem=problem,
        audit=audit,
        problems=problems,
    )


def _write(path: Path, html: str) -> None:
    try:
        write_atomically(path, html.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OfflineStoreError(
            f"the report cannot be written to {str(path)!r} ({error.strerror or error}); name another place by --output"
        ) from error


def _as_json(told: Told, reports: list[DriftReport], path: Path) -> dict[str, Any]:
    return {
        "has_alarms": any(each.alarms for each in reports),
        "at": said(told.now_us),
        "html": str(path),
        "drift": [report_as_json(each) for each in reports],
        "freshness": told.freshness,
        "freshness_problem": told.freshness_problem or None,
        "audit": None if told.audit is None else {"ran": said(told.audit.ran_us), "is_clean": told.audit.is_clean},
        "problems": list(told.problems),
    }


def _show(told: Told, reports: list[DriftReport], path: Path) -> None:
    console = Console(highlight=False)
    for report in reports:
        names = ", ".join(each.feature for each in report.alarms)
        found = f"{len(report.alarms):,} of {len(report.features):,} features have drifted" + (
            f": {names}" if names else ""
        )
        console.print(f"{report.subject}: {found}", markup=False, soft_wrap=True)
    if not reports:
        console.print("drift has not been measured; run 'larder monitor drift'", soft_wrap=True)
    if told.audit is not None:
        how = "is clean" if told.audit.is_clean else "FAILED: some differences have no cause"
        console.print(f"the audit of {said(told.audit.ran_us)} {how}", markup=False, soft_wrap=True)
    console.print(str(path), markup=False, soft_wrap=True)
