"""Kept profiles: one Parquet file per run under `data/monitor/profiles/<kind>/<name>/` of the feature repo."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Final, cast

import pyarrow.parquet as pq

from store.clock import said
from store.errors import OfflineStoreError
from store.files import publish
from store.kernel.profiles import Profile
from store.limits import PROFILE_FEATURES_MAX, PROFILE_FILE_BYTES_MAX, PROFILE_FILES_MAX
from store.monitor.kept_runs import KeptRun, KeptRuns
from store.monitor.profile_form import from_parquet, subject_of, to_parquet
from store.monitor.slices import best_slices, gaps
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile

_FOLDER: Final = ("data", "monitor", "profiles")
_GAPS_SHOWN_MAX = 3


class ProfileFiles:
    """The profiles that a feature repo keeps."""

    def __init__(self, repo_path: Path) -> None:
        folder = Path(repo_path).joinpath(*_FOLDER)
        self._runs = KeptRuns(folder, ".parquet", "profile", "delete it and profile that time again")

    @property
    def problems(self) -> list[str]:
        """What was found so far that is no profile or cannot be read, a sentence each with the remedy."""
        return self._runs.problems

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
        with self._runs.appending(profile.subject, profile.span, profile.computed_us) as path:
            _write(path, profile)
            return path

    def subjects(self) -> list[Subject]:
        """Returns the subjects that have a profile, in order."""
        found = []
        for kind in SubjectKind:
            for folder in sorted(_folders(self._runs.folder / kind)):
                runs = self._runs.in_folder(folder)[::-1]
                subjects = (self._runs.read(each.path, partial(_subject, each.path)) for each in runs)
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
        runs = {
            each: of_span for each, of_span in self._runs.by_span(subject).items() if span is None or span.holds(each)
        }
        chosen = sorted(runs)
        if len(chosen) > PROFILE_FILES_MAX:
            self._runs.tell(
                self._runs.folder_of(subject),
                f"{subject} has {len(chosen)} profiles in this span, and the latest {PROFILE_FILES_MAX} are read; ask "
                "for less time, or delete old ones with 'larder monitor profile --keep-days'",
            )
            chosen = chosen[-PROFILE_FILES_MAX:]
        read = (self._last(subject, runs[each]) for each in chosen)
        return [profile for profile in read if profile is not None]

    def newest(self, subject: Subject) -> SubjectProfile | None:
        """Returns the profile that was computed last, None if there is none."""
        runs = list(self._newest_runs(subject).values())
        return self._last(subject, sorted(runs, key=lambda each: (each.run_us, each.span)))

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
        runs = self._runs.of(subject)
        newest = {run.path for run in self._newest_runs(subject).values()}
        old = [each.path for each in runs if each.span.end_us <= before_us or each.path not in newest]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _newest_runs(self, subject: Subject) -> Mapping[Span, KeptRun]:
        return {span: runs[-1] for span, runs in self._runs.by_span(subject).items()}

    def _last(self, subject: Subject, runs: Sequence[KeptRun]) -> SubjectProfile | None:
        """Returns the last of some profiles that can be read."""
        read = (self._runs.read(each.path, partial(_checked, subject, each)) for each in reversed(runs))
        return next((profile for profile in read if profile is not None), None)


def _subject(path: Path) -> Subject:
    return subject_of(pq.read_metadata(path).metadata)


def _checked(subject: Subject, run: KeptRun) -> SubjectProfile:
    """Returns the profile in a file; raises ValueError if it is not what the name of the file says."""
    if run.path.stat().st_size > PROFILE_FILE_BYTES_MAX:
        raise ValueError(f"it is greater than {PROFILE_FILE_BYTES_MAX} bytes")
    profile = from_parquet(run.path)
    if (profile.subject, profile.span) != (subject, run.span):
        raise ValueError(f"it is of {profile.subject}, or of other days than its name says")
    return profile


def _write(path: Path, profile: SubjectProfile) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def _told_gaps(slices: Iterable[SubjectProfile], span: Span) -> list[str]:
    found = gaps([each.span for each in slices], span)
    if not found:
        return []
    shown = ", ".join(f"{said(each.start_us)} to {said(each.end_us)}" for each in found[:_GAPS_SHOWN_MAX])
    more = f" and {len(found) - _GAPS_SHOWN_MAX} more" if len(found) > _GAPS_SHOWN_MAX else ""
    return [f"nothing was profiled of {shown}{more}; run 'larder monitor profile --from ... --to ...' for that time"]
