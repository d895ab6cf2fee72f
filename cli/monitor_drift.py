"""`larder monitor drift`: which features have moved away from their reference."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.instants import instant_us
from cli.monitor_drift_json import as_json
from store.clock import clock_for, said
from store.errors import ConfigError, InputError, LarderError
from store.kernel.drift_measures import Verdict
from store.monitor.drift import DriftRequest, DriftRun, Reference, drift
from store.monitor.drift_files import DriftFiles
from store.monitor.drift_report import DriftReport
from store.monitor.profile_files import ProfileFiles
from store.monitor.settings import MonitoringSettings, monitoring_settings
from store.monitor.subjects import Span, Subject, SubjectKind
from store.monitor.webhook import Webhook, message_of, tell

STABLE, ALARM, NOT_RUN = 0, 1, 2
_ORDER = (Verdict.ALARM, Verdict.TOO_FEW, Verdict.NOT_COMPARED, Verdict.STABLE)
_SAID = {
    Verdict.ALARM: "ALARM",
    Verdict.TOO_FEW: "too few",
    Verdict.NOT_COMPARED: "not compared",
    Verdict.STABLE: "stable",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for; spans as they were typed."""

    views: Sequence[str] = ()
    services: Sequence[str] = ()
    training_sets: Sequence[str] = ()
    push_sources: Sequence[str] = ()
    span: tuple[str | None, str | None] = (None, None)
    reference_training_set: str | None = None
    reference_service: str | None = None
    reference_span: tuple[str | None, str | None] = (None, None)

    def request(self) -> DriftRequest:
        """Returns what to compare.

        Raises:
            InputError: the options contradict each other, or an instant is none.
        """
        names = {
            SubjectKind.FEATURE_VIEW: self.views,
            SubjectKind.FEATURE_SERVICE: self.services,
            SubjectKind.TRAINING_SET: self.training_sets,
            SubjectKind.PUSH_SOURCE: self.push_sources,
        }
        subjects = [Subject(kind, name) for kind, given in names.items() for name in given]
        return DriftRequest(subjects, _span(self.span, ("--from", "--to")), self._reference())

    def _reference(self) -> Reference | None:
        span = _span(self.reference_span, ("--reference-from", "--reference-to"))
        if self.reference_training_set is not None:
            if self.reference_service is not None or span is not None:
                raise InputError(
                    "--reference-training-set stands alone: a training set has no other name and no part of its time; "
                    "leave out the other --reference options"
                )
            return Reference(Subject(SubjectKind.TRAINING_SET, self.reference_training_set))
        if self.reference_service is not None:
            return Reference(Subject(SubjectKind.FEATURE_SERVICE, self.reference_service), span)
        return None if span is None else Reference(span=span)


def _span(typed: tuple[str | None, str | None], options: tuple[str, str]) -> Span | None:
    start, end = typed
    if start is None and end is None:
        return None
    if start is None or end is None:
        given, missing = options if end is None else reversed(options)
        raise InputError(f"{given} stands without {missing}; give both, or neither")
    span = Span(instant_us(options[0], start), instant_us(options[1], end))
    if span.start_us >= span.end_us:
        raise InputError(f"{options[0]} {start!r} is not before {options[1]} {end!r}, which is exclusive")
    return span


def run(repo: Path, asked: Asked, *, is_json: bool, is_webhook_told: bool) -> int:
    """Prints, keeps and tells what has drifted; returns 0 for nothing, 1 for an alarm, 2 if it could not be run."""
    try:
        if not (repo / "feature_store.yaml").is_file():
            raise ConfigError(
                f"no feature repo at {str(repo)!r}: feature_store.yaml is missing; give the repo's folder with --repo"
            )
        settings = monitoring_settings(repo)
        found = drift(ProfileFiles(repo), settings, asked.request(), clock_for(repo).now_us())
    except LarderError as error:
        print(f"larder: {error}", file=sys.stderr)
        return NOT_RUN
    is_kept = _keep(repo, found)
    if is_json:
        print(json.dumps(as_json(found), indent=2))
    else:
        _show(found, Console(highlight=False))
    for sentence in (*found.refusals, *found.problems):
        print(f"larder: {sentence}", file=sys.stderr)
    if found.has_alarms and is_webhook_told and settings.webhook is not None:
        _tell(settings, found)
    if found.has_alarms:
        return ALARM
    return NOT_RUN if found.refusals or not is_kept else STABLE


def _keep(repo: Path, found: DriftRun) -> bool:
    kept = DriftFiles(repo)
    for report in found.reports:
        try:
            kept.append(report)
        except LarderError as error:
            # What was found is still told; only drift over time will lack it.
            print(f"larder: {error}", file=sys.stderr)
            return False
    return True


def _tell(settings: MonitoringSettings, found: DriftRun) -> None:
    assert settings.webhook is not None
    setting = settings.webhook
    try:
        webhook = Webhook(setting.address(), setting.timeout_seconds, setting.attempts)
    except ConfigError as error:
        print(f"larder: {error}", file=sys.stderr)
        return
    if problem := tell(webhook, message_of(found.reports)):
        print(f"larder: {problem}", file=sys.stderr)


def _show(found: DriftRun, console: Console) -> None:
    for report in found.reports:
        _show_report(report, console)
    alarms = sum(len(report.alarms) for report in found.reports)
    features = sum(len(report.features) for report in found.reports)
    if found.reports:
        told = f"{alarms:,} of {features:,} features have drifted" if alarms else "nothing has drifted"
        console.print(told, markup=False, soft_wrap=True)


def _show_report(report: DriftReport, console: Console) -> None:
    reference = "its own rows of" if report.reference == report.subject else f"{report.reference},"
    console.print(
        f"{report.subject}, {_days(report.span)}, {report.rows:,} rows, against {reference} "
        f"{_days(report.reference_span)}, {report.reference_rows:,} rows",
        markup=False,
        soft_wrap=True,
    )
    for note in report.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("feature", overflow="fold")
    table.add_column("what", overflow="fold")
    for feature in sorted(report.features, key=lambda each: (_ORDER.index(each.verdict), each.feature)):
        style = "bold red" if feature.verdict is Verdict.ALARM else ""
        # Names and categories are somebody else's text: no markup is read in them.
        cells = (_SAID[feature.verdict], feature.feature, feature.statement)
        table.add_row(*(Text(each, style=style if place == 0 else "") for place, each in enumerate(cells)))
    console.print(table)
    console.print()


def _days(span: Span) -> str:
    """Returns a stretch of time, by days where it is of whole ones."""
    return " to ".join(said(each).removesuffix("T00:00:00+00:00") for each in (span.start_us, span.end_us))
