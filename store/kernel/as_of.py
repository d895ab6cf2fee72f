"""The as-of search: for each entity row the newest row of its key, over a source that comes in chunks.

Two ways lead to it, and a source row takes the one that its time allows.

In order: source rows and entity rows are gone through together in order of time. Of each key the newest row so far is
kept, and an entity row takes it as it is passed. That costs a few nanoseconds a row, and is how sources mostly lie.

Out of order: a row that comes when later ones were there goes to the first entity row of its key that can see it,
found by a search from where the last one ended. At the end each entity row hands what it has on to the next one of its
key, where something newer may stand.

Wherever two rows meet, the one that ranks higher by (event, created, position) stays, so order plays no part in the
answer. Each chunk is read once: cost is linear in the source and memory is that of the entity rows. With the created
cutoff a row can be seen from max(event, created) on, and nothing else changes.

Source: design section 3.1 for the semantics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from store.kernel.instants import NO_ROW, NO_TIME_US, Instants, Ints, Truths

_NEVER_US = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class SourceChunk:
    """Rows of a source, in any order, as arrays of one length.

    `codes` are the codes of their keys, whether or not an entity row has them, `event` their event times (no nulls),
    `created` their created times (`NO_TIME_US` for a null), None where they play no part; `positions` grow in source
    order.
    """

    codes: Ints
    event: Instants
    created: Instants | None
    positions: Ints


@dataclass(frozen=True, slots=True)
class Matches:
    """For each entity row the position (`NO_ROW` for none) and the event time of the row that answers it.

    `is_tied` says, unless there is a cutoff, where another row of the same key and event time was found: there created
    times decide, if the chunks had any.
    """

    positions: Ints
    event: Instants
    is_tied: Truths


@dataclass(frozen=True, slots=True)
class AskedRows:
    """Entity rows in the order in which they are searched; made once, it serves any number of searches.

    Shapes: of `total` entity rows those that something can match are live. `rows` and `times` are of the live ones, by
    (code, time); those of code c have the places from `starts[c]` up to, not including, `starts[c + 1]`. `by_time` are
    all places in order of time; `codes_by_time` and `times_by_time` are what stands there. Times have a column for
    microseconds and, where they play a part, one for nanoseconds.
    """

    total: int
    rows: Ints
    times: Ints
    starts: Ints
    by_time: Ints
    codes_by_time: Ints
    times_by_time: Ints

    @classmethod
    def of(cls, codes: Ints, times: Instants) -> "AskedRows":
        """Returns entity rows to be searched.

        Args:
            codes: the code of each row's key, 0 and up without large gaps; `NO_ROW` for one that nothing can match.
            times: their instants; those of a row with code `NO_ROW` play no part.
        """
        from store.kernel import as_of_loops

        order = np.lexsort(times.columns[::-1]) if len(times.columns) > 1 else np.argsort(times.us)
        order = order[codes[order] != NO_ROW]
        codes_by_time = codes[order]
        starts = np.zeros(int(codes.max(initial=NO_ROW)) + 2, dtype=np.int64)
        grouped, by_time = np.empty_like(order), np.empty_like(order)
        as_of_loops.group_by_code(codes_by_time, starts, grouped, by_time)
        times_by_time = _table(times.taken(order).columns)
        return cls(len(codes), order[grouped], times_by_time[grouped], starts, by_time, codes_by_time, times_by_time)


class AsOfSearch:
    """The search for the rows that answer some entity rows; chunks are added, then `matches` tells the result.

    Args:
        has_created: whether the chunks have created times.
        has_cutoff: whether a row counts only from its created time on (one without a created time: never).
    """

    def __init__(self, asked: AskedRows, *, has_created: bool, has_cutoff: bool = False) -> None:
        self._asked = asked
        self._has_created = has_created
        self._has_cutoff = has_cutoff
        event_width = asked.times.shape[1]
        width = (2 if has_created else 1) * event_width + 1
        # First of each key the newest row, then what each entity row has; in one more column, whether rows are tied.
        self._held = np.full((len(asked.starts) - 1 + len(asked.rows), width + 1), NO_TIME_US, dtype=np.int64)
        self._held[:, width] = 0
        self._front = np.array([NO_TIME_US, NO_TIME_US, 0])
        self._cursors = asked.starts[:-1].copy()

    def add(self, chunk: SourceChunk) -> None:
        """Takes the rows of a chunk into account; instants must be in the same form as those of the entity rows."""
        if self._has_cutoff:
            chunk = _with_created(chunk)
        ranks = [*chunk.event.columns, chunk.positions]
        visible = chunk.event
        if self._has_created:
            assert chunk.created is not None
            ranks[-1:] = [*chunk.created.columns, chunk.positions]
            visible = visible.or_later(chunk.created) if self._has_cutoff else visible
        self._pass(chunk.codes, _table(visible.columns), _table(ranks))

    def matches(self) -> Matches:
        """Returns what was found, in the order of the entity rows; after it nothing may be added."""
        from store.kernel import as_of_loops

        asked, event_width = self._asked, self._asked.times.shape[1]
        if len(asked.rows):
            # A row at the end of time, which ranks below any, lets all entity rows pass.
            end = np.full((1, event_width), _NEVER_US)
            self._pass(np.zeros(1, dtype=np.int64), end, np.full((1, self._held.shape[1] - 1), NO_TIME_US))
        as_of_loops.carry_forward(asked.starts, self._held, event_width)
        found = self._held[len(asked.starts) - 1 :]
        is_found = found[:, 0] != NO_TIME_US
        positions = np.full(asked.total, NO_ROW, dtype=np.int64)
        positions[asked.rows] = np.where(is_found, found[:, -2], NO_ROW)
        times = [np.full(asked.total, NO_TIME_US) for _ in range(event_width)]
        for column, values in zip(times, found.T, strict=False):
            column[asked.rows] = values
        is_tied = np.zeros(asked.total, dtype=bool)
        is_tied[asked.rows] = found[:, -1] != 0
        return Matches(positions, Instants(*times), is_tied)

    def _pass(self, codes: Ints, visible: Ints, rows: Ints) -> None:
        """Passes by rows, in their order."""
        from store.kernel import as_of_loops

        asked = self._asked
        as_of_loops.add_rows(
            np.require(codes, requirements="W"),
            visible,
            rows,
            asked.starts,
            self._cursors,
            asked.times,
            asked.by_time,
            asked.codes_by_time,
            asked.times_by_time,
            self._held,
            self._front,
        )


def prepare() -> None:
    """Loads the compiled loops, so that searches of this process and of those forked from it begin at once."""
    search = AsOfSearch(
        AskedRows.of(np.zeros(1, dtype=np.int64), Instants(np.zeros(1, dtype=np.int64))), has_created=False
    )
    nothing = np.zeros(0, dtype=np.int64)
    search.add(SourceChunk(nothing, Instants(nothing), None, nothing))
    search.matches()


def _with_created(chunk: SourceChunk) -> SourceChunk:
    """Returns the rows that have a created time."""
    assert chunk.created is not None
    kept = np.flatnonzero(chunk.created.us != NO_TIME_US)
    if len(kept) == len(chunk.codes):
        return chunk
    return SourceChunk(chunk.codes[kept], chunk.event.taken(kept), chunk.created.taken(kept), chunk.positions[kept])


def _table(columns: Sequence[Ints]) -> Ints:
    """Returns columns of one length side by side, a row each."""
    table = np.empty((len(columns[0]), len(columns)), dtype=np.int64)
    for number, column in enumerate(columns):
        table[:, number] = column
    return table
