"""Kept reports of drift: one JSON file per run and subject under `data/monitor/drift/<kind>/<name>/` of the repo.

The stretch in a file's name is that of the current profile; a later run over the same stretch supersedes the earlier
one. What was read is kept for as long as the object is, since files never change: pages ask for the same ones again.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from store.files import write_atomically
from store.kernel.drift_measures import Verdict
from store.limits import DRIFT_FEATURES_KEPT_MAX, DRIFT_FILE_BYTES_MAX, DRIFT_FILES_MAX, DRIFT_POINTS_KEPT_MAX
from store.monitor.drift_report import DriftPoint, DriftReport
from store.monitor.kept_runs import KeptRun, KeptRuns, OtherVersion
from store.monitor.subjects import Span, Subject

FORMAT_VERSION: Final = 1
_FOLDER: Final = ("data", "monitor", "drift")


class _Kept(msgspec.Struct, frozen=True):
    format: int
    report: DriftReport


class _Measured(msgspec.Struct, frozen=True):
    name: str
    value: float | None
    threshold: float | None


class _Feature(msgspec.Struct, frozen=True):
    feature: str
    verdict: Verdict
    measures: tuple[_Measured, ...] = ()


class _Outline(msgspec.Struct, frozen=True):
    """A report without what drift over time has no use for."""

    subject: Subject
    span: Span
    computed_us: int
    features: tuple[_Feature, ...]


class _KeptOutline(msgspec.Struct, frozen=True):
    format: int
    report: _Outline


class _Form(msgspec.Struct, frozen=True):
    format: int


Held = TypeVar("Held", _Kept, _KeptOutline)
Content = TypeVar("Content")


class DriftFiles:
    """The reports of drift that a feature repo keeps."""

    def __init__(self, repo_path: Path, features_kept_max: int | None = None) -> None:
        """Takes the repo, and how many features of reports are kept once read (the limit's; 0: of one report)."""
        self._features_kept_max = features_kept_max
        folder = Path(repo_path).joinpath(*_FOLDER)
        cure = "delete it and run 'larder monitor drift' for that time again"
        self._runs = KeptRuns(folder, ".json", "drift report", cure)
        self._reports: _Recent[DriftReport] = _Recent()
        self._points: _Recent[dict[str, DriftPoint]] = _Recent()

    @property
    def problems(self) -> list[str]:
        """What was found so far that is no report or cannot be read, a sentence each with the remedy."""
        return self._runs.problems

    def append(self, report: DriftReport) -> Path:
        """Keeps a report beside all others, and returns its file.

        Raises:
            OutOfSpace: no room; nothing was written.
            OfflineStoreError: it cannot be written; nothing was written.
        """
        content = msgspec.json.encode(_Kept(FORMAT_VERSION, report))
        with self._runs.appending(report.subject, report.span, report.computed_us) as path:
            write_atomically(path, content)
            return path

    def latest(self, subject: Subject) -> DriftReport | None:
        """Returns the report of the latest stretch, the last one computed of it; None if there is none."""
        runs = sorted(self._runs.of(subject), key=lambda each: (each.span.end_us, each.run_us), reverse=True)
        return next((report for each in runs if (report := self._report(subject, each)) is not None), None)

    def history(self, subject: Subject, feature: str) -> list[DriftPoint]:
        """Returns what was found of a feature over time, in order of the stretches: of each the last run.

        At most the latest `DRIFT_FILES_MAX` stretches are read.
        """
        by_span = self._runs.by_span(subject)
        found = (self._last_points(subject, by_span[span]) for span in sorted(by_span)[-DRIFT_FILES_MAX:])
        return [points[feature] for points in found if feature in points]

    def _report(self, subject: Subject, run: KeptRun) -> DriftReport | None:
        report = self._reports.get(run.path)
        if report is None and (kept := self._runs.read(run.path, partial(_checked, _Kept, subject, run))) is not None:
            report = kept.report
            most = DRIFT_FEATURES_KEPT_MAX if self._features_kept_max is None else self._features_kept_max
            self._reports.keep(run.path, report, len(report.features), most)
        return report

    def _last_points(self, subject: Subject, runs: Sequence[KeptRun]) -> dict[str, DriftPoint]:
        """Returns what the last run that can be read found of each feature."""
        for run in reversed(runs):
            points = self._points.get(run.path)
            if points is not None:
                return points
            kept = self._runs.read(run.path, partial(_checked, _KeptOutline, subject, run))
            if kept is not None:
                points = _points_of(kept.report)
                self._points.keep(run.path, points, len(points), DRIFT_POINTS_KEPT_MAX)
                return points
        return {}


class _Recent(Generic[Content]):
    """What was read of files, those asked for last, up to a sum of their sizes; the last one whatever its size."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, tuple[Content, int]] = OrderedDict()
        self._size = 0

    def get(self, path: Path) -> Content | None:
        if path not in self._held:
            return None
        self._held.move_to_end(path)
        return self._held[path][0]

    def keep(self, path: Path, content: Content, size: int, size_max: int) -> None:
        self._held[path] = content, size
        self._size += size
        while self._size > size_max and len(self._held) > 1:
            self._size -= self._held.popitem(last=False)[1][1]


def _points_of(report: _Outline) -> dict[str, DriftPoint]:
    return {
        each.feature: DriftPoint(
            report.span,
            report.computed_us,
            each.verdict,
            {measure.name: measure.value for measure in each.measures if measure.value is not None},
            {measure.name: measure.threshold for measure in each.measures if measure.threshold is not None},
        )
        for each in report.features
    }


def _checked(held: type[Held], subject: Subject, run: KeptRun) -> Held:
    """Returns what a file holds; raises ValueError if it is not what the name of the file says."""
    if run.path.stat().st_size > DRIFT_FILE_BYTES_MAX:
        raise ValueError(f"it is greater than {DRIFT_FILE_BYTES_MAX} bytes")
    content = run.path.read_bytes()
    version = msgspec.json.decode(content, type=_Form).format
    if version != FORMAT_VERSION:
        raise OtherVersion(f"it has format {version}, and this version knows {FORMAT_VERSION}")
    kept = msgspec.json.decode(content, type=held)
    if (kept.report.subject, kept.report.span) != (subject, run.span):
        raise ValueError(f"it is of {kept.report.subject}, or of other days than its name says")
    return kept
