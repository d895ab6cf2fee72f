"""Windowed features of entity rows at their own times, from events that come in chunks.

Events are chosen and put into groups of keys as they come; then each group is answered by itself, so that several can
be answered at a time and none but its own events has to be in memory.

Source: design section 3.2 for the semantics; `store.kernel.algebra` is what answers must equal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from store.kernel.as_of import AskedRows
from store.kernel.instants import NO_TIME_US, Instants, Ints
from store.kernel.window_answers import AskedGroup, WindowAnswers, answer_group
from store.kernel.window_events import EventChunk, Events, Form, InputColumn
from store.kernel.windows import SECOND_US, Function, WindowFeature, reach_us

GROUPS_MAX = 64
"""Groups of keys: enough that the events of one fit a processor's cache, and that few of them fill the memory."""

_NS_PER_US = 1_000
_US_MAX = np.iinfo(np.int64).max // _NS_PER_US - 1
"""The last microsecond that can be counted in nanoseconds."""


@dataclass(frozen=True)
class AskedWindows:
    """What entity rows ask for: features of the live ones of `rows`.

    Attributes:
        is_ns: whether the times of events are known in nanoseconds, or those of entity rows.
        has_cutoff: whether an event counts only from its created time on (one without a created time: never).
        has_created: whether created times decide between events of one event time.
    """

    rows: AskedRows
    features: tuple[WindowFeature, ...]
    is_ns: bool
    has_cutoff: bool
    has_created: bool

    @cached_property
    def counts_ns(self) -> bool:
        """Whether an entity row's time has nanoseconds, so that what it can see is told by them."""
        return self.is_ns and self.rows.times.shape[1] > 1 and bool(self.rows.times[:, 1].any())

    @cached_property
    def sight(self) -> Ints:
        """Returns the time of each entity row in the unit of `seen_from`."""
        us = self.rows.times[:, 0]
        return us * _NS_PER_US + self.rows.times[:, 1] if self.counts_ns else us

    @cached_property
    def hulls(self) -> Ints:
        """Returns for each code the earliest and latest event time that any of its windows may hold."""
        starts, times = self.rows.starts, self.rows.times[:, 0]
        hulls = np.empty((len(starts) - 1, 2), dtype=np.int64)
        hulls[:, 0], hulls[:, 1] = 1, 0
        has_rows = starts[1:] > starts[:-1]
        hulls[has_rows, 0] = times[starts[:-1][has_rows]] - reach_us(self.features)
        hulls[has_rows, 1] = times[starts[1:][has_rows] - 1]
        return hulls

    def seen_from(self, instants: Instants) -> Ints:
        """Returns the first instant of an entity row that is not before each of some instants.

        Units: nanoseconds where an entity row has any, else microseconds.
        """
        us, ns = instants.us, instants.ns
        if not self.counts_ns:
            return us if ns is None else us + (ns > 0)
        # Beyond what nanoseconds can count lies no entity row that has any, so there only the side matters.
        counted = np.clip(us, -_US_MAX, _US_MAX) * _NS_PER_US
        return counted if ns is None else counted + ns


class WindowSearch:
    """The search for the windowed features of some entity rows.

    `chosen` of each chunk gives events by group, to be kept; then `answer` is asked once for each group, from any
    number of threads, and `answers` has the result.
    """

    def __init__(self, asked: AskedWindows) -> None:
        self._asked = asked
        keys = len(asked.rows.starts) - 1
        self._shift = 0
        while (keys - 1) >> self._shift >= GROUPS_MAX:
            self._shift += 1
        self.group_count = ((keys - 1) >> self._shift) + 1 if keys else 0
        self.answers = WindowAnswers.empty(asked.features, len(asked.rows.rows))

    def chosen(self, chunk: EventChunk) -> Iterator[tuple[int, Events]]:
        """Yields the events of a chunk that some window may hold, by group of keys; groups without any are left out."""
        from store.kernel import window_moves

        kept = np.empty(len(chunk.codes), dtype=np.int64)
        ends = np.zeros(self.group_count + 1, dtype=np.int64)
        codes, event_us = (np.require(array, requirements=["C", "W"]) for array in (chunk.codes, chunk.event.us))
        window_moves.select_events(codes, event_us, self._asked.hulls, self._shift, kept, ends)
        events = self._events(chunk).taken(kept[: ends[-1]])
        if events.visible is not None and self._asked.has_cutoff:
            assert events.created_us is not None
            known = np.flatnonzero(events.created_us != NO_TIME_US)
            if len(known) < len(events.codes):
                ends = np.searchsorted(known, ends)
                events = events.taken(known)
        for group in np.flatnonzero(ends[1:] > ends[:-1]):
            yield int(group), events.part(ends[group], ends[group + 1])

    def _events(self, chunk: EventChunk) -> Events:
        asked, visible = self._asked, None
        if asked.has_cutoff:
            assert chunk.created is not None
            visible = asked.seen_from(chunk.event.or_later(chunk.created))
        elif asked.is_ns:
            visible = asked.seen_from(chunk.event)
        has_created = asked.has_created or asked.has_cutoff
        created_us = chunk.created.us if has_created and chunk.created is not None else None
        return Events(chunk.codes, chunk.event.us, visible, created_us, chunk.values, chunk.is_counted)

    def answer(self, group: int, pieces: Sequence[Events], columns: Sequence[InputColumn]) -> None:
        """Finds the features of all entity rows of a group of keys.

        Args:
            pieces: all events of the group.
            columns: the input columns, as the chunks had them.
        """
        if not pieces:
            return
        rows = self._asked.rows
        first = group << self._shift
        last = min(first + (1 << self._shift), len(rows.starts) - 1)
        low, high = rows.starts[first], rows.starts[last]
        asked = AskedGroup(
            number=group,
            first_code=first,
            first_place=int(low),
            starts=rows.starts[first : last + 1] - low,
            times_us=rows.times[low:high, 0].copy(),
            sight=self._asked.sight[low:high].copy(),
        )
        answer_group(asked, Events.joined(pieces), self._asked.features, columns, self.answers)


def prepare() -> None:
    """Loads the compiled loops of the common functions, so that searches of this process begin at once."""
    names = ("count", "sum", "min", "last")
    features = tuple(WindowFeature(name, "x", Function(name), 2 * SECOND_US, SECOND_US, "DOUBLE") for name in names)
    one = np.zeros(1, dtype=np.int64)
    rows = AskedRows.of(one, Instants(one))
    search = WindowSearch(AskedWindows(rows, features, is_ns=False, has_cutoff=False, has_created=False))
    events = [events for _, events in search.chosen(EventChunk(one, Instants(one), None, (one,), (None,)))]
    search.answer(0, events, [InputColumn("x", Form.FLOAT)])
