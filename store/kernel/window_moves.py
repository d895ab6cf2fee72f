"""The loops that find which events a window holds, compiled: choose, group, and let events come and go.

Events and entity rows are grouped by the code of their key. Within a key both ends of a window only move forward from
one entity row to the next, so every event comes in once and goes out once: a sum, a count or a maximum is carried
along, at a few nanoseconds an event, however many events a window holds.

Importing this takes as long as `as_of_loops` does, so it is done when the first search begins.
"""

import numpy as np

from store.kernel.as_of_loops import Table
from store.kernel.compiled import compiled
from store.kernel.instants import Ints, Truths


@compiled
def select_events(codes: Ints, events: Ints, hulls: Table, shift: int, kept: Ints, ends: Ints) -> None:
    """Chooses the events that some window of their key can hold, group by group of keys.

    Args:
        codes: of the events; one that no entity row has is left out.
        hulls: for each code the earliest and latest event time, inclusive, that any of its windows holds.
        shift: a code's group is the code without so many of its lowest bits.
        kept: made the chosen events, those of group g from `ends[g]` up to, not including, `ends[g + 1]`.
        ends: all zeros, one more than there are groups.
    """
    code_count = len(hulls)
    for row in range(len(codes)):
        code = codes[row]
        if 0 <= code < code_count and hulls[code, 0] <= events[row] <= hulls[code, 1]:
            ends[(code >> shift) + 1] += 1
    for group in range(1, len(ends)):
        ends[group] += ends[group - 1]
    following = ends.copy()
    for row in range(len(codes)):
        code = codes[row]
        if 0 <= code < code_count and hulls[code, 0] <= events[row] <= hulls[code, 1]:
            group = code >> shift
            kept[following[group]] = row
            following[group] += 1


@compiled
def group_events(codes: Ints, first: int, events: Ints, created: Ints, starts: Ints, order: Ints) -> None:
    """Orders events by code, event time, created time.

    Args:
        codes: each at least `first`, and below `first + len(starts) - 1`.
        created: microseconds; empty where they play no part.
        starts: all zeros; made so that the events of code `first + c` stand from starts[c] up to starts[c + 1].
        order: made the events in that order.
    """
    for code in codes:
        starts[code - first + 1] += 1
    for code in range(1, len(starts)):
        starts[code] += starts[code - 1]
    following = starts.copy()
    for row in range(len(codes)):
        code = codes[row] - first
        order[following[code]] = row
        following[code] += 1
    has_created = len(created) > 0
    for code in range(len(starts) - 1):
        low, high = starts[code], starts[code + 1]
        is_ordered = True
        for place in range(low + 1, high):
            if events[order[place]] < events[order[place - 1]]:
                is_ordered = False
                break
        if not is_ordered:
            own = order[low:high].copy()
            order[low:high] = own[np.argsort(events[own], kind="mergesort")]
        if not has_created:
            continue
        place = low
        while place < high:
            end = place + 1
            while end < high and events[order[end]] == events[order[place]]:
                end += 1
            if end - place > 1:
                tied = order[place:end].copy()
                order[place:end] = tied[np.argsort(created[tied], kind="mergesort")]
            place = end


@compiled
def number_runs(starts: Ints, events: Ints, created: Ints, runs: Ints) -> None:
    """Numbers the runs of neighbours of one code, event and created time.

    Args:
        starts: where the events of each code start.
        created: empty where they play no part.
        runs: made each event's number.
    """
    run, has_created = 0, len(created) > 0
    for code in range(len(starts) - 1):
        for place in range(starts[code], starts[code + 1]):
            is_same = place > starts[code] and events[place] == events[place - 1]
            if not is_same or (has_created and created[place] != created[place - 1]):
                run += 1
            runs[place] = run


@compiled
def order_ties(runs: Ints, keys: Ints, order: Ints) -> None:
    """Orders the events of each run by value.

    Args:
        runs: the number of each event's run.
        keys: integers in the order of the values.
        order: made the events' places in the new order.
    """
    place, count = 0, len(runs)
    while place < count:
        end = place + 1
        while end < count and runs[end] == runs[place]:
            end += 1
        if end - place == 1:
            order[place] = place
        else:
            order[place:end] = place + np.argsort(keys[place:end], kind="mergesort")
        place = end


@compiled
def order_by_sight(starts: Ints, visible: Ints, order: Ints) -> None:
    """Orders the events of each code by the instant from which they can be seen."""
    for code in range(len(starts) - 1):
        low, high = starts[code], starts[code + 1]
        is_ordered = True
        for place in range(low, high):
            order[place] = place
            if place > low and visible[place] < visible[place - 1]:
                is_ordered = False
        if not is_ordered:
            order[low:high] = low + np.argsort(visible[low:high], kind="mergesort")


@compiled
def move_events(  # noqa: PLR0913, PLR0917 - calls with arrays take longer than what they do
    starts: Ints,
    events: Ints,
    visible: Ints,
    by_sight: Ints,
    asked_starts: Ints,
    asked_us: Ints,
    asked_sight: Ints,
    window_us: int,
    hop_us: int,
    comes: Ints,
    comes_ends: Ints,
    goes: Ints,
    goes_ends: Ints,
    tails: Ints,
    counts: Ints,
    is_come: Truths,
) -> None:
    """Tells for each entity row, in order of key and time, which events come into its window and which go out.

    An event that would be out again at once never comes in.

    Args:
        starts: where the events of each code start; they are in order of event time within it.
        visible: the instant from which each event can be seen, inclusive, in the unit of `asked_sight`.
        by_sight: the events in order of that instant, within each code.
        asked_starts: where the entity rows of each code start; they are in order of time within it.
        comes: made the events that come in, those of row r up to, not including, comes_ends[r]; `goes` likewise.
        tails: made for each entity row the first event of its code that is not before its window.
        counts: made how many events the window of each entity row holds.
        is_come: all false; used on the way.
    """
    coming = going = 0
    for code in range(len(starts) - 1):
        following = tail = starts[code]
        last = starts[code + 1]
        count = 0
        for row in range(asked_starts[code], asked_starts[code + 1]):
            start_us = (asked_us[row] - window_us) // hop_us * hop_us
            sight = asked_sight[row]
            while following < last:
                event = by_sight[following]
                if visible[event] > sight:
                    break
                following += 1
                if events[event] >= start_us:
                    is_come[event] = True
                    comes[coming] = event
                    coming += 1
                    count += 1
            while tail < last and events[tail] < start_us:
                if is_come[tail]:
                    goes[going] = tail
                    going += 1
                    count -= 1
                tail += 1
            comes_ends[row], goes_ends[row] = coming, going
            tails[row], counts[row] = tail, count
