"""Batches of events as the tiles of their entity keys: what a materialization of a windowed view writes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from store.arrow_rows import us_and_ns
from store.errors import DefinitionError
from store.kernel.algebra import NO_CREATED, State, merge
from store.kernel.definitions import ViewDefinition
from store.kernel.instants import Ints, Truths
from store.kernel.tile_groups import EventColumns, Values, states_of
from store.kernel.tiles import SINGLE, Entry, TilePlan
from store.kernel.windows import input_columns
from store.offline.window_events import CREATED_US, EVENT_US
from store.packed_columns import entity_keys_of

_BATCH_LINE = 0
"""The line of entries of a materialization, which plays no part."""


class KeyEntries(NamedTuple):
    """What a materialization makes of one entity key."""

    entity_key: bytes
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class TileBuilder:
    """Makes the tiles of one view as they are best kept at a time.

    Attributes:
        now_us: the time.
    """

    definition: ViewDefinition
    plan: TilePlan
    now_us: int

    def entries(self, batches: Iterable[pa.RecordBatch]) -> Iterator[KeyEntries]:
        """Yields the entries of each entity key, once.

        Args:
            batches: of `WindowEvents.batches`, the events of one key next to each other.

        Raises:
            DefinitionError: a column of a type that cannot be aggregated.
            WrongType: a key that does not fit its declared type.
        """
        for entity_key, parts in groupby(self._parts(batches), lambda part: part[0]):
            states: dict[tuple[int, int], list[State]] = {}
            for _, start, level, state in parts:
                states.setdefault((start, level), []).append(state)
            entries = [
                [start, level, _BATCH_LINE, *merge(self.plan.layout, same)]
                for (start, level), same in sorted(states.items())
            ]
            yield KeyEntries(entity_key, entries)

    def _parts(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[bytes, int, int, State]]:
        """Yields the tiles of each batch; a key whose events lie in two batches comes twice."""
        for batch in batches:
            yield from self._tiles_of(batch)

    def _tiles_of(self, batch: pa.RecordBatch) -> Iterator[tuple[bytes, int, int, State]]:
        keys = entity_keys_of(self.definition, batch)
        # A NaN in a key is a null, which no lookup asks for.
        batch, keys = (batch.filter(keys.is_valid()), keys.drop_null()) if keys.null_count else (batch, keys)
        if not len(keys):
            return
        codes = _run_numbers(keys)
        event_us = batch.column(EVENT_US).to_numpy()
        starts, levels = self._places(event_us)
        order = np.lexsort((starts, levels, codes))
        codes, starts, levels = codes[order], starts[order], levels[order]
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (codes[1:] != codes[:-1]) | (levels[1:] != levels[:-1]) | (starts[1:] != starts[:-1])
        firsts = np.flatnonzero(is_new)
        columns = [input_values(self.definition.name, n, batch.column(n)) for n in input_columns(self.plan.features)]
        created = pc.fill_null(batch.column(CREATED_US), NO_CREATED).to_numpy()
        events = EventColumns(
            np.cumsum(is_new) - 1,
            event_us[order],
            created[order],
            [values[order] for values, _ in columns],
            [is_valid[order] for _, is_valid in columns],
        )
        states = states_of(self.plan.layout, events)
        of_tile = keys.take(pa.array(order[firsts])).to_pylist()
        yield from zip(of_tile, starts[firsts].tolist(), levels[firsts].tolist(), states, strict=True)

    def _places(self, event_us: Ints) -> tuple[Ints, Ints]:
        """Returns start and level of the tile of each event, all of which a window reaches."""
        limits = self.plan.limits(self.now_us)
        levels = np.zeros(len(event_us), dtype=np.int64)
        starts = event_us // limits.hops[0] * limits.hops[0]
        for level in range(1, len(limits.hops)):
            hop = limits.hops[level]
            longer = event_us // hop * hop
            is_old = longer + hop <= limits.oldest_us[level - 1]
            levels[is_old], starts[is_old] = level, longer[is_old]
        is_ahead = event_us > self.now_us
        levels[is_ahead], starts[is_ahead] = SINGLE, event_us[is_ahead]
        return starts, levels


def _run_numbers(keys: Any) -> Ints:
    """Returns numbers from 0 on that tell runs of equal keys apart."""
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return np.cumsum(is_first) - 1


def input_values(view: str, name: str, array: Any) -> tuple[Values, Truths]:
    """Returns a column as the algebra takes it, and where it has a value: timestamps as microseconds since the epoch.

    Raises:
        DefinitionError: a column of a type that cannot be aggregated.
    """
    kind = array.type
    is_valid: Truths = array.is_valid().to_numpy(zero_copy_only=False)
    if pat.is_dictionary(kind):
        array, kind = array.cast(kind.value_type), kind.value_type
    if pat.is_boolean(kind):
        return pc.fill_null(array, False).to_numpy(zero_copy_only=False), is_valid
    if pat.is_integer(kind):
        if pat.is_uint64(kind):
            # Beyond an int64, which the other integers fit, the algebra counts with Python's own.
            return _objects(pc.fill_null(array, 0)), is_valid
        return pc.fill_null(array.cast(pa.int64()), 0).to_numpy(), is_valid
    if pat.is_floating(kind):
        return pc.fill_null(array.cast(pa.float64()), 0.0).to_numpy(), is_valid
    if pat.is_timestamp(kind) or pat.is_date(kind):
        return pc.fill_null(us_and_ns(array)[0], 0).to_numpy(), is_valid
    if pat.is_string(kind) or pat.is_large_string(kind):
        return _objects(pc.fill_null(array, "")), is_valid
    if pat.is_binary(kind) or pat.is_large_binary(kind) or pat.is_fixed_size_binary(kind):
        return _objects(pc.fill_null(array, b"")), is_valid
    if pat.is_null(kind):
        return np.zeros(len(array)), is_valid
    raise DefinitionError(
        f"feature view {view!r}: column {name!r} is {kind}, which cannot be aggregated; aggregate numbers, truths, "
        "text, bytes or timestamps"
    )


def _objects(array: Any) -> Values:
    values = np.empty(len(array), dtype=object)
    values[:] = array.to_pylist()
    return values
