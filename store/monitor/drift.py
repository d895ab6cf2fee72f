"""Drift of subjects: current profiles against their references, all of a run held to one false-alarm rate."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from store.clock import said
from store.kernel.drift import Comparison, compare
from store.kernel.drift_measures import Verdict
from store.kernel.drift_verdicts import Judged, Rules, judge
from store.kernel.profiles import ColumnProfile, Kind
from store.monitor.drift_names import Names, match, qualified
from store.monitor.drift_report import DriftReport, FeatureDrift
from store.monitor.drift_results import bars_of, result_of, side_of, verdict_of
from store.monitor.drift_statements import statement
from store.monitor.profile_files import ProfileFiles
from store.monitor.settings import FILE, MonitoringSettings, ReferenceSetting
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile

_DAY_US = 86_400 * 1_000_000

OPTIONS = {
    SubjectKind.FEATURE_VIEW: "--view",
    SubjectKind.FEATURE_SERVICE: "--service",
    SubjectKind.TRAINING_SET: "--training-set",
    SubjectKind.PUSH_SOURCE: "--push-source",
}
"""How each kind of subject is named on the command line."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a current profile is held against; without a subject the same one, without a span all of it."""

    subject: Subject | None = None
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class DriftRequest:
    """What to compare.

    Attributes:
        subjects: none for all that have a profile, but training sets.
        span: of the current profiles; the last whole days by the settings where it is None.
        reference: instead of that of the settings.
    """

    subjects: Sequence[Subject] = ()
    span: Span | None = None
    reference: Reference | None = None


@dataclass(slots=True)
class DriftRun:
    """What a run found.

    Attributes:
        refusals: subjects that could not be compared, each in a sentence with the remedy.
        problems: files that are damaged, and settings that apply to nothing.
    """

    reports: list[DriftReport] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def has_alarms(self) -> bool:
        """Whether anything has drifted."""
        return any(report.alarms for report in self.reports)


class _Refused(Exception):
    """A subject that cannot be compared, and what to do."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two profiles of one subject, and which of their features belong together."""

    current: SubjectProfile
    reference: SubjectProfile
    names: Names


class _Column(NamedTuple):
    """A feature that both sides have, and what was found."""

    current: ColumnProfile
    reference: ColumnProfile
    comparison: Comparison


def drift(files: ProfileFiles, settings: MonitoringSettings, request: DriftRequest, now_us: int) -> DriftRun:
    """Returns the drift of subjects; nothing is kept or told yet.

    Args:
        now_us: the repo's clock.
    """
    run = DriftRun()
    subjects = request.subjects or [each for each in files.subjects() if each.kind is not SubjectKind.TRAINING_SET]
    if not subjects:
        run.refusals.append("there are no profiles yet; run 'larder monitor profile' first")
    pairs = []
    for subject in dict.fromkeys(subjects):
        try:
            pairs.append(_pair(files, settings, request, subject, now_us))
        except _Refused as refusal:
            run.refusals.append(str(refusal))
    columns = [_columns(pair, settings) for pair in pairs]
    thresholds = [
        (column.comparison, settings.thresholds_of(qualified(pair.current.subject, name)))
        for pair, found in zip(pairs, columns, strict=True)
        for name, column in found.items()
    ]
    judgement = judge(thresholds, Rules(settings.false_alarm_rate, settings.rows_min))
    judged = iter(judgement.features)
    for pair, found in zip(pairs, columns, strict=True):
        results = {name: next(judged) for name in found}
        features = tuple(_features(pair, found, results, settings))
        run.reports.append(_report(pair, features, settings, judgement.comparisons, now_us))
    run.problems += files.problems
    if not request.subjects and not run.refusals:
        run.problems += _unused(settings, pairs)
    return run


def _pair(
    files: ProfileFiles, settings: MonitoringSettings, request: DriftRequest, subject: Subject, now_us: int
) -> _Pair:
    """Raises _Refused where a profile is missing."""
    days = settings.current.days * _DAY_US
    today_us = now_us // _DAY_US * _DAY_US
    is_whole = subject.kind is SubjectKind.TRAINING_SET
    span = None if is_whole else request.span or Span(today_us - days, today_us)
    reference = request.reference or _reference(settings.references.get(subject.name, settings.reference), span)
    against = reference.subject or subject
    if against == subject and reference.span is None:
        raise _Refused(
            f"{subject} would be compared with itself; name what it is to be compared with, such as another training "
            "set by --reference-training-set NAME"
        )
    current = _profile(files, subject, span, "profile")
    held = _profile(files, against, reference.span, "profile for the reference")
    return _Pair(current, held, match(subject, list(current.columns), against, list(held.columns)))


def _reference(setting: ReferenceSetting, span: Span | None) -> Reference:
    if setting.training_set is not None:
        return Reference(Subject(SubjectKind.TRAINING_SET, setting.training_set))
    if setting.days is not None:
        # A training set lies at no time of its own, so no days lie before it.
        return Reference(span=None if span is None else Span(span.start_us - setting.days * _DAY_US, span.start_us))
    return Reference(span=setting.span)


def _profile(files: ProfileFiles, subject: Subject, span: Span | None, what: str) -> SubjectProfile:
    if (found := files.merged(subject, span)) is not None:
        return found
    times = "" if span is None else f" --from {_option(span.start_us)} --to {_option(span.end_us)}"
    when = "" if span is None else f" from {said(span.start_us)} to {said(span.end_us)}"
    named = shlex.quote(subject.name)
    raise _Refused(
        f"{subject} has no {what}{when}; run 'larder monitor profile {OPTIONS[subject.kind]} {named}{times}'"
    )


def _option(instant_us: int) -> str:
    return said(instant_us).replace("+00:00", "Z")


def _columns(pair: _Pair, settings: MonitoringSettings) -> dict[str, _Column]:
    """Returns the features that can be compared, by their names in the current profile."""
    found = {}
    for name, theirs in pair.names.matched.items():
        current, reference = pair.current.columns[name], pair.reference.columns[theirs]
        full = qualified(pair.current.subject, name)
        if current.kind == reference.kind and not settings.ignores(full):
            found[name] = _Column(current, reference, compare(reference, current, settings.rows_alike_of(full)))
    return found


def _features(
    pair: _Pair, found: Mapping[str, _Column], results: Mapping[str, list[Judged]], settings: MonitoringSettings
) -> Iterator[FeatureDrift]:
    for name, current in pair.current.columns.items():
        if settings.ignores(qualified(pair.current.subject, name)):
            continue
        if name in found:
            yield _compared(name, pair.names.matched[name], found[name], results[name])
        elif name in pair.names.refused:
            told = f"not compared: {pair.names.refused[name]}"
            yield FeatureDrift(name, "", current.type_name, current.kind, Verdict.NOT_COMPARED, told)
        else:
            theirs = pair.names.matched[name]
            told = (
                f"its type changed: it was {pair.reference.columns[theirs].type_name} and is {current.type_name}, so "
                "their values cannot be compared"
            )
            yield FeatureDrift(name, theirs, current.type_name, current.kind, Verdict.ALARM, told)
    if pair.current.subject == pair.reference.subject:
        for name in pair.names.gone:
            if not settings.ignores(qualified(pair.current.subject, name)):
                column = pair.reference.columns[name]
                told = "not compared: the reference has it, and the current profile does not"
                yield FeatureDrift(name, name, column.type_name, column.kind, Verdict.NOT_COMPARED, told)


def _compared(name: str, theirs: str, column: _Column, judged: Sequence[Judged]) -> FeatureDrift:
    verdict = verdict_of(judged)
    measures = tuple(result_of(each) for each in judged)
    sides = (side_of(column.reference), side_of(column.current))
    bars = bars_of(column.comparison.cells)
    told = [statement(verdict, measures, sides, bars)]
    if column.current.type_name != column.reference.type_name:
        told.append(f"its type was {column.reference.type_name} and is {column.current.type_name}")
    if column.current.kind is Kind.OPAQUE and column.current.skipped:
        told.append(f"only nulls are compared ({column.current.skipped})")
    return FeatureDrift(
        feature=name,
        reference_feature=theirs,
        type_name=column.current.type_name,
        kind=str(column.current.kind),
        verdict=verdict,
        statement="; ".join(told),
        measures=measures,
        reference=sides[0],
        current=sides[1],
        bars=bars,
    )


def _report(
    pair: _Pair, features: tuple[FeatureDrift, ...], settings: MonitoringSettings, comparisons: int, now_us: int
) -> DriftReport:
    current, reference = pair.current, pair.reference
    ignored = [name for name in current.columns if settings.ignores(qualified(current.subject, name))]
    return DriftReport(
        subject=current.subject,
        span=current.span,
        reference=reference.subject,
        reference_span=reference.span,
        computed_us=now_us,
        rows=current.rows,
        reference_rows=reference.rows,
        false_alarm_rate=settings.false_alarm_rate,
        rows_min=settings.rows_min,
        comparisons=comparisons,
        features=features,
        notes=tuple(_notes(current, reference, ignored)),
    )


def _notes(current: SubjectProfile, reference: SubjectProfile, ignored: Sequence[str]) -> Iterator[str]:
    for side, profile in (("current", current), ("reference", reference)):
        if not profile.rows:
            yield f"{side}: no rows from {said(profile.span.start_us)} to {said(profile.span.end_us)}"
        yield from (f"{side}: {note}" for note in profile.notes)
    if current.subject == reference.subject and current.span.meets(reference.span):
        yield "current and reference overlap in time: what both hold makes them look alike"
    if ignored:
        yield f"ignored by the settings: {', '.join(ignored)}"


def _unused(settings: MonitoringSettings, pairs: Sequence[_Pair]) -> Iterator[str]:
    """Yields what the settings say of features and subjects that there are not: a name that is misspelt."""
    features = {qualified(pair.current.subject, name) for pair in pairs for name in pair.current.columns}
    subjects = {pair.current.subject.name for pair in pairs}
    for key, given, known in (("features", settings.features, features), ("references", settings.references, subjects)):
        for name in given:
            if name not in known:
                yield f"{FILE}: {key}[{name!r}] applies to nothing that was compared; correct the name or take it out"
