"""`larder audit`: what was served, held against what was known then and what training sees today."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.instants import instant_us
from store.audit.audit import audit
from store.audit.log import Span
from store.audit.report import AuditReport, FeatureTally, ServiceReport
from store.audit.report_json import as_json, difference_as_json
from store.clock import clock_for, said
from store.errors import InputError, LarderError
from store.kernel.judging import CAUSES, Cause
from store.monitor.audits import keep_audit
from store.snapshot import RegistrySnapshots, load_config

CLEAN, FAILED, NOT_RUN = 0, 1, 2
_SHOWN_MAX = 20
"""Differences that people are shown; machines get all that the report lists."""


def run(
    repo: Path, services: Sequence[str], *, start: str | None, end: str | None, sample: int | None, is_json: bool
) -> int:
    """Prints what an audit finds; returns 0 if all is well, 1 if something is not, 2 if it could not be run."""
    try:
        span = _span(start, end)
        snapshots = RegistrySnapshots(load_config(repo), repo)
        snapshots.refresh()
        report = audit(snapshots.current().store, services, span, sample)
    except LarderError as error:
        print(f"larder: {error}", file=sys.stderr)
        return NOT_RUN
    told = as_json(report)
    _keep(repo, services, told)
    if is_json:
        print(json.dumps(told, indent=2))
    else:
        _show(report, Console(highlight=False))
    return CLEAN if report.is_clean else FAILED


def _keep(repo: Path, services: Sequence[str], told: Mapping[str, Any]) -> None:
    """Keeps a report for the server's pages and metrics; where it cannot be kept, it is printed all the same."""
    try:
        keep_audit(repo, {"ran_at": said(clock_for(repo).now_us()), "asked_services": list(services), **told})
    except OSError as error:
        print(
            f"larder: the report is not kept for pages and metrics: {error.filename or str(repo)!r} cannot be written "
            f"({error.strerror}); allow it, or free some room",
            file=sys.stderr,
        )


def _span(start: str | None, end: str | None) -> Span:
    span = Span(
        None if start is None else instant_us("--from", start), None if end is None else instant_us("--to", end)
    )
    if span.start_us is not None and span.end_us is not None and span.start_us >= span.end_us:
        raise InputError(f"--from {start!r} is not before --to {end!r}, which is exclusive; give an earlier one")
    return span


def _show(report: AuditReport, console: Console) -> None:
    for service in report.services:
        console.print("\n".join(_coverage(service)), markup=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        for name in ("feature", "audited", "reproduced", "different", "no longer known", "skew", "why"):
            table.add_column(name, justify="left" if name in {"feature", "why"} else "right", overflow="fold")
        for tally in service.features.values():
            table.add_row(*_cells(tally))
        console.print(table)
        for name, why in sorted(service.not_audited.items()):
            console.print(f"not audited: {name}: {why}", markup=False, soft_wrap=True)
        console.print()
    for line in _differences(report):
        console.print(line, markup=False, soft_wrap=True)
    verdict = "every value is reproduced, and every difference to training has its cause"
    failed = sum(not tally.is_clean for tally in report.tallies)
    told = verdict if report.is_clean else f"FAILED: {failed} features have differences that nothing explains"
    console.print(told, markup=False, soft_wrap=True)


def _coverage(service: ServiceReport) -> Iterator[str]:
    covered = service.coverage
    yield (
        f"{service.service}: {covered.served:,} vectors served, {covered.logged:,} logged, {covered.sampled_out:,} "
        f"left out by sampling, {covered.dropped:,} dropped; {service.audited:,} audited"
    )
    if covered.cut_workers:
        yield (
            f"  {covered.cut_workers} workers still run or were killed: what they served in their last minute may be "
            "missing"
        )
    if covered.missing_files:
        yield f"  {covered.missing_files} files of their logs are not there any more"


def _cells(tally: FeatureTally) -> tuple[str, ...]:
    causes = {cause: number for cause, number in tally.skewed.items() if number}
    why = [
        f"{cause or 'NO CAUSE'}: {number:,}" for cause, number in sorted(causes.items(), key=lambda each: str(each[0]))
    ]
    lost = [f"{number:,} {cause}" for cause, number in sorted(tally.lost.items())]
    return (
        tally.feature,
        f"{tally.audited:,}",
        f"{tally.reproduced:,}",
        f"{tally.different:,}",
        ", ".join(lost) or "0",
        f"{tally.skewed.total():,}",
        ", ".join(why) or "-",
    )


def _differences(report: AuditReport) -> Iterator[str]:
    ordered = sorted(report.differences, key=lambda each: not each.is_failure)
    for each in ordered[:_SHOWN_MAX]:
        told = difference_as_json(each)
        key = ", ".join(f"{name}={value!r}" for name, value in told["key"].items()) or "(no entity)"
        yield (
            f"{told['judgement']}  {told['feature']}  {key}  at {told['request_time']}: served "
            f"{json.dumps(told['served'])} ({told['status']}), training {json.dumps(told['training'])}; "
            f"{told['cause'] or 'NO CAUSE'}"
        )
    more = len(report.differences) + report.left_out - len(ordered[:_SHOWN_MAX])
    if more:
        yield f"and {more:,} more; --json lists them"
    for cause in sorted({each.cause for each in report.differences if each.cause is not None}, key=str):
        yield f"{cause}: {CAUSES[Cause(cause)]}"
