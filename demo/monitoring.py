"""What the demo watches: weather of two seasons, a fault planted into the stream, served values beside learned ones.

Winter against summer is drift that nobody has to plant. The fault is one that happens: an airport that is new to the
feed sends its delays in seconds, as if they were minutes. It has a name that no flight has, so no real key gets a wrong
value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from demo.events import KNOWN_AT, LAST_INSTANT, REPLAY_END, REPLAY_START
from demo.printer import Printer
from demo.processes import ChildFailed, Children, log_tail
from store.clock import clock_for, to_us
from store.monitor.drift import DriftRequest, Reference, drift
from store.monitor.drift_files import DriftFiles
from store.monitor.drift_report import DriftReport
from store.monitor.due import Asked
from store.monitor.profiling import Profiler
from store.monitor.settings import monitoring_settings
from store.monitor.subjects import Span, Subject, SubjectKind

if TYPE_CHECKING:
    from feast import FeatureStore

FAULTY_EVENTS = 300
FAULTY_ORIGIN, FAULTY_CARRIER = "TST", "ZZ"
_FAULTY_SINCE = REPLAY_END - timedelta(hours=1)
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US

_WEATHER = Subject(SubjectKind.FEATURE_VIEW, "origin_weather")
_DEPARTURES = Subject(SubjectKind.PUSH_SOURCE, "departures_push")
REPORT = Path("data") / "monitor" / "report.html"


def faulty_events(departures: pd.DataFrame) -> pd.DataFrame:
    """Returns departures of an airport that sends seconds for minutes, within the last hour of the day.

    Args:
        departures: real ones, whose delays are taken.
    """
    real = departures[departures["departure_delay_minutes"].notna()].head(FAULTY_EVENTS).reset_index(drop=True)
    step = (LAST_INSTANT - _FAULTY_SINCE) / len(real)
    at = pd.Series([_FAULTY_SINCE + place * step for place in range(len(real))]).astype("datetime64[us, UTC]")
    return real.assign(
        origin=FAULTY_ORIGIN,
        carrier=FAULTY_CARRIER,
        happened_at=at,
        departure_delay_minutes=real["departure_delay_minutes"] * 60,
        **{KNOWN_AT: at},
    )


@dataclass(frozen=True, slots=True)
class _Watched:
    """A comparison that the demo makes, and the feature that it has to find."""

    title: str
    subject: Subject
    span: Span
    reference: Reference
    finds: str


def _span(start: datetime, end: datetime) -> Span:
    return Span(to_us(start), to_us(end))


def _watched(service: str, training_set: str) -> list[_Watched]:
    winter = _span(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 2, 1, tzinfo=UTC))
    summer = _span(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 8, 1, tzinfo=UTC))
    learned = Reference(Subject(SubjectKind.TRAINING_SET, training_set))
    served = Subject(SubjectKind.FEATURE_SERVICE, service)
    return [
        _Watched("weather, July to January", _WEATHER, summer, Reference(span=winter), "temperature_f"),
        _Watched(
            "departures pushed, last hour to hours before",
            _DEPARTURES,
            _span(_FAULTY_SINCE, REPLAY_END),
            Reference(span=_span(REPLAY_START, _FAULTY_SINCE)),
            "departure_delay_minutes",
        ),
        _Watched("served, the day to the training set", served, _span(REPLAY_START, REPLAY_END), learned, ""),
    ]


class Watch:
    """Profiles and compares, and has the report written."""

    def __init__(self, printer: Printer, store: "FeatureStore", repo: Path) -> None:
        self._printer = printer
        self._repo = repo
        self._profiler = Profiler(store, repo)

    def profile(self, service: str, training_set: str) -> None:
        """Profiles both sides of every comparison, as `larder monitor profile` does.

        Raises:
            ChildFailed: something could not be profiled.
        """
        with self._printer.step("larder monitor profile") as report:
            rows = columns = 0
            for watched in _watched(service, training_set):
                report(watched.subject.name)
                for subject, span in _sides(watched):
                    outcome = self._profiler.run(subject, _asked(span))
                    if outcome.problem:
                        raise ChildFailed(outcome.problem)
                    rows += sum(profile.rows for profile in outcome.profiles)
                    columns += len(outcome.profiles[0].columns) if outcome.profiles else 0
        self._printer.note(f"{rows:,} rows of {columns} features, in one scan each.")

    def compare(self, service: str, training_set: str) -> bool:
        """Tells what has drifted, as `larder monitor drift` does; whether all that has to be found was found."""
        settings, files = monitoring_settings(self._repo), DriftFiles(self._repo)
        found: list[tuple[_Watched, DriftReport]] = []
        with self._printer.step("larder monitor drift"):
            for watched in _watched(service, training_set):
                request = DriftRequest([watched.subject], watched.span, watched.reference)
                run = drift(self._profiler.files, settings, request, clock_for(self._repo).now_us())
                if run.refusals or run.problems:
                    raise ChildFailed("; ".join([*run.refusals, *run.problems]))
                for report in run.reports:
                    files.append(report)
                    found.append((watched, report))
        self._printer.table(["held against each other", "features", "drifted"], [_line(*each) for each in found])
        missed = [watched.finds for watched, report in found if not _is_found(watched, report)]
        for watched, report in found:
            statement = next((each.statement for each in report.alarms if each.feature == watched.finds), "")
            if statement:
                self._printer.note(f"{watched.finds}: {statement.partition('; PSI')[0]}.")
        if missed:
            self._printer.failure(f"Not found to have drifted: {', '.join(missed)}")
        return not missed

    def report(self, children: Children, command: Sequence[str], log: Path) -> None:
        """Has the report written, by the command that does it; that it tells of alarms is its status.

        Raises:
            ChildFailed: it could not be written.
        """
        with self._printer.step("larder monitor report"):
            child = children.start(command, log, self._repo)
            code = children.ended(child)
            if code not in {0, 1}:
                raise ChildFailed(f"`larder monitor report` ended with exit code {code}; it printed:\n{log_tail(log)}")
            log.unlink(missing_ok=True)


def _sides(watched: _Watched) -> list[tuple[Subject, Span | None]]:
    reference = watched.reference
    return [(reference.subject or watched.subject, reference.span), (watched.subject, watched.span)]


def _asked(span: Span | None) -> Asked:
    """Returns what to profile: by the hour within a day, else by the day; None is all of a training set."""
    if span is None:
        return Asked(None, None, _DAY_US)
    is_a_day = span.end_us - span.start_us <= _DAY_US
    return Asked(span.start_us, span.end_us, _HOUR_US if is_a_day else _DAY_US)


def _is_found(watched: _Watched, report: DriftReport) -> bool:
    return not watched.finds or any(each.feature == watched.finds for each in report.alarms)


def _line(watched: _Watched, report: DriftReport) -> list[str]:
    return [watched.title, str(len(report.features)), str(len(report.alarms))]
