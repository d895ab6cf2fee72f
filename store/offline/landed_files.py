"""The files of a landed folder: named by arrival, published one after the other, replaced by merged ones.

A file is called `<arrival>-<token>.parquet`, with the arrival in nanoseconds since the Unix epoch. Files are published
under a lock, each with a later arrival than all that are there, so names sort as files appeared and what is seen of a
folder is always a beginning of it. A merged file is called `<first>+<last>.parquet`, after the first and last file
whose rows it holds. A file from which rows were erased is called as before with `.<revision>` before the ending, from
1 on. From the moment that such a file is there it stands for those whose rows it holds: they are *covered*, and no
reader counts them. So publishing it is the one atomic step of a compaction or erasure, and a crash around it neither
doubles nor loses a row.

Covered files are deleted when nobody can still be reading them. A reader holds a shared lock on the folder from before
it lists it until its query is done, and a deletion needs the exclusive one: whoever lists later sees the merged file.
"""

import errno
import fcntl
import os
import re
import secrets
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from store.files import sync_folder

_CLOCK_DIGITS = 20
"""Digits of an arrival: enough for any 64-bit instant, so names sort as numbers do."""

_STEM = rf"[0-9]{{{_CLOCK_DIGITS}}}-[0-9a-f]{{16}}"
_OWN_NAME = re.compile(rf"(?P<first>{_STEM})(?:\+(?P<last>{_STEM}))?(?:\.(?P<revision>[1-9][0-9]{{0,8}}))?\.parquet")
_SCRATCH_NAME = re.compile(r"\.staged-[0-9a-f]{16}")
_PUBLISHING_LOCK = ".publishing.lock"
COMPACTION_LOCK = ".compaction"
"""Whose `.lock` keeps two compactions of a folder apart."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)


@dataclass(frozen=True, slots=True)
class LandedFile:
    """A file of a landed folder: the first and the last file whose rows it holds, itself if it is not a merged one.

    Both are None for a file that Larder did not name; such a file is read in the order of its name, and left alone.
    `revision` counts how often rows were erased from it.
    """

    name: str
    first: str | None
    last: str | None
    revision: int = 0

    @classmethod
    def named(cls, name: str) -> "LandedFile":
        """Returns what the name of a file says."""
        match = _OWN_NAME.fullmatch(name)
        if match is None:
            return cls(name, None, None)
        return cls(name, match["first"], match["last"] or match["first"], int(match["revision"] or 0))

    @property
    def is_merged(self) -> bool:
        """Whether it holds the rows of several files."""
        return self.first != self.last

    def covers(self, other: "LandedFile") -> bool:
        """Whether this file stands for another one: it was merged from it, or rows were erased from it."""
        if None in (self.first, self.last, other.first, other.last):
            return False
        if (self.first, self.last) == (other.first, other.last):
            return self.revision > other.revision
        return str(self.first) <= str(other.first) and str(other.last) <= str(self.last)


def revised_name(file: LandedFile) -> str:
    """Returns the name of the file that will hold what is left of a file of ours from which rows are erased."""
    stem = str(file.first) if not file.is_merged else f"{file.first}+{file.last}"
    return f"{stem}.{file.revision + 1}.parquet"


def merged_name(parts: Sequence[LandedFile]) -> str:
    """Returns the name of the file that will hold the rows of consecutive files."""
    return f"{parts[0].first}+{parts[-1].last}.parquet"


@dataclass(frozen=True, slots=True)
class Landed:
    """A landed folder as it was at one moment: the files that hold its rows, in order, and those that are covered."""

    files: tuple[LandedFile, ...]
    covered: tuple[LandedFile, ...]


def list_landed(folder: Path) -> Landed:
    """Returns the files of a landed folder as they were at one moment; of a missing folder, none.

    The caller holds `ReadGuard` or the lock of compactions; else files may be deleted while it lists them.

    Raises:
        OSError: the folder may not be read.
    """
    # A listing that runs beside a writer may miss a file and see a later one. What the first listing saw was there
    # before the second began, and so was all that had appeared before it: up to there the second is complete.
    seen = _last_of(_entries(folder))
    found = [file for file in _entries(folder) if file.first is None or file.first <= seen]
    is_covered = _covered_among(found)
    files = sorted(found, key=lambda file: file.name)
    return Landed(
        files=tuple(file for file in files if file.name not in is_covered),
        covered=tuple(file for file in files if file.name in is_covered),
    )


def _covered_among(found: list[LandedFile]) -> set[str]:
    """Returns the names of the files that a merged one covers; merged files lie within each other or apart."""
    named = [(file.first, file.last, file) for file in found if file.first is not None and file.last is not None]
    covered: set[str] = set()
    cover: LandedFile | None = None
    # Of those that begin with the same file, the one that reaches furthest comes first, by the sorts together, and of
    # those that hold the same files, the last revision.
    named.sort(key=lambda entry: (entry[1], entry[2].revision), reverse=True)
    named.sort(key=lambda entry: entry[0])
    for _, _, file in named:
        if cover is not None and cover.covers(file):
            covered.add(file.name)
        else:
            cover = file
    return covered


def _entries(folder: Path) -> list[LandedFile]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    return [LandedFile.named(name) for name in names if name.endswith(".parquet") and not name.startswith(".")]


def _last_of(files: list[LandedFile]) -> str:
    return max((file.last for file in files if file.last is not None), default="")


class ReadGuard:
    """Keeps the files that a reader has listed from being deleted, until it is dropped or its process ends."""

    def __init__(self, folder: Path) -> None:
        """Takes the guard, which has to happen before the folder is listed.

        Raises:
            FileNotFoundError: there is no such folder.
            OSError: it may not be read.
        """
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.drop = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError as error:
            # Where a file system has no locks, a compaction gets none either, and deletes nothing.
            if error.errno not in _NO_LOCKS:
                raise


def is_unread(folder: Path) -> bool:
    """Whether nobody who listed a landed folder before this call is still reading its files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Got for a moment is enough: whoever takes a guard from now on lists the folder after this.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


class ScratchFile:
    """A file that is being written in a landed folder, under a hidden name and locked, so that it counts as alive.

    A killed writer's file is one that nobody has locked; a compaction removes it.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the file, and the folder where it is missing.

        Raises:
            OSError: the folder cannot be made or written.
        """
        _make_folder(folder)
        self.path = folder / f".staged-{secrets.token_hex(8)}"
        self.file: IO[bytes] = self.path.open("xb")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        while os.fstat(self.file.fileno()).st_nlink == 0:
            # A compaction found the file in the moment before it was locked.
            self.file.close()
            self.file = self.path.open("xb")
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def sync(self) -> None:
        """Brings all that was written to disk.

        Raises:
            OSError: no room.
        """
        self.file.flush()
        os.fsync(self.file.fileno())

    def rename(self, path: Path) -> None:
        """Gives the synced file its final name in the same folder, durably; it is no scratch file any more."""
        self.path.rename(path)
        self.file.close()
        sync_folder(path.parent)

    def discard(self) -> None:
        """Removes the file; does nothing once it has its final name."""
        self.path.unlink(missing_ok=True)
        self.file.close()


def publish_next(
    scratch: ScratchFile, now_ns: int, check: Callable[[], None] | None = None, token: str | None = None
) -> Path:
    """Makes a synced file the last one of its folder, durably, and returns its path.

    Its arrival is now, or just after the last arrival if the clock has gone back or stood still.

    Args:
        check: called when nothing else can be published any more before this; what it raises stops the publication.
        token: 16 hex digits that end the name of the file; made by chance by default.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = scratch.path.parent
    with _publishing(folder):
        if check is not None:
            check()
        guard = ReadGuard(folder)
        last = _last_of(_entries(folder))
        guard.drop()
        arrival = max(now_ns, int(last.partition("-")[0] or -1) + 1)
        path = folder / f"{arrival:0{_CLOCK_DIGITS}d}-{token or secrets.token_hex(8)}.parquet"
        scratch.path.rename(path)
    scratch.file.close()
    # Only the order of names needs the lock; a folder that is synced holds all earlier renames too.
    sync_folder(folder)
    return path


def remove_abandoned(folder: Path) -> int:
    """Removes the scratch files of writers that were killed, and returns how many there were."""
    removed = 0
    for path in folder.iterdir():
        if not _SCRATCH_NAME.fullmatch(path.name):
            continue
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Does nothing to one that was published meanwhile, whose name is another.
                path.unlink()
                removed += 1
        except (BlockingIOError, FileNotFoundError):
            continue  # being written, or just published
    return removed


def has_token(folder: Path, token: str) -> bool:
    """Whether a file of a landed folder was published with a token, and was not merged with others since."""
    return any(file.first is not None and file.first.endswith(f"-{token}") for file in _entries(folder))


@contextmanager
def _publishing(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / _PUBLISHING_LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)
