"""Results of monitoring as files: one per run and subject, `<kind>/<name>/<start>-<end>-<run>.<suffix>`.

Names sort by stretch and then by run: instants in microseconds, counted from -2^63 to have one length, and the run the
instant at which it was computed, or just after the last run over the same stretch if the clock stood still or went
back. Files are written whole or not at all and are never changed, so they are read without a lock.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

import pyarrow as pa

from store.errors import OfflineStoreError, OutOfSpace
from store.files import is_disk_full, locked
from store.limits import PROFILE_NAME_CHARACTERS_MAX
from store.monitor.subjects import Span, Subject

Content = TypeVar("Content")

_OFFSET: Final = 2**63
_DIGITS: Final = 20


class OtherVersion(ValueError):
    """A file of a version of Larder that this one does not know."""


class KeptRun(NamedTuple):
    """What the name of a file says."""

    span: Span
    run_us: int
    path: Path


class KeptRuns:
    """The files of one kind of results, such as profiles.

    Args:
        folder: below which they lie.
        suffix: of their names, with its dot.
        what: one of them is called, in messages.
        cure: what makes a damaged one anew.
    """

    def __init__(self, folder: Path, suffix: str, what: str, cure: str) -> None:
        self.folder = folder
        self._suffix = suffix
        self._what = what
        self._cure = cure
        self._name = re.compile(rf"([0-9]{{20}})-([0-9]{{20}})-([0-9]{{20}}){re.escape(suffix)}")
        self._problems: dict[Path, str] = {}

    @property
    def problems(self) -> list[str]:
        """What was found so far that is none of them or cannot be read, and is there still: a sentence each."""
        return [self._problems[path] for path in sorted(self._problems) if path.exists()]

    def folder_of(self, subject: Subject) -> Path:
        """Returns the folder of a subject's files."""
        return self.folder / subject.kind / folder_name(subject.name)

    def of(self, subject: Subject) -> list[KeptRun]:
        """Returns the files of a subject in the order of their names: by stretch, then by run."""
        return self.in_folder(self.folder_of(subject))

    def in_folder(self, folder: Path) -> list[KeptRun]:
        """Returns the files of one folder likewise; `problems` names what is none of them."""
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone are wanted
        except FileNotFoundError:
            return []
        runs = []
        for name in names:
            if name.startswith(".") or name.endswith(".lock"):
                continue
            match = self._name.fullmatch(name)
            if match is None:
                path = folder / name
                self._problems[path] = f"{str(path)!r} is no {self._what} of Larder's and was left out; take it away"
                continue
            start_us, end_us, run_us = (int(part) - _OFFSET for part in match.groups())
            runs.append(KeptRun(Span(start_us, end_us), run_us, folder / name))
        return runs

    def by_span(self, subject: Subject) -> dict[Span, list[KeptRun]]:
        """Returns the files of a subject by stretch, those of one in the order in which they were computed."""
        runs: dict[Span, list[KeptRun]] = {}
        for each in self.of(subject):
            runs.setdefault(each.span, []).append(each)
        return runs

    @contextmanager
    def appending(self, subject: Subject, span: Span, computed_us: int) -> Iterator[Path]:
        """Gives the path of a subject's next file, in a folder that is there, while nobody else writes there.

        Raises:
            OutOfSpace, OfflineStoreError: what an OSError inside the block means.
        """
        folder = self.folder_of(subject)
        try:
            with locked(folder / "runs"):
                runs = [each.run_us for each in self.in_folder(folder) if each.span == span]
                run_us = max([computed_us, *(run + 1 for run in runs)])
                stamps = "-".join(f"{each + _OFFSET:0{_DIGITS}d}" for each in (span.start_us, span.end_us, run_us))
                yield folder / f"{stamps}{self._suffix}"
        except OSError as error:
            if is_disk_full(error):
                raise OutOfSpace(f"no room to keep the {self._what} of {subject} in {str(folder)!r}") from error
            raise OfflineStoreError(
                f"the {self._what} of {subject} cannot be written to {str(folder)!r} ({error.strerror or error}); "
                "allow it to be written"
            ) from error

    def read(self, path: Path, read: Callable[[], Content]) -> Content | None:
        """Returns what a file holds, None if it is damaged or gone; `problems` then has why.

        Args:
            read: reads it, and raises ValueError if it is not what its name says.
        """
        try:
            return read()
        except FileNotFoundError:
            return None  # Deleted since it was listed.
        except (ValueError, OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
            cure = "read it with a later version of Larder" if isinstance(error, OtherVersion) else self._cure
            told = f"{self._what} {str(path)!r} cannot be read and was left out ({reason}); {cure}"
            self._problems[path] = told
            return None

    def tell(self, path: Path, problem: str) -> None:
        """Adds a sentence to `problems` for as long as a path stands."""
        self._problems[path] = problem


def folder_name(name: str) -> str:
    """Returns a name as that of a folder: escaped, and different for different names."""
    escaped = quote(name, safe="").replace(".", "%2E") or "%"
    if len(escaped) <= PROFILE_NAME_CHARACTERS_MAX:
        return escaped
    # No escaped name holds this sign, so a shortened one is never another's.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{escaped[:PROFILE_NAME_CHARACTERS_MAX]}+{digest}"
