"""Places for retrievals: file locks that a child holds by its mere existence, over all workers of a repo."""

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

import structlog

FOLDER_PREFIX = "larder-retrieval-"
_NAME_BYTES = 16  # nobody guesses such a name, nor does chance give it twice
_NOTE_BYTES_MAX = 4096  # the longest path that Linux takes

log = structlog.get_logger("larder.server")


class Places:
    """A number of places; each is a file, locked by the open descriptor of whoever holds it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count

    @classmethod
    def beside_the_data_of(cls, repo_path: Path, count: int) -> "Places":
        """Returns the places of a feature repo, which all servers of it share.

        Where its data folder cannot be written to, they are this process's own: then each worker has `count`.
        """
        folder = repo_path / "data" / "retrievals"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return cls(folder, count)
        except OSError as error:
            log.warning("retrievals are counted by each worker alone", folder=str(folder), reason=str(error))
            return cls(Path(tempfile.mkdtemp(prefix="larder-places-")), count)

    def take(self) -> int | None:
        """Returns the descriptor of a free place, now taken for as long as any copy of it is open; None if all are."""
        # Twice: whoever only looks whether a place is free holds it for that instant.
        for number in (*range(self.count), *range(self.count)):
            place = self._locked(number)
            if place is not None:
                return place
        return None

    def is_full(self) -> bool:
        """Whether all places are taken just now."""
        place = self.take()
        if place is not None:
            os.close(place)
        return place is None

    def sweep(self) -> None:
        """Removes what retrievals left behind that were killed together with their zygote."""
        for number in range(self.count):
            if not self._file(number).exists() or not self._file(number).stat().st_size:
                continue
            place = self._locked(number)
            if place is not None:
                clear_folder(place)
                os.close(place)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.lock"

    def _locked(self, number: int) -> int | None:
        # Not to be inherited by programs that this process starts: one of them would keep the place.
        place = os.open(self._file(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(place)
            return None
        return place


def give_back(place: int) -> None:
    """Frees a place while its descriptor is still open, its files removed before."""
    clear_folder(place)
    fcntl.flock(place, fcntl.LOCK_UN)


def clear_if_held(place: int) -> None:
    """Removes the files of a retrieval that was killed; not if it had given its place back, and another has it."""
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    clear_folder(place)


def make_folder(place: int, base: Path) -> Path:
    """Returns a new private folder for the files of the retrieval that holds a place; the place keeps its name."""
    clear_folder(place)
    folder = base / f"{FOLDER_PREFIX}{secrets.token_hex(_NAME_BYTES)}"
    # Named before it is there: a process that is killed between the two leaves nothing that nobody would remove.
    os.pwrite(place, os.fsencode(folder), 0)
    folder.mkdir(mode=0o700)
    return folder


def clear_folder(place: int) -> None:
    """Removes the folder whose name a place keeps, if there is one."""
    folder = Path(os.fsdecode(os.pread(place, _NOTE_BYTES_MAX, 0)))
    if folder.name.startswith(FOLDER_PREFIX):
        with contextlib.suppress(FileNotFoundError):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
    os.ftruncate(place, 0)
