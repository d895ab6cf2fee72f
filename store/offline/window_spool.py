"""Events kept between the scan that finds them and the loops that go through them: in memory, else in a file."""

import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import OutOfSpace
from store.files import is_disk_full
from store.kernel.window_events import Events
from store.offline.entity_sources import ensure_spill_folder


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where events stand in the file, and the type of each of their arrays (None for one that is not there)."""

    offset: int
    count: int
    types: tuple[npt.DTypeLike | None, ...]


class EventSpool:
    """Events by group of keys; beyond a limit they go to a temporary file without a name.

    Args:
        group_count: how many groups there are.
        memory_bytes: the limit.
        folder: where the file takes its room; None is the system's temporary folder.
    """

    def __init__(self, group_count: int, memory_bytes: int, folder: Path | None) -> None:
        self._held: list[list[Events]] = [[] for _ in range(group_count)]
        self._stored: list[list[_Stored]] = [[] for _ in range(group_count)]
        self._held_bytes = 0
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._file: Any = None
        self._end = 0

    def add(self, group: int, events: Events) -> None:
        """Keeps events of a group.

        Raises:
            ConfigError: the folder cannot be used.
            OutOfSpace: there is no room.
        """
        self._held[group].append(events)
        self._held_bytes += events.size_bytes
        if self._held_bytes > self._memory_bytes:
            try:
                self._spill()
            except OSError as error:
                if is_disk_full(error):
                    raise OutOfSpace(
                        f"no room to keep events in {str(self._folder or tempfile.gettempdir())!r}; set `spill_folder` "
                        "under offline_store in feature_store.yaml to a folder on a disk with room"
                    ) from error
                raise

    def taken(self, group: int) -> list[Events]:
        """Returns all events of a group, in pieces; they are no longer held in memory here."""
        pieces = [self._read(stored) for stored in self._stored[group]] + self._held[group]
        self._held[group] = []
        return pieces

    def _spill(self) -> None:
        if self._file is None:
            ensure_spill_folder(self._folder)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it lives as long as the spool
            weakref.finalize(self, self._file.close)
        for group, pieces in enumerate(self._held):
            if not pieces:
                continue
            arrays = Events.joined(pieces).arrays
            types = tuple(None if array is None else array.dtype for array in arrays)
            self._stored[group].append(_Stored(self._end, len(arrays[0]), types))  # type: ignore[arg-type]
            for array in arrays:
                if array is not None:
                    self._end += self._file.write(np.ascontiguousarray(array).data.cast("B"))
            self._held[group] = []
        self._file.flush()
        self._held_bytes = 0

    def _read(self, stored: _Stored) -> Events:
        arrays: list[npt.NDArray[Any] | None] = []
        offset = stored.offset
        for kind in stored.types:
            if kind is None:
                arrays.append(None)
                continue
            array = np.empty(stored.count, dtype=kind)
            rest = array.data.cast("B")
            while len(rest):
                # Several groups may be read at a time, each from its own place. One call reads two gigabytes at most.
                count = os.preadv(self._file.fileno(), [rest], offset)
                assert count, "the file is as long as what was written to it"
                rest, offset = rest[count:], offset + count
            arrays.append(array)
        return Events.of(arrays)
