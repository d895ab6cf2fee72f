"""The Parquet files behind a declared path: a file, a folder or a glob, with what hive-style folders say of them."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from store.clock import to_us
from store.errors import SourceUnreadable
from store.offline.connection import is_pattern

LANDED_SUFFIX = ".landed"

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")

Partition = tuple[tuple[str, str | None], ...]
"""The names and values that stand in a file's path, outermost first; None is hive's null."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a source, and the partition that it lies in."""

    path: str
    partition: Partition = ()


def own_files(resolved: str) -> list[FoundFile]:
    """Returns the files of a source other than landed ones, by path; none if nothing is there.

    Folders called `name=value` below the declared folder, or below the part of a glob that has no signs, are
    partitions. Of a folder all `.parquet` files count, at any depth; names that begin with a dot or an underscore are
    writers' scratch.

    Raises:
        OSError: a folder that may not be read: its rows would be missing without a word.
    """
    path = Path(resolved)
    if path.is_dir():
        return [FoundFile(found, _partition_of(found, resolved)) for found in sorted(_under(resolved, ()))]
    if path.exists():
        return [FoundFile(resolved)]
    if not is_pattern(resolved):
        return []
    parts = Path(resolved).parts
    fixed = next(i for i, part in enumerate(parts) if is_pattern(part))
    base = str(Path(*parts[:fixed]))
    # One `**` after another, or in different places, can lead to the same file.
    found = sorted(set(_matches(base, parts[fixed:])))
    return [FoundFile(path, _partition_of(path, base)) for path in found]


def _under(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yields the Parquet files of a folder; `above` are the folders that lead here, so that no link leads back."""
    for entry in _entries(folder):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir():
            # Landed files belong to the source beside them.
            if not entry.name.endswith(LANDED_SUFFIX):
                yield from _under(entry.path, _below(entry, above))
        elif entry.name.endswith(".parquet"):
            yield entry.path


def _matches(folder: str, parts: Sequence[str], above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Yields the files that the rest of a pattern matches below a folder, by the rules of Python's `glob`."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _matches(folder, rest or ("*",), above)
        for entry in _entries(folder):
            if entry.is_dir() and _is_open_to("*", entry.name):
                yield from _matches(entry.path, parts, _below(entry, above))
        return
    for entry in _entries(folder):
        if not fnmatch(entry.name, part) or not _is_open_to(part, entry.name):
            continue
        if rest and entry.is_dir():
            yield from _matches(entry.path, rest, above)
        elif not rest and entry.is_file():
            yield entry.path


def _is_open_to(part: str, name: str) -> bool:
    """Whether a pattern may find a name at all: one neither hidden nor of landed files, unless the pattern says so."""
    if name.startswith(".") and not part.startswith("."):
        return False
    return not name.endswith(LANDED_SUFFIX) or part.endswith(LANDED_SUFFIX)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _below(entry: os.DirEntry[str], above: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    status = entry.stat()
    place = (status.st_dev, status.st_ino)
    if place in above:
        raise SourceUnreadable(f"source folder {entry.path!r} is a link to a folder above it; remove the link")
    return (*above, place)


def _partition_of(path: str, base: str) -> Partition:
    # Thousands of files at each retrieval: Python's paths would take ten times as long as its texts.
    named = [part.partition("=") for part in path[len(base) :].split("/")[:-1]]
    values = {unquote(name): None if value == _HIVE_NULL else unquote(value) for name, sign, value in named if sign}
    return tuple(values.items())


def partition_types(partitions: Iterable[Partition]) -> dict[str, pa.DataType]:
    """Returns the types of partition columns by name: int64 where all values are integers, else text.

    That is what other readers of such folders take them for, except that dates stay text.
    """
    values: dict[str, set[str | None]] = {}
    for partition in set(partitions):
        for name, value in partition:
            values.setdefault(name, set()).add(value)
    return {
        name: pa.int64() if all(_INTEGER.fullmatch(value) for value in found if value is not None) else pa.string()
        for name, found in values.items()
    }


def partition_instant_us(value: str | None, what: str) -> int | None:
    """Returns a date or ISO 8601 instant from a path in microseconds since the Unix epoch, in UTC without a zone.

    Raises:
        SourceUnreadable: it is neither.
    """
    if value is None:
        return None
    try:
        return to_us(datetime.fromisoformat(value))
    except ValueError as error:
        raise SourceUnreadable(
            f"{what} has the value {value!r} in its path, expected a date like 2013-12-01 or an ISO 8601 instant; "
            "rename the folder, or declare another timestamp field"
        ) from error
