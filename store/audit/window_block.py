"""The events of some entity keys, as an audit of a windowed view holds them at a time."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.clock import Clock
from store.kernel.algebra import NO_CREATED
from store.kernel.definitions import ViewDefinition
from store.kernel.instants import Ints, Truths
from store.kernel.known_events import NO_ID, Asked, KeyedEvents, Known, on_batch_side, on_stream_side, values_of
from store.kernel.tile_groups import Values
from store.kernel.window_judging import Differing
from store.kernel.windows import WindowFeature, input_columns, reach_us
from store.offline.accepted_events import IS_LANDED, LINE_ID, LOG_ID
from store.offline.event_search import CREATED_US, EVENT_US, FILE, NUMBER, EventSearch
from store.offline.exact_rows import came_us
from store.offline.seen_files import Seen, SeenFiles, declared_files
from store.offline.sources import LARDER_ID, Source
from store.tile_batches import input_values

Key = tuple[Any, ...]
_AHEAD_US = 86_400_000_000
"""Events so far beyond a request are looked for too: a clock that was set back serves them."""

_EXPIRIES_MAX = 200


class ReadFiles:
    """Which files of a source as it is today materializations had read."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._files = declared_files(source)
        self.came_us: Ints = np.array([came_us(file, clock) for file in self._files] or [0], dtype=np.int64)

    @lru_cache(maxsize=256)  # noqa: B019 - lives as long as one audit
    def _own_read(self, files: str) -> frozenset[str] | None:
        seen = SeenFiles.parse(files)
        return None if seen is None else seen.own_read(self._files)

    def is_rewritten(self, files: str) -> bool:
        """Whether any of the source's own files that a materialization read is not there any more as it was."""
        return self._own_read(files) is None

    @lru_cache(maxsize=256)  # noqa: B019 - lives as long as one audit
    def unsure(self, files: str) -> Truths:
        """Returns by place in the source of which landed files it is not sure: they were merged since."""
        seen = SeenFiles.parse(files)
        return np.array(
            [seen is not None and file.is_landed and not seen.landed(file).is_sure for file in self._files] or [False]
        )

    @lru_cache(maxsize=256)  # noqa: B019
    def were_read(self, files: str, known_us: int | None, *, by_time: bool = False) -> Truths:
        """Returns by place in the source whether a materialization had read a file.

        Args:
            by_time: of files of which it is not sure, those that came before it began; else all of them.
        """
        seen = SeenFiles.parse(files)
        read = []
        own = self._own_read(files)
        for place, file in enumerate(self._files):
            said = Seen(was_read=True, is_sure=False)
            if seen is not None and file.is_landed:
                said = seen.landed(file)
            elif own is not None:
                said = Seen(was_read=file.path in own, is_sure=True)
            is_early = known_us is not None and int(self.came_us[place]) <= known_us
            read.append(said.was_read if said.is_sure else not by_time or is_early)
        return np.array(read or [True], dtype=bool)


class EventBlocks:
    """Reads the events of a view's keys, those of its source and those that were accepted."""

    def __init__(
        self,
        clock: Clock,
        definition: ViewDefinition,
        key_names: Sequence[str],
        windows: Sequence[WindowFeature],
        source: EventSearch,
        accepted: EventSearch | None,
    ) -> None:
        """Takes both.

        Args:
            key_names: the join keys in the order in which keys have their values.
            windows: those features of the view that are recomputed.
        """
        self.definition = definition
        self._key_names = key_names
        self.windows = tuple(windows)
        self.inputs = input_columns(definition.windows)
        self._source = source
        self._accepted = accepted
        self.files = ReadFiles(source.source, clock)
        self._reach_us = reach_us(windows)

    def block(self, keys: Sequence[Key], low_us: int, high_us: int) -> "EventBlock":
        """Returns the events of keys that vectors between two times may count.

        Raises:
            SourceError, WrongType: as their names say.
        """
        columns = {name: pa.array([key[place] for key in keys]) for place, name in enumerate(self._key_names)}
        asked = pa.table({**columns, NUMBER: pa.array(range(len(keys)), pa.int64())})
        span = low_us - self._reach_us, high_us + _AHEAD_US
        parts = [self._part(self._source.events(asked, *span), is_source=True)]
        if self._accepted is not None:
            parts.append(self._part(self._accepted.events(asked, *span), is_source=False))
        return EventBlock(
            self, {key: number for number, key in enumerate(keys)}, _together(parts, len(keys), len(self.inputs))
        )

    def _part(self, batches: Iterable[pa.RecordBatch], *, is_source: bool) -> "_Part | None":
        listed = list(batches)
        if not sum(batch.num_rows for batch in listed):
            return None
        table = pa.Table.from_batches(listed).combine_chunks()

        def ints(name: str, null: int) -> Ints:
            return np.asarray(pc.fill_null(table.column(name).cast(pa.int64()), null).to_numpy())

        columns = [input_values(self.definition.name, n, table.column(n).combine_chunks()) for n in self.inputs]
        rows = table.num_rows
        return _Part(
            {
                "number": ints(NUMBER, 0),
                "event_us": ints(EVENT_US, 0),
                "created_us": ints(CREATED_US, NO_CREATED),
                "line_ids": ints(LARDER_ID if is_source else LINE_ID, NO_ID),
                "log_ids": np.zeros(rows, dtype=np.int64) if is_source else ints(LOG_ID, 0),
                "is_source": np.full(rows, is_source),
                "is_landed": np.zeros(rows, dtype=bool) if is_source else ints(IS_LANDED, 0).astype(bool),
                "files": ints(FILE, 0) if is_source else np.zeros(rows, dtype=np.int64),
            },
            columns,
        )


class _Part:
    def __init__(self, columns: Mapping[str, Any], values: Sequence[tuple[Values, Truths]]) -> None:
        self.columns = columns
        self.values = values


def _together(parts: Sequence[_Part | None], key_count: int, input_count: int) -> KeyedEvents:
    """Returns the events of some parts, by key and event time."""
    found = [part for part in parts if part is not None]
    if not found:
        none = np.zeros(0, dtype=np.int64)
        no = np.zeros(0, dtype=bool)
        return KeyedEvents(
            np.zeros(key_count + 1, dtype=np.int64),
            none,
            none,
            none,
            none,
            no,
            no,
            none,
            [none] * input_count,
            [no] * input_count,
        )
    columns = {name: np.concatenate([part.columns[name] for part in found]) for name in found[0].columns}
    order = np.lexsort((columns["event_us"], columns["number"]))
    columns = {name: column[order] for name, column in columns.items()}
    starts = np.searchsorted(columns.pop("number"), np.arange(key_count + 1), "left").astype(np.int64)
    values = [_one_kind([part.values[place] for part in found])[order] for place in range(len(found[0].values))]
    is_valid = [np.concatenate([p.values[place][1] for p in found])[order] for place in range(len(found[0].values))]
    return KeyedEvents(starts, **columns, values=values, is_valid=is_valid)


def _one_kind(columns: Sequence[tuple[Values, Truths]]) -> Values:
    """Returns columns after each other; one without any value takes the kind of the others."""
    kinds = [values.dtype for values, is_valid in columns if is_valid.any()]
    kind = kinds[0] if kinds else columns[0][0].dtype
    return np.concatenate([v if is_valid.any() else np.zeros(len(v), dtype=kind) for v, is_valid in columns])


class EventBlock:
    """The events of some keys of one view."""

    def __init__(self, blocks: EventBlocks, numbers: Mapping[Key, int], events: KeyedEvents) -> None:
        self._blocks = blocks
        self._numbers = numbers
        self._events = events

    def asked(self, key: Key, known: Known, how: str = "known") -> Asked:
        """Returns which events count for a vector.

        Args:
            how: "known" as the log tells; "by time" with other files where it is not sure which were read; "beyond"
                with events after the vector's time; "no batch", "no stream" or "after ID" where tiles had expired.
        """
        high_us = known.at_us + (_AHEAD_US if how == "beyond" else 0)
        part = self._part(key, known, high_us)
        batch, stream = self._sides(part, known, by_time=how == "by time")
        if how in ("no batch", "nothing"):
            batch = np.zeros_like(batch)
        if how in ("no stream", "nothing"):
            stream = np.zeros_like(stream)
        if how.startswith("after "):
            stream = stream & (self._events.log_ids[part] > int(how.split()[1]))
        return Asked(self._numbers[key], known.at_us, part, batch | stream)

    def values(self, asked: Sequence[Asked]) -> dict[str, list[Any]]:
        """Returns the features of vectors."""
        return values_of(self._blocks.windows, self._blocks.inputs, self._events, asked)

    def is_rewritten(self, key: Key, known: Known) -> bool:
        """Whether the files that the materialization had read are no longer all there as they were."""
        if known.batch_end_us is None:
            return False
        part = self._part(key, known, known.at_us)
        unsure = self._blocks.files.unsure(known.files)[self._events.files[part]]
        rows = self._events.is_source[part] & (self._events.line_ids[part] == NO_ID)
        return self._blocks.files.is_rewritten(known.files) or bool((unsure & rows).any())

    def has_beyond(self, key: Key, known: Known) -> bool:
        """Whether any event after the vector's time was known."""
        part = self._part(key, known, known.at_us + _AHEAD_US)
        batch, stream = self._sides(part, known)
        return bool(((batch | stream) & (self._events.event_us[part] > known.at_us)).any())

    def expiries(self, key: Key, known: Known) -> list[str]:
        """Returns how a vector may have been merged where tiles had expired."""
        part = self._part(key, known, known.at_us)
        _, stream = self._sides(part, known)
        ids = sorted(self._events.log_ids[part][stream].tolist(), reverse=True)[:_EXPIRIES_MAX]
        return ["no batch", "no stream", "nothing", *(f"after {log_id}" for log_id in ids)]

    def first_kept_us(self, key: Key) -> int:
        """Returns when the first event came that is still kept of a key, or has landed; far off for none."""
        number = self._numbers[key]
        part = slice(int(self._events.starts[number]), int(self._events.starts[number + 1]))
        ids = np.where(self._events.is_source[part], self._events.line_ids[part], self._events.log_ids[part])
        return int(min(ids[ids != NO_ID].tolist(), default=2**63 - 1))

    def differing(self, key: Key, known: Known, window: WindowFeature) -> Differing:
        """Returns what counted for a feature, of all that may."""
        part = self._events.between(self._numbers[key], window.start_us(known.at_us), known.at_us)
        batch, stream = self._sides(part, known, by_time=self._blocks.files.is_rewritten(known.files))
        place = self._blocks.inputs.index(window.column)
        values, is_valid = self._events.values[place][part], self._events.is_valid[place][part]
        has_value = is_valid & ~np.isnan(values) if values.dtype == np.float64 else is_valid
        return Differing(
            self._events,
            part,
            batch,
            stream,
            has_value,
            self._blocks.files.came_us,
            self._blocks.definition.is_external,
        )

    def _part(self, key: Key, known: Known, high_us: int) -> slice:
        start_us = min(window.start_us(known.at_us) for window in self._blocks.windows)
        return self._events.between(self._numbers[key], start_us, high_us)

    def _sides(self, part: slice, known: Known, *, by_time: bool = False) -> tuple[Truths, Truths]:
        was_read = self._blocks.files.were_read(known.files, known.known_us, by_time=by_time)
        batch = on_batch_side(self._events, part, known, was_read)
        is_external = self._blocks.definition.is_external
        return batch, on_stream_side(self._events, part, known, is_external=is_external)
