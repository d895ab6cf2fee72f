"""Which files of a source a run has read, in a text short enough to stand beside what it made of them."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from store.offline.landed_files import LandedFile
from store.offline.sources import Source, SourceFile

_DIGEST_BYTES = 8


class Seen(NamedTuple):
    """Whether a run has read the rows of a file: `is_sure` is False where the file was made of others since."""

    was_read: bool
    is_sure: bool


@dataclass(frozen=True, slots=True)
class SeenFiles:
    """The files that a run found.

    Landed files are named by their arrival, and what is seen of their folder is always a beginning of it, so the last
    one tells which they were. Of a source's own files that is so as long as files are only added, see `own_read`.

    Attributes:
        own: the sum of what tells the source's own files: hashes of paths, sizes and times of change.
        last_landed: the name of the last landed file without what follows the arrival, "" for none.
    """

    own: str
    last_landed: str

    @classmethod
    def of(cls, source: Source) -> "SeenFiles":
        """Returns the files of a source that was opened."""
        files = declared_files(source)
        own = sum(_hash(file.path) for file in files if not file.is_landed)
        landed = [named.last for file in files if (named := _named(file)) is not None and named.last]
        return cls(_hex(own), max(landed, default=""))

    @classmethod
    def parse(cls, text: str) -> "SeenFiles | None":
        """Returns what a text says, None for one that says nothing."""
        own, slash, last_landed = text.partition("/")
        return cls(own, last_landed) if slash else None

    @property
    def text(self) -> str:
        """Returns all of it as a text."""
        return f"{self.own}/{self.last_landed}"

    def own_read(self, files: Sequence[SourceFile]) -> frozenset[str] | None:
        """Returns the paths of those of a source's own files of today that the run has read.

        None where it has read others: one was changed or removed since.
        """
        changed = sorted((os.stat(file.path).st_mtime_ns, file.path) for file in files if not file.is_landed)  # noqa: PTH116
        paths = [path for _, path in changed]
        total = 0
        for count in range(len(paths) + 1):
            if _hex(total) == self.own:
                return frozenset(paths[:count])
            total += _hash(paths[count]) if count < len(paths) else 0
        return None

    def landed(self, file: SourceFile) -> Seen:
        """Returns whether the run has read a landed file of today."""
        named = _named(file)
        if named is None or named.first is None or named.last is None:
            return Seen(was_read=True, is_sure=False)
        if named.last <= self.last_landed:
            return Seen(was_read=True, is_sure=True)
        return Seen(was_read=False, is_sure=named.first > self.last_landed)


def declared_files(source: Source) -> list[SourceFile]:
    """Returns the files of a source under the paths that the user knows, also those of transformed rows."""
    return [replace(file, path=path) for file, path in zip(source.files, source.declared_paths, strict=True)]


def _hash(path: str) -> int:
    status = os.stat(path)  # noqa: PTH116 - of many files
    content = repr((path, status.st_size, status.st_mtime_ns)).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest(), "big")


def _hex(total: int) -> str:
    return f"{total % (1 << 8 * _DIGEST_BYTES):0{2 * _DIGEST_BYTES}x}"


def _named(file: SourceFile) -> LandedFile | None:
    return LandedFile.named(os.path.basename(file.path)) if file.is_landed else None  # noqa: PTH119 - of many files
