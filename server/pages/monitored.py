"""What monitoring has kept of a repo, as pages show it: profiles and drift."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from server.limits import DRIFT_KEPT_SECONDS, PROFILES_KEPT_MAX
from server.pages import charts
from server.pages.profile_lines import figures, line_of, told_span
from server.pages.shown import instant, link, number, sentence, share
from store.catalogue import Catalogue, Feature
from store.kernel.drift_measures import LENGTH, Measure, Verdict
from store.kernel.profiles import ColumnProfile
from store.monitor.drift_files import DriftFiles
from store.monitor.drift_report import DriftReport, FeatureDrift, MeasureResult
from store.monitor.profile_files import ProfileFiles
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile

if TYPE_CHECKING:
    from server.pages.asked import Asked

Draw = Callable[[dict[str, Any], str], Markup]
"""Makes a picture of a chart's specification and its label."""

_VERDICTS: Final = {
    Verdict.ALARM: ("bad", "drifted"),
    Verdict.STABLE: ("good", "stable"),
    Verdict.TOO_FEW: ("calm", "too few rows"),
    Verdict.NOT_COMPARED: ("warn", "not compared"),
    Verdict.NOT_JUDGED: ("calm", "not judged"),
}
KINDS: Final = {
    SubjectKind.FEATURE_VIEW: "Source of",
    SubjectKind.FEATURE_SERVICE: "Served by",
    SubjectKind.TRAINING_SET: "Training set",
    SubjectKind.PUSH_SOURCE: "Pushed to",
}
_PAGES: Final = {
    SubjectKind.FEATURE_VIEW: "view",
    SubjectKind.FEATURE_SERVICE: "service",
    SubjectKind.TRAINING_SET: "training-set",
    SubjectKind.PUSH_SOURCE: "source",
}
_PANELS_MAX: Final = 4
"""Distributions of one feature on its page: its source, what services were served, training sets."""

_MEASURES: Final[dict[str, str]] = {
    Measure.PSI: "PSI", Measure.JENSEN_SHANNON: "Jensen-Shannon", Measure.KOLMOGOROV_SMIRNOV: "Kolmogorov-Smirnov",
    Measure.CHI_SQUARED: "Chi-squared", Measure.NAN_RATE: "NaN rate",
}  # fmt: skip

_POINTS_MAX: Final = 400
"""Runs in a chart of drift over time, the last ones: over a year of daily runs."""

_SPANS_MAX: Final = 14
"""Profiles that are looked through for one with rows, the latest first; two weeks of daily ones."""

_NAMED_MAX: Final = 4


class Monitored:
    """Reads what monitoring keeps beside the data of a repo."""

    def __init__(self, repo_path: Path) -> None:
        self._profiles = ProfileFiles(repo_path)
        self._drifts = DriftFiles(repo_path)
        self._kept: OrderedDict[Subject, tuple[tuple[dict[Span, int], int], SubjectProfile | None]] = OrderedDict()
        self._merged: OrderedDict[tuple[Subject, Span], tuple[dict[Span, int], SubjectProfile | None]] = OrderedDict()
        self._reports: tuple[Catalogue | None, float, list[DriftReport]] = (None, 0.0, [])

    @property
    def problems(self) -> list[str]:
        """What was found that cannot be read, a sentence each."""
        return [*self._profiles.problems, *self._drifts.problems]

    def subjects(self) -> list[Subject]:
        """Returns what has a profile."""
        return self._profiles.subjects()

    def all_reports(self) -> list[DriftReport]:
        """Returns the last drift report of each subject that has a profile, whether it is still registered or not."""
        found = (self._drifts.latest(subject) for subject in self.subjects())
        return [each for each in found if each is not None]

    def over(self, subject: Subject, span: Span) -> SubjectProfile | None:
        """Returns the profile of a subject over a stretch of time, None if there is none; merged again only if new."""
        spans = self._profiles.spans(subject)
        key = subject, span
        kept = self._merged.get(key)
        if kept is None or kept[0] != spans:
            kept = self._merged[key] = spans, self._profiles.merged(subject, span)
            if len(self._merged) > PROFILES_KEPT_MAX:
                self._merged.popitem(last=False)
        self._merged.move_to_end(key)
        return kept[1]

    # --- profiles -----------------------------------------------------------------------------

    def current(self, subject: Subject) -> SubjectProfile | None:
        """Returns the profile of a subject that the last drift report looked at, else the latest that has rows.

        It is read again only if there is another profile or report.
        """
        report = self._drifts.latest(subject)
        stamp = self._profiles.spans(subject), 0 if report is None else report.computed_us
        kept = self._kept.get(subject)
        if kept is None or kept[0] != stamp:
            kept = self._kept[subject] = stamp, self._read(subject, stamp[0], report)
            if len(self._kept) > PROFILES_KEPT_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(subject)
        return kept[1]

    def _read(self, subject: Subject, spans: Iterable[Span], report: DriftReport | None) -> SubjectProfile | None:
        if report is not None and (looked_at := self._profiles.merged(subject, report.span)) is not None:
            return looked_at
        for span in sorted(spans, key=lambda each: (each.end_us, each.start_us), reverse=True)[:_SPANS_MAX]:
            for profile in reversed(self._profiles.read(subject, span)):
                if profile.rows:
                    return profile
        # Of what seldom changes the last days are empty.
        return self._profiles.merged(subject)

    def profiled(self, kind: str, name: str) -> dict[str, Any] | None:
        """Returns the current profile of a subject, a line for each column; None if there is none."""
        subject = Subject(SubjectKind(kind), name)
        profile = self.current(subject)
        if profile is None:
            return None
        report = self._drifts.latest(subject)
        drifts = {each.feature: each for each in report.features} if report else {}
        return {
            "rows": profile.rows,
            "span": (profile.span.start_us, profile.span.end_us),
            "notes": profile.notes,
            "reference": _reference(report) if report else "",
            "by_name": {
                column.name: line_of(column) | {"verdict": _verdict(drifts.get(column.name))}
                for column in profile.columns.values()
            },
        }

    def distributions(self, asked: "Asked", feature: Feature) -> list[dict[str, Any]]:
        """Returns the distributions of a feature: in its source, as served, in training sets."""
        panels = []
        for subject, names in _subjects_of(asked.catalogue, feature):
            profile = self.current(subject)
            found = None if profile is None else next((profile.columns[n] for n in names if n in profile.columns), None)
            if profile is not None and found is not None:
                panels.append(self._panel(asked, subject, profile, found))
            if len(panels) == _PANELS_MAX:
                break
        return panels

    def _panel(
        self, asked: "Asked", subject: Subject, profile: SubjectProfile, column: ColumnProfile
    ) -> dict[str, Any]:
        reference, words = self._reference_of(subject, column.name)
        chart, left_out = chart_of(asked.chart, column, reference)
        return {
            "title": KINDS[subject.kind],
            "name": subject.name,
            "href": link(_PAGES[subject.kind], subject.name),
            "note": f"{number(profile.rows)} rows, {told_span(profile.span)}.",
            "chart": chart,
            "left_out": share(left_out, 1) if left_out else "",
            "current": "current",
            "reference": words,
            "rows": figures(column, reference),
            "notes": [*([column.skipped] if column.skipped else []), *profile.notes],
        }

    def _reference_of(self, subject: Subject, name: str) -> tuple[ColumnProfile | None, str]:
        """Returns what the last drift report held a column against, and what that is; None where there is nothing."""
        report = self._drifts.latest(subject)
        drift = next((each for each in report.features if each.feature == name), None) if report else None
        if report is None or drift is None or not drift.reference_feature:
            return None, ""
        profile = self.over(report.reference, report.reference_span)
        column = profile.columns.get(drift.reference_feature) if profile else None
        return column, "" if column is None else "reference"

    # --- drift --------------------------------------------------------------------------------

    def drifts(self, asked: "Asked", feature: Feature) -> list[dict[str, Any]]:
        """Returns how a feature drifted over time, and every measure of the last run."""
        panels = []
        for subject, names in _subjects_of(asked.catalogue, feature):
            report = self._drifts.latest(subject)
            found = next((each for each in report.features if each.feature in names), None) if report else None
            if report is not None and found is not None:
                panels.append(self._drift_panel(asked, subject, report, found))
        return panels[:_PANELS_MAX]

    def _drift_panel(
        self, asked: "Asked", subject: Subject, report: DriftReport, drift: FeatureDrift
    ) -> dict[str, Any]:
        measure = _telling(drift.measures)
        chart = None
        if measure is not None:
            points = [
                charts.Measured(each.span.end_us // 1000, each.measures[measure.name], each.verdict is Verdict.ALARM)
                for each in self._drifts.history(subject, drift.feature)[-_POINTS_MAX:]
                if measure.name in each.measures
            ]
            if len(points) > 1:
                spec = charts.drift_over_time(points, measure.threshold, words(measure.name))
                chart = asked.chart(spec, f"{words(measure.name)} of {drift.feature} over {len(points)} runs")
        return {
            "title": f"{KINDS[subject.kind]} {subject.name}",
            "note": f"{sentence(drift.statement)} {note_of(report)}",
            "chart": chart,
            "caption": "Each dot is a run, those that raised an alarm are filled; the dashed line is the threshold."
            if chart
            else "",
            "rows": [measure_row(each) for each in drift.measures],
        }

    def summaries(self, asked: "Asked") -> list[dict[str, Any]]:
        """Returns what the last drift report of each subject says in a sentence."""
        return [_summary(each) for each in self._latest(asked.catalogue)]

    def reports(self, asked: "Asked") -> list[dict[str, Any]]:
        """Returns the last drift report of each subject that has one, with a row for every feature."""
        return [_summary(each) | _details(asked.catalogue, each) for each in self._latest(asked.catalogue)]

    def _latest(self, catalogue: Catalogue) -> list[DriftReport]:
        held, at, reports = self._reports
        if held is not catalogue or time.monotonic() - at > DRIFT_KEPT_SECONDS:
            found = (self._drifts.latest(subject) for subject in _subjects(catalogue))
            reports = [each for each in found if each is not None]
            self._reports = catalogue, time.monotonic(), reports
        return reports


def _subjects(catalogue: Catalogue) -> Iterator[Subject]:
    kinds: Iterable[tuple[SubjectKind, Iterable[str]]] = (
        (SubjectKind.FEATURE_VIEW, catalogue.views),
        (SubjectKind.FEATURE_SERVICE, catalogue.services),
        (SubjectKind.TRAINING_SET, catalogue.training_sets),
        (SubjectKind.PUSH_SOURCE, catalogue.sources),
    )
    return (Subject(kind, name) for kind, names in kinds for name in names)


def _subjects_of(catalogue: Catalogue, feature: Feature) -> Iterator[tuple[Subject, tuple[str, ...]]]:
    """Yields what may have a profile of a feature, with the names that it goes by there."""
    yield Subject(SubjectKind.FEATURE_VIEW, feature.view), (feature.name,)
    for service in catalogue.services_of(feature.view, feature.name):
        names = tuple(f"{each.alias or each.view}:{feature.name}" for each in service.selections
                      if each.view == feature.view)  # fmt: skip
        yield Subject(SubjectKind.FEATURE_SERVICE, service.name), names
    for training_set in catalogue.training_sets_of(view=feature.view):
        if feature.reference in training_set.references:
            names = (f"{feature.view}__{feature.name}", feature.name)
            yield Subject(SubjectKind.TRAINING_SET, training_set.name), names


def chart_of(draw: Draw, column: ColumnProfile, reference: ColumnProfile | None) -> tuple[Any, float]:
    """Returns the picture of a column's values over those of a reference, and the share that lies outside of it."""
    label = f"Distribution of {column.name}{', and of its reference' if reference else ''}"
    numbers, theirs = column.numbers, reference.numbers if reference else None
    if numbers is None and column.categories is None:
        numbers, theirs = column.lengths, reference.lengths if reference else None
        label = f"Lengths of {column.name}"
    if numbers is not None:
        bars = charts.bars_of(numbers, theirs)
        has_bars = bars.current or bars.reference
        return (draw(charts.histogram(bars), label), bars.left_out) if has_bars else (None, 0.0)
    if column.categories is not None:
        shares = charts.category_shares(column.categories, reference.categories if reference else None)
        return (draw(charts.bars_of_categories(shares), label), 0.0) if shares else (None, 0.0)
    return None, 0.0


def _telling(measures: Iterable[MeasureResult]) -> MeasureResult | None:
    """Returns the measure to draw: one that raised an alarm, else the first that could raise one."""
    having = [each for each in measures if each.value is not None and each.threshold is not None]
    alarming = [each for each in having if each.verdict is Verdict.ALARM]
    return next(iter([*alarming, *having]), None)


def words(measure: str) -> str:
    """Returns a measure's name in words."""
    if measure.startswith(LENGTH):
        return f"{words(measure.removeprefix(LENGTH))} of lengths"
    return _MEASURES.get(measure, measure.replace("_", " ").capitalize())


def _verdict(drift: FeatureDrift | None) -> dict[str, str] | None:
    if drift is None:
        return None
    level, text = _VERDICTS[drift.verdict]
    return {"level": level, "text": text}


def measure_row(measure: MeasureResult) -> dict[str, Any]:
    """Returns a measure as a table has it."""
    level, text = _VERDICTS[measure.verdict]
    why = measure.why or (f"about {number(measure.rows_needed)} rows are needed" if measure.rows_needed else "")
    return {"measure": words(measure.name), "value": measure.value, "threshold": measure.threshold, "level": level,
            "verdict": text, "why": why}  # fmt: skip


def _summary(report: DriftReport) -> dict[str, Any]:
    subject = report.subject
    alarms = [each.feature for each in report.alarms]
    more = f" and {len(alarms) - _NAMED_MAX} more" if len(alarms) > _NAMED_MAX else ""
    named = ", ".join(alarms[:_NAMED_MAX]) + more
    return {
        "kind": KINDS[subject.kind],
        "name": subject.name,
        "href": link(_PAGES[subject.kind], subject.name),
        "alarms": len(alarms),
        "alarm_text": f"{named} drifted, held against {_reference(report)}",
    }


def _details(catalogue: Catalogue, report: DriftReport) -> dict[str, Any]:
    rows = [_feature_row(catalogue, report.subject, each) for each in sorted(report.features, key=_by_verdict)]
    return {"note": note_of(report), "notes": report.notes, "rows": rows}


def _by_verdict(drift: FeatureDrift) -> int:
    return list(_VERDICTS).index(drift.verdict) if drift.verdict in {Verdict.ALARM, Verdict.TOO_FEW} else 9


def _feature_row(catalogue: Catalogue, subject: Subject, drift: FeatureDrift) -> dict[str, Any]:
    view, _, name = drift.feature.rpartition(":")
    if subject.kind is SubjectKind.FEATURE_VIEW:
        view, name = subject.name, drift.feature
    is_registered = view in catalogue.views and any(each.name == name for each in catalogue.views[view].features)
    return drift_row(drift) | {"href": link("feature", name, view) if is_registered else ""}


def drift_row(drift: FeatureDrift) -> dict[str, Any]:
    """Returns what was found of a feature as a table has it."""
    level, text = _VERDICTS[drift.verdict]
    measure = _telling(drift.measures)
    return {
        "feature": drift.feature,
        "level": level,
        "verdict": text,
        "measure": words(measure.name) if measure else "",
        "value": measure.value if measure else None,
        "threshold": measure.threshold if measure else None,
        "why": sentence(drift.statement),
    }


def _reference(report: DriftReport) -> str:
    if report.reference == report.subject:
        return f"its own rows of {told_span(report.reference_span)}"
    return f"{KINDS[report.reference.kind].lower()} {report.reference.name}"


def note_of(report: DriftReport) -> str:
    """Returns what was compared, in a sentence."""
    return (
        f"{number(report.rows)} rows of {told_span(report.span)} against {number(report.reference_rows)} of "
        f"{_reference(report)}; measured {instant(report.computed_us).striptags()}."
    )
