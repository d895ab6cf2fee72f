"""Kept profiles: one Parquet file per run under `data/monitor/profiles/<kind>/<name>/` of the feature repo.

A file is called `<start>-<end>-<run>.parquet`, so that names sort by stretch and then by run: the instants in
microseconds, counted from -2^63 to have one length, and the run the instant at which it was computed, or just after the
last run over the same stretch if the clock stood still or went back. Files are written whole or not at all and are
never changed, so they are read without a lock.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Final, NamedTuple, cast
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from store.clock import said
from store.errors import OfflineStoreError, OutOfSpace
from store.files import is_disk_full, locked, publish
from store.kernel.profiles import Profile
from store.limits import (
    PROFILE_FEATURES_MAX,
    PROFILE_FILE_BYTES_MAX,
    PROFILE_FILES_MAX,
    PROFILE_NAME_CHARACTERS_MAX,
)
from store.monitor.profile_form import OtherVersion, from_parquet, subject_of, to_parquet
from store.monitor.slices import best_slices, gaps
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile

_FOLDER: Final = ("data", "monitor", "profiles")
_OFFSET: Final = 2**63
_DIGITS: Final = 20
_NAME = re.compile(r"([0-9]{20})-([0-9]{20})-([0-9]{20})\.parquet")
_GAPS_SHOWN_MAX = 3


class _Run(NamedTuple):
    """What the name of a file says."""

    span: Span
    run_us: int
    path: Path


class ProfileFiles:
    """The profiles that a feature repo keeps."""

    def __init__(self, repo_path: Path) -> None:
        self._folder = Path(repo_path).joinpath(*_FOLDER)
        self._problems: dict[Path, str] = {}

    @property
    def problems(self) -> list[str]:
        """What was found so far that is no profile or cannot be read, a sentence each with the remedy."""
        return [self._problems[path] for path in sorted(self._problems)]

    def append(self, profile: SubjectProfile) -> Path:
        """Keeps a profile beside all others, and returns its file; it supersedes earlier ones of the same span.

        Raises:
            OutOfSpace: no room; nothing was written.
            OfflineStoreError: it cannot be written, or has more features than are kept; nothing was written.
        """
        if len(profile.columns) > PROFILE_FEATURES_MAX:
            raise OfflineStoreError(
                f"{profile.subject} has {len(profile.columns)} features, and profiles hold {PROFILE_FEATURES_MAX}; "
                "split it into several"
            )
        folder = self._folder_of(profile.subject)
        try:
            with locked(folder / "profiles"):
                return _written(folder, profile)
        except OSError as error:
            if is_disk_full(error):
                raise OutOfSpace(f"no room to keep the profile of {profile.subject} in {str(folder)!r}") from error
            raise OfflineStoreError(
                f"the profile of {profile.subject} cannot be written to {str(folder)!r} ({error.strerror or error}); "
                "allow it to be written"
            ) from error

    def subjects(self) -> list[Subject]:
        """Returns the subjects that have a profile, in order."""
        found = []
        for kind in SubjectKind:
            for folder in sorted(_folders(self._folder / kind)):
                runs = sorted(self._runs(folder), key=lambda each: each.path.name, reverse=True)
                subjects = (self._subject(each.path) for each in runs)
                if (subject := next((each for each in subjects if each is not None), None)) is not None:
                    found.append(subject)
        return sorted(found)

    def spans(self, subject: Subject) -> dict[Span, int]:
        """Returns the stretches that have a profile, and when the last one of each was computed, without reading it."""
        return {span: run.run_us for span, run in self._newest_runs(subject).items()}

    def read(self, subject: Subject, span: Span | None = None) -> list[SubjectProfile]:
        """Returns the newest profile of each stretch that lies within a span, in order of time.

        Where one cannot be read, the newest that can is taken, and `problems` names the other.
        """
        runs: dict[Span, list[_Run]] = {}
        for each in self._runs(self._folder_of(subject)):
            if span is None or span.holds(each.span):
                runs.setdefault(each.span, []).append(each)
        chosen = sorted(runs)
        if len(chosen) > PROFILE_FILES_MAX:
            folder = self._folder_of(subject)
            self._problems[folder] = (
                f"{subject} has {len(chosen)} profiles in this span, and the latest {PROFILE_FILES_MAX} are read; ask "
                "for less time, or delete old ones with 'larder monitor profile --keep-days'"
            )
            chosen = chosen[-PROFILE_FILES_MAX:]
        read = (self._first(subject, runs[each]) for each in chosen)
        return [profile for profile in read if profile is not None]

    def newest(self, subject: Subject) -> SubjectProfile | None:
        """Returns the profile that was computed last, None if there is none."""
        runs = list(self._newest_runs(subject).values())
        return self._first(subject, sorted(runs, key=lambda each: (each.run_us, each.span)))

    def merged(self, subject: Subject, span: Span | None = None) -> SubjectProfile | None:
        """Returns the profile of all that was profiled within a span, None if nothing was.

        Of stretches that overlap those are taken that cover most time together, and of several ways to do so the one
        that was computed latest; so no row counts twice. Time within the span that nothing covers is told in the notes.
        Of a training set the newest profile within the span is taken, since it is always of all rows.
        """
        found = self.read(subject, span)
        if not found:
            return None
        if subject.kind is SubjectKind.TRAINING_SET:
            return max(found, key=lambda each: (each.computed_us, each.span))
        slices = best_slices(found)
        hull = Span(slices[0].span.start_us, slices[-1].span.end_us)
        first, *others = slices
        merged = reduce(Profile.merge, others, cast("Profile", first))
        return SubjectProfile(
            rows=merged.rows,
            columns=merged.columns,
            notes=(*merged.notes, *_told_gaps(slices, span or hull)),
            subject=subject,
            span=hull,
            computed_us=max(each.computed_us for each in slices),
        )

    def forget(self, subject: Subject, before_us: int) -> int:
        """Deletes the profiles of stretches that ended by an instant, and superseded ones; returns how many."""
        runs = self._runs(self._folder_of(subject))
        newest = {run.path for run in self._newest_runs(subject).values()}
        old = [each.path for each in runs if each.span.end_us <= before_us or each.path not in newest]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _folder_of(self, subject: Subject) -> Path:
        return self._folder / subject.kind / folder_name(subject.name)

    def _runs(self, folder: Path) -> list[_Run]:
        """Returns the files of a subject by their names."""
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
                self._problems[path] = f"{str(path)!r} is no profile of Larder's and was left out; take it away"
                continue
            start_us, end_us, run_us = (int(part) - _OFFSET for part in match.groups())
            runs.append(_Run(Span(start_us, end_us), run_us, folder / name))
        return runs

    def _newest_runs(self, subject: Subject) -> Mapping[Span, _Run]:
        # Names sort by run within a span, so the last of each span stays.
        return {each.span: each for each in self._runs(self._folder_of(subject))}

    def _first(self, subject: Subject, runs: Iterable[_Run]) -> SubjectProfile | None:
        """Returns the last of some profiles that can be read."""
        for each in sorted(runs, key=lambda run: run.run_us, reverse=True):
            if (profile := self._read(subject, each)) is not None:
                return profile
        return None

    def _read(self, subject: Subject, run: _Run) -> SubjectProfile | None:
        try:
            return _checked(subject, run)
        except FileNotFoundError:
            return None  # Deleted since it was listed.
        except (ValueError, OSError, pa.ArrowException) as error:
            self._tell(run.path, error)
            return None

    def _subject(self, path: Path) -> Subject | None:
        try:
            return subject_of(pq.read_metadata(path).metadata)
        except FileNotFoundError:
            return None
        except (ValueError, OSError, pa.ArrowException) as error:
            self._tell(path, error)
            return None

    def _tell(self, path: Path, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        cure = (
            "read it with a later version of Larder"
            if isinstance(error, OtherVersion)
            else "delete it and profile that time again"
        )
        self._problems[path] = f"profile {str(path)!r} cannot be read and was left out ({reason}); {cure}"


def _checked(subject: Subject, run: _Run) -> SubjectProfile:
    """Returns the profile in a file; raises ValueError if it is not what the name of the file says."""
    if run.path.stat().st_size > PROFILE_FILE_BYTES_MAX:
        raise ValueError(f"it is greater than {PROFILE_FILE_BYTES_MAX} bytes")
    profile = from_parquet(run.path)
    if (profile.subject, profile.span) != (subject, run.span):
        raise ValueError(f"it is of {profile.subject}, or of other days than its name says")
    return profile


def _written(folder: Path, profile: SubjectProfile) -> Path:
    prefix = f"{_digits(profile.span.start_us)}-{_digits(profile.span.end_us)}-"
    matches = [_NAME.fullmatch(path.name) for path in folder.glob(f"{prefix}*.parquet")]
    runs = [int(match[3]) - _OFFSET for match in matches if match is not None]
    path = folder / f"{prefix}{_digits(max([profile.computed_us, *(run + 1 for run in runs)]))}.parquet"
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            to_parquet(profile, file)
            file.flush()
            os.fsync(file.fileno())
        publish(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return path


def _digits(instant_us: int) -> str:
    return f"{instant_us + _OFFSET:0{_DIGITS}d}"


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def folder_name(name: str) -> str:
    """Returns a name as that of a folder: escaped, and different for different names."""
    escaped = quote(name, safe="").replace(".", "%2E") or "%"
    if len(escaped) <= PROFILE_NAME_CHARACTERS_MAX:
        return escaped
    # No escaped name holds this sign, so a shortened one is never another's.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{escaped[:PROFILE_NAME_CHARACTERS_MAX]}+{digest}"


def _told_gaps(slices: Iterable[SubjectProfile], span: Span) -> list[str]:
    found = gaps([each.span for each in slices], span)
    if not found:
        return []
    shown = ", ".join(f"{said(each.start_us)} to {said(each.end_us)}" for each in found[:_GAPS_SHOWN_MAX])
    more = f" and {len(found) - _GAPS_SHOWN_MAX} more" if len(found) > _GAPS_SHOWN_MAX else ""
    return [f"nothing was profiled of {shown}{more}; run 'larder monitor profile --from ... --to ...' for that time"]
