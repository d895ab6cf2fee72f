"""Profiles of the rows of a file source: those of a plain feature view, or those that came by a push source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.clock import Clock
from store.kernel.profiles import Profile
from store.monitor.feature_types import Declared, note_of_values, summed_column
from store.monitor.subjects import Span
from store.offline.profiling import Extent, SourceScan, column_types, extent_of, summed_stretches
from store.offline.settings import settings_of
from store.offline.source_columns import needed_columns, scan_of
from store.offline.sources import Source


class Profiled(Protocol):
    """What has rows to profile."""

    def extent(self) -> Span | None:
        """Returns the time that its rows lie in, None if it has none."""

    def changed(self, known: Mapping[Span, int]) -> list[Span]:
        """Returns those of some spans whose rows may have changed since an instant, in microseconds by the clock."""

    def profiles(self, spans: Sequence[Span]) -> list[Profile]:
        """Returns a profile for each of some spans, which are in order of time and do not overlap."""


@dataclass(frozen=True)
class SourceRows:
    """The rows of a source.

    Attributes:
        owner: whose they are, for messages.
        found: the source as it is on disk.
        declared: the features, by their names in the view.
        notes: what is to be told with each profile.
        unless: the name in the file of a truth; rows where it is true are left out. '' for all rows.
    """

    config: RepoConfig
    clock: Clock
    owner: str
    file: FileSource
    found: Source
    declared: Sequence[Declared]
    notes: tuple[str, ...] = ()
    unless: str = ""

    @cached_property
    def _named(self) -> Mapping[str, str]:
        """The features by their names in the file."""
        names = [each.name for each in self.declared]
        needed = needed_columns(self.owner, self.file, self.found, [], names)
        return dict(zip(names, needed.features, strict=True))

    @cached_property
    def _present(self) -> list[Declared]:
        known = {name for file in self.found.files for name in file.schema.names}
        return [each for each in self.declared if self._named[each.name] in known]

    @cached_property
    def _opened(self) -> SourceScan:
        names = [each.name for each in self._present]
        needed = needed_columns(self.owner, self.file, self.found, [], names)
        features = (*needed.features, self.unless) if self.unless else needed.features
        scan = scan_of(self.found, replace(needed, features=features, optional=frozenset(features)))
        return SourceScan(self.found, scan, settings_of(self.config), bool(self.unless))

    @cached_property
    def _extent(self) -> Extent:
        return extent_of(self._opened) if self.found.files else Extent(None, None, 0)

    def extent(self) -> Span | None:
        """Returns the time that its rows lie in, None if it has none."""
        found = self._extent
        if found.first_us is None or found.last_us is None:
            return None
        return Span(found.first_us, found.last_us + 1)

    def changed(self, known: Mapping[Span, int]) -> list[Span]:
        """Returns those of some spans that a file has rows of which is younger than the instant that goes with it."""
        written: list[tuple[int, Span | None]] = []
        for group in self._opened.scan.groups if self.found.files else ():
            for path, held in zip(group.paths, group.event_ranges, strict=True):
                if held is None or held.low_us <= held.high_us:
                    written_us = self.clock.of_system_us(Path(path).stat().st_mtime_ns // 1_000)
                    written.append((written_us, None if held is None else Span(held.low_us, held.high_us + 1)))
        return [
            span
            for span, since_us in sorted(known.items())
            if any(at_us > since_us and (held is None or held.meets(span)) for at_us, held in written)
        ]

    def profiles(self, spans: Sequence[Span]) -> list[Profile]:
        """Returns a profile for each of some spans, which are in order of time and do not overlap.

        Raises:
            SourceError, OfflineStoreError, OutOfSpace: the source cannot be read.
        """
        if not self.found.files:
            return [Profile(0, {}, (*self.notes, f"{self.owner} has no rows")) for _ in spans]
        notes = [*self.notes, *self._notes_on_columns()]
        if self._extent.without_time:
            notes.append(
                f"{self._extent.without_time} rows of {self.owner} have no event time and are in no profile; training "
                "sees none of them either"
            )
        types = column_types(self._opened)
        # A column that has no values at all is read as integers.
        known = [self._read_type(each, read) for each, read in zip(self._present, types, strict=True)]
        columns, told = zip(*map(summed_column, self._present, known), strict=True) if known else ((), ())
        notes += [note for note in told if note]
        stretches = [(span.start_us, span.end_us) for span in spans]
        found = [table.profile(notes) for table in summed_stretches(self._opened, columns, stretches, self._extent)]
        return [self._with_notes(profile) for profile in found]

    def _read_type(self, declared: Declared, read: Any) -> Any:
        name = self._named[declared.name]
        kinds = [file.schema.field(name).type for file in self.found.files if name in file.schema.names]
        return pa.null() if all(map(pa.types.is_null, kinds)) else read

    def _with_notes(self, profile: Profile) -> Profile:
        told = [note_of_values(each, profile.columns[each.name]) for each in self._present]
        return replace(profile, notes=(*profile.notes, *(note for note in told if note)))

    def _notes_on_columns(self) -> list[str]:
        notes = []
        own = [file for file in self.found.files if not file.is_landed] or list(self.found.files)
        present = {each.name for each in self._present}
        for each in self.declared:
            name = self._named[each.name]
            lacking = sum(name not in file.schema.names for file in own)
            if each.name not in present:
                notes.append(
                    f"feature {each.name!r}: column {name!r} is in no file of {self.owner}, so it has no profile; add "
                    "the column, or correct the declaration or the source's field_mapping"
                )
            elif lacking:
                notes.append(
                    f"feature {each.name!r}: column {name!r} is missing in {lacking} of {len(own)} files of "
                    f"{self.owner}; their rows count as nulls"
                )
        return notes
