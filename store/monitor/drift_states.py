"""What the last run found of each subject whose drift is kept: how many features are alarms, and when."""

import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import msgspec

from store.monitor.drift_files import DriftFiles
from store.monitor.subjects import Subject, SubjectKind

_SETTLED_NS = 2_000_000_000
_UNSETTLED = -1


@dataclass(frozen=True, slots=True)
class DriftState:
    """How many features of a subject have drifted, and when that was computed (microseconds since the epoch)."""

    subject: Subject
    alarms: int
    computed_us: int


class _Report(msgspec.Struct):
    subject: Subject


class _Kept(msgspec.Struct):
    report: _Report


class DriftStates:
    """Reads the states of all subjects; a folder in which nothing has changed is not read again."""

    def __init__(self, repo_path: Path) -> None:
        self._folder = Path(repo_path) / "data" / "monitor" / "drift"
        # Numbers are all that a serving worker keeps of reports.
        self._files = DriftFiles(repo_path, features_kept_max=0)
        self._known: dict[Path, tuple[int, DriftState | None]] = {}

    def look(self) -> list[DriftState]:
        """Returns the states by kind and name; a subject whose reports are all damaged has none."""
        known: dict[Path, tuple[int, DriftState | None]] = {}
        for kind in SubjectKind:
            for folder in sorted((self._folder / kind).glob("*")):
                try:
                    changed_ns = folder.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
                before = self._known.get(folder)
                if before is None or before[0] != changed_ns:
                    # What is written within one tick of the file system's clock gets the same time as what was read.
                    is_settled = changed_ns < time.time_ns() - _SETTLED_NS
                    before = changed_ns if is_settled else _UNSETTLED, self._state(kind, folder)
                known[folder] = before
        self._known = known
        return [state for _, state in known.values() if state is not None]

    def _state(self, kind: SubjectKind, folder: Path) -> DriftState | None:
        subject = _subject(kind, folder)
        report = None if subject is None else self._files.latest(subject)
        return None if report is None else DriftState(report.subject, len(report.alarms), report.computed_us)


def _subject(kind: SubjectKind, folder: Path) -> Subject | None:
    """Returns whose folder it is; a long name stands only in its files, since the folder's is shortened."""
    if "+" not in folder.name:
        return Subject(kind, unquote(folder.name))
    for path in sorted(folder.glob("[!.]*.json"), reverse=True):
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Kept).report.subject
        except (OSError, ValueError):
            continue
    return None
