"""Compiled loops over sliding windows that pick events: extremes, ends, percentiles and numbers of distinct values.

All take what `move_events` made: which events come into the window of each entity row, and which go.
"""

import numpy as np

from store.kernel.compiled import compiled
from store.kernel.instants import Ints
from store.kernel.sketches import DISTINCT_HASHES_MAX

NO_EVENT = -1
"""The event of a window without any."""

_BLOCK_BITS = 8
_DISTINCT_MAX = DISTINCT_HASHES_MAX


@compiled
def slide_extremes(  # noqa: C901, PLR0912, PLR0913, PLR0917 - as for `slide_ranks`
    starts: Ints,
    asked_starts: Ints,
    comes: Ints,
    comes_ends: Ints,
    tails: Ints,
    keys: Ints,
    flip: int,
    picked: Ints,
) -> None:
    """Picks the greatest event of each entity row's window.

    Kept are the events that may still become the greatest: each is greater than all after it. An event that comes out
    of order finds its place among them.

    Args:
        keys: integers in the order of the values.
        flip: 0; or -1, which turns the order round, so that the least is picked.
        picked: made the events, `NO_EVENT` for none.
    """
    largest = 0
    for code in range(len(starts) - 1):
        largest = max(largest, starts[code + 1] - starts[code])
    stairs = np.empty(largest, dtype=np.int64)
    came = 0
    for code in range(len(starts) - 1):
        head = end = 0
        for row in range(asked_starts[code], asked_starts[code + 1]):
            for number in range(came, comes_ends[row]):
                event = comes[number]
                key = keys[event] ^ flip
                later = end
                while later > head and stairs[later - 1] > event:
                    later -= 1
                if later < end and (keys[stairs[later]] ^ flip) >= key:
                    continue
                low = later
                while low > head and (keys[stairs[low - 1]] ^ flip) <= key:
                    low -= 1
                if later < end:
                    # Those from `low` up to `later` give way to it; the later ones move up or down beside it.
                    moved = low + 1 - later
                    if moved > 0:
                        for place in range(end - 1, later - 1, -1):
                            stairs[place + 1] = stairs[place]
                    elif moved < 0:
                        for place in range(later, end):
                            stairs[place + moved] = stairs[place]
                    end += moved
                else:
                    end = low + 1
                stairs[low] = event
            came = comes_ends[row]
            while head < end and stairs[head] < tails[row]:
                head += 1
            picked[row] = stairs[head] if head < end else -1


@compiled
def slide_ends(  # noqa: PLR0913, PLR0917 - as for `slide_ranks`
    starts: Ints,
    asked_starts: Ints,
    comes: Ints,
    comes_ends: Ints,
    tails: Ints,
    counts: Ints,
    runs: Ints,
    firsts: Ints,
    lasts: Ints,
) -> None:
    """Picks the first and the last event of each entity row's window; of those that tie in time the greatest.

    Args:
        runs: the number of each event's run; events are in order of code, run, value.
        firsts: made the first events, `lasts` the last ones; `NO_EVENT` for none. Empty ones are not wanted.
    """
    is_come = np.zeros(len(runs), dtype=np.bool_)
    came = 0
    for code in range(len(starts) - 1):
        newest = -1
        end = starts[code + 1]
        for row in range(asked_starts[code], asked_starts[code + 1]):
            for number in range(came, comes_ends[row]):
                event = comes[number]
                is_come[event] = True
                newest = max(newest, event)
            came = comes_ends[row]
            is_any = counts[row] > 0
            if len(lasts):
                lasts[row] = newest if is_any else -1
            if len(firsts):
                first = -1
                if is_any:
                    event = tails[row]
                    while not is_come[event]:
                        event += 1
                    run = runs[event]
                    while event < end and runs[event] == run:
                        if is_come[event]:
                            first = event
                        event += 1
                firsts[row] = first


@compiled
def slide_lists(  # noqa: PLR0913, PLR0917 - as for `slide_ranks`
    starts: Ints,
    asked_starts: Ints,
    comes: Ints,
    comes_ends: Ints,
    tails: Ints,
    kept: int,
    ends: Ints,
    listed: Ints,
) -> None:
    """Lists the last events of each entity row's window, newest first.

    Args:
        kept: how many at most.
        ends: made where the list of each entity row ends among `listed`.
    """
    is_come = np.zeros(starts[-1], dtype=np.bool_)
    came = place = 0
    for code in range(len(starts) - 1):
        newest = -1
        for row in range(asked_starts[code], asked_starts[code + 1]):
            for number in range(came, comes_ends[row]):
                event = comes[number]
                is_come[event] = True
                newest = max(newest, event)
            came = comes_ends[row]
            event, end = newest, place + kept
            while event >= tails[row] and place < end:
                if is_come[event]:
                    listed[place] = event
                    place += 1
                event -= 1
            ends[row] = place


@compiled
def slide_ranks(  # noqa: C901, PLR0912, PLR0913, PLR0917 - calls with arrays take longer than what they do
    starts: Ints,
    asked_starts: Ints,
    comes: Ints,
    comes_ends: Ints,
    goes: Ints,
    goes_ends: Ints,
    counts: Ints,
    values: Ints,
    numerator: int,
    denominator: int,
    found: Ints,
    distinct: Ints,
) -> None:
    """Finds for each entity row the value of a rank among the events in its window, or counts distinct values.

    Each key's values are numbered in order. How often each number occurs is counted, and summed over blocks of
    numbers, so that a rank is found by going through the blocks and then through one of them.

    Args:
        values: integers in the order of the values.
        numerator: the rank is `numerator / denominator` of the number of events, rounded up, at least 1. A denominator
            of 0 asks for distinct values.
        found: made the value of that rank; of distinct values, the one of rank `DISTINCT_HASHES_MAX` if there are so
            many.
        distinct: made the number of distinct values.
    """
    is_distinct = denominator == 0
    numbers = np.empty(starts[-1], dtype=np.int64)
    came = went = 0
    for code in range(len(starts) - 1):
        low, high = starts[code], starts[code + 1]
        if asked_starts[code] == asked_starts[code + 1]:
            continue
        order = np.argsort(values[low:high])
        own = np.empty(high - low, dtype=np.int64)
        size = 0
        for place in order:
            value = values[low + place]
            if not size or own[size - 1] != value:
                own[size] = value
                size += 1
            numbers[low + place] = size - 1
        occurs = np.zeros(size + 1, dtype=np.int64)
        blocks = np.zeros((size >> _BLOCK_BITS) + 1, dtype=np.int64)
        different = 0
        for row in range(asked_starts[code], asked_starts[code + 1]):
            for number in range(came, comes_ends[row]):
                value = numbers[comes[number]]
                occurs[value] += 1
                if not is_distinct or occurs[value] == 1:
                    blocks[value >> _BLOCK_BITS] += 1
                    different += 1
            for number in range(went, goes_ends[row]):
                value = numbers[goes[number]]
                occurs[value] -= 1
                if not is_distinct or occurs[value] == 0:
                    blocks[value >> _BLOCK_BITS] -= 1
                    different -= 1
            came, went = comes_ends[row], goes_ends[row]
            if not counts[row]:
                continue
            if is_distinct:
                distinct[row] = different
                if different < _DISTINCT_MAX:
                    continue
                left = _DISTINCT_MAX
            else:
                left = max(1, (numerator * counts[row] + denominator - 1) // denominator)
            block = 0
            while blocks[block] < left:
                left -= blocks[block]
                block += 1
            value = block << _BLOCK_BITS
            while True:
                here = min(occurs[value], 1) if is_distinct else occurs[value]
                if here >= left:
                    break
                left -= here
                value += 1
            found[row] = own[value]
