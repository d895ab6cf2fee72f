"""Kept reports of drift: one JSON file per run and subject under `data/monitor/drift/<kind>/<name>/` of the repo.

A file is called `<start>-<end>-<run>.json` like the profiles, by the stretch of the current profile and by when it was
computed; a later run over the same stretch supersedes the earlier one. Files are written whole or not at all and never
changed, so they are read without a lock.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from store.errors import OfflineStoreError, OutOfSpace
from store.files import is_disk_full, locked, write_atomically
from store.limits import DRIFT_FILE_BYTES_MAX, DRIFT_FILES_MAX
from store.monitor.drift_report import DriftPoint, DriftReport
from store.monitor.profile_files import folder_name
from store.monitor.profile_form import OtherVersion
from store.monitor.subjects import Span, Subject

FORMAT_VERSION: Final = 1
_FOLDER: Final = ("data", "monitor", "drift")
_OFFSET: Final = 2**63
_NAME = re.compile(r"([0-9]{20})-([0-9]{20})-([0-9]{20})\.json")


class _Kept(msgspec.Struct, frozen=True):
    format: int
    report: DriftReport


class _Form(msgspec.Struct, frozen=True):
    format: int


class _Run(NamedTuple):
    """What the name of a file says."""

    span: Span
    run_us: int
    path: Path


class DriftFiles:
    """The reports of drift that a feature repo keeps."""

    def __init__(self, repo_path: Path) -> None:
        self._folder = Path(repo_path).joinpath(*_FOLDER)
        self._problems: dict[Path, str] = {}

    @property
    def problems(self) -> list[str]:
        """What was found so far that is no report or cannot be read, a sentence each with the remedy."""
        return [self._problems[path] for path in sorted(self._problems)]

    def append(self, report: DriftReport) -> Path:
        """Keeps a report beside all others, and returns its file.

        Raises:
            OutOfSpace: no room; nothing was written.
            OfflineStoreError: it cannot be written; nothing was written.
        """
        folder = self._folder_of(report.subject)
        content = msgspec.json.encode(_Kept(FORMAT_VERSION, report))
        try:
            with locked(folder / "drift"):
                runs = [each.run_us for each in self._runs(folder) if each.span == report.span]
                run_us = max([report.computed_us, *(run + 1 for run in runs)])
                stamps = (report.span.start_us, report.span.end_us, run_us)
                path = folder / f"{'-'.join(f'{each + _OFFSET:020d}' for each in stamps)}.json"
                write_atomically(path, content)
                return path
        except OSError as error:
            if is_disk_full(error):
                raise OutOfSpace(f"no room to keep the drift of {report.subject} in {str(folder)!r}") from error
            raise OfflineStoreError(
                f"the drift of {report.subject} cannot be written to {str(folder)!r} ({error.strerror or error}); "
                "allow it to be written"
            ) from error

    def latest(self, subject: Subject) -> DriftReport | None:
        """Returns the report of the latest stretch, the last one computed of it; None if there is none."""
        runs = sorted(self._runs(self._folder_of(subject)), key=lambda each: (each.span.end_us, each.run_us))
        return next((report for each in reversed(runs) if (report := self._read(subject, each)) is not None), None)

    def history(self, subject: Subject, feature: str) -> list[DriftPoint]:
        """Returns what was found of a feature over time, in order of the stretches: of each the last run.

        At most the latest `DRIFT_FILES_MAX` stretches are read.
        """
        points = []
        for report in self._newest(subject):
            found = next((each for each in report.features if each.feature == feature), None)
            if found is not None:
                points.append(
                    DriftPoint(
                        report.span,
                        report.computed_us,
                        found.verdict,
                        {each.name: each.value for each in found.measures if each.value is not None},
                        {each.name: each.threshold for each in found.measures if each.threshold is not None},
                    )
                )
        return points

    def _newest(self, subject: Subject) -> Iterator[DriftReport]:
        runs: dict[Span, list[_Run]] = {}
        for each in self._runs(self._folder_of(subject)):
            runs.setdefault(each.span, []).append(each)
        for span in sorted(runs)[-DRIFT_FILES_MAX:]:
            ordered = sorted(runs[span], key=lambda each: each.run_us, reverse=True)
            report = next((found for each in ordered if (found := self._read(subject, each)) is not None), None)
            if report is not None:
                yield report

    def _folder_of(self, subject: Subject) -> Path:
        return self._folder / subject.kind / folder_name(subject.name)

    def _runs(self, folder: Path) -> list[_Run]:
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone are wanted
        except FileNotFoundError:
            return []
        runs = []
        for name in names:
            if name.startswith(".") or name.endswith(".lock"):
                continue
            match = _NAME.fullmatch(name)
            if match is None:
                path = folder / name
                self._problems[path] = f"{str(path)!r} is no report of Larder's and was left out; take it away"
                continue
            start_us, end_us, run_us = (int(part) - _OFFSET for part in match.groups())
            runs.append(_Run(Span(start_us, end_us), run_us, folder / name))
        return runs

    def _read(self, subject: Subject, run: _Run) -> DriftReport | None:
        """Returns the report in a file, None if it is not what its name says; `problems` then has why."""
        try:
            return _checked(subject, run)
        except FileNotFoundError:
            return None  # Deleted since it was listed.
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            cure = (
                "read it with a later version of Larder"
                if isinstance(error, OtherVersion)
                else "delete it and run 'larder monitor drift' for that time again"
            )
            self._problems[run.path] = f"report {str(run.path)!r} cannot be read and was left out ({reason}); {cure}"
            return None


def _checked(subject: Subject, run: _Run) -> DriftReport:
    """Returns the report in a file; raises ValueError if it is not what the name of the file says."""
    if run.path.stat().st_size > DRIFT_FILE_BYTES_MAX:
        raise ValueError(f"it is greater than {DRIFT_FILE_BYTES_MAX} bytes")
    content = run.path.read_bytes()
    version = msgspec.json.decode(content, type=_Form).format
    if version != FORMAT_VERSION:
        raise OtherVersion(f"it has format {version}, and this version knows {FORMAT_VERSION}")
    report = msgspec.json.decode(content, type=_Kept).report
    if (report.subject, report.span) != (subject, run.span):
        raise ValueError(f"it is of {report.subject}, or of other days than its name says")
    return report
