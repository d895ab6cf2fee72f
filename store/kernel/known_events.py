"""What was known of a windowed value when it was served: which events, and what the algebra makes of them.

The batch side holds the rows of the source that the materialization in force had read: those of the event log up to
its line, others before its batch end. The stream side holds the accepted events that were applied to the key by then,
but for those of which the seam says that they are on the batch side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from store.kernel.algebra import State, StateLayout, SumOverflow, finalize
from store.kernel.instants import Ints, Truths
from store.kernel.tile_groups import EventColumns, Values, states_of
from store.kernel.windows import WindowFeature

NO_ID = -1
"""The line id of a row that did not come by the event log."""

_PAIRS_AT_ONCE = 1_000_000
"""Events that are counted at a time, each as often as a vector's windows hold it: some 50 MB of columns."""

_SECOND_US = 1_000_000


class Known(NamedTuple):
    """What the log tells of one served vector of a windowed view.

    Attributes:
        at_us: the request time.
        batch_end_us: where the materialization in force ended, None for none; `line_id` 0 for no line.
        known_us: when it began; `files` tells which files it read.
        applied_through: the highest log id that was applied to the key.
    """

    at_us: int
    batch_end_us: int | None
    line_id: int
    known_us: int | None
    files: str
    fingerprint: str
    applied_through: int


@dataclass(frozen=True, slots=True)
class KeyedEvents:
    """Events of some keys in columns, by key and then by event time: those of the source, and those that were accepted.

    Attributes:
        starts: where the events of each key begin, and after the last key where they end.
        line_ids: the ids under which they entered the log, `NO_ID` for rows that did not come by it.
        log_ids: of accepted events; 0 for rows of the source.
        files: places of the files in the source; 0 for accepted events.
        values: per input column, `is_valid` likewise.
    """

    starts: Ints
    event_us: Ints
    created_us: Ints
    line_ids: Ints
    log_ids: Ints
    is_source: Truths
    is_landed: Truths
    files: Ints
    values: Sequence[Values]
    is_valid: Sequence[Truths]

    def between(self, key: int, low_us: int, high_us: int) -> slice:
        """Returns the places of a key's events between two times, both inclusive."""
        first, end = self.starts[key], self.starts[key + 1]
        of_key = self.event_us[first:end]
        low, high = np.searchsorted(of_key, low_us, "left"), np.searchsorted(of_key, high_us, "right")
        return slice(int(first + low), int(first + max(high, low)))


def on_batch_side(events: KeyedEvents, part: slice, known: Known, was_read: Truths) -> Truths:
    """Returns which of some events the materialization in force held.

    Args:
        was_read: by the place of a file in the source, whether the materialization had read it.
    """
    if known.batch_end_us is None:
        return np.zeros(part.stop - part.start, dtype=bool)
    line_ids = events.line_ids[part]
    by_time = (events.event_us[part] < known.batch_end_us) & was_read[events.files[part]]
    by_line = line_ids <= known.line_id
    return events.is_source[part] & np.where((line_ids != NO_ID) & (known.line_id > 0), by_line, by_time)


def on_stream_side(events: KeyedEvents, part: slice, known: Known, *, is_external: bool) -> Truths:
    """Returns which of some events were applied, and are not on the batch side by the seam."""
    is_applied = ~events.is_source[part] & (events.log_ids[part] <= known.applied_through)
    if known.batch_end_us is None:
        return is_applied
    if is_external:
        return is_applied & (events.event_us[part] >= known.batch_end_us)
    return is_applied & ~(events.is_landed[part] & (events.line_ids[part] <= known.line_id))


class Asked(NamedTuple):
    """One vector to be computed: the key's number, the events that may count and which of them do."""

    key: int
    at_us: int
    part: slice
    counts: Truths


def values_of(
    features: Sequence[WindowFeature], inputs: Sequence[str], events: KeyedEvents, asked: Sequence[Asked]
) -> dict[str, list[Any]]:
    """Returns the features of vectors, by name, each with one value per vector; null for a sum beyond int64.

    Events beyond a vector's time count if it says so: it is the part and the counts that choose.

    Args:
        inputs: the names of the columns of the events' values.
    """
    found: dict[str, list[Any]] = {feature.name: [] for feature in features}
    windows = dict.fromkeys((feature.window_us, feature.hop_us) for feature in features)
    for window in windows:
        mine = [feature for feature in features if (feature.window_us, feature.hop_us) == window]
        layout = StateLayout.of(mine)
        columns = [inputs.index(column.name) for column in layout.columns]
        for states in _states(mine[0], layout, columns, events, asked):
            for feature in mine:
                found[feature.name] += [_finalized(layout, state, feature) for state in states]
    return found


def _states(
    window: WindowFeature, layout: StateLayout, columns: Sequence[int], events: KeyedEvents, asked: Sequence[Asked]
) -> Iterator[list[State | None]]:
    chosen: list[Ints] = []
    pairs = 0
    for vector in asked:
        inside = events.event_us[vector.part] >= window.start_us(vector.at_us)
        chosen.append(np.flatnonzero(inside & vector.counts) + vector.part.start)
        pairs += len(chosen[-1])
        if pairs >= _PAIRS_AT_ONCE:
            yield _of_chosen(layout, columns, events, chosen)
            chosen, pairs = [], 0
    yield _of_chosen(layout, columns, events, chosen)


def _of_chosen(
    layout: StateLayout, columns: Sequence[int], events: KeyedEvents, chosen: Sequence[Ints]
) -> list[State | None]:
    states: list[State | None] = [None] * len(chosen)
    having = [number for number, places in enumerate(chosen) if len(places)]
    if not having:
        return states
    sizes = [len(chosen[number]) for number in having]
    places = np.concatenate([chosen[number] for number in having])
    counted = EventColumns(
        np.repeat(np.arange(len(having)), sizes),
        events.event_us[places],
        events.created_us[places],
        [events.values[column][places] for column in columns],
        [events.is_valid[column][places] for column in columns],
    )
    for number, state in zip(having, states_of(layout, counted), strict=True):
        states[number] = state
    return states


def _finalized(layout: StateLayout, state: State | None, feature: WindowFeature) -> Any:
    try:
        value = finalize(layout, state, feature)
    except SumOverflow:
        return None
    if not feature.type_name.startswith("UNIX_TIMESTAMP"):
        return value
    if isinstance(value, list):
        return [item // _SECOND_US for item in value]
    return None if value is None else value // _SECOND_US
