"""The loops of the as-of search, compiled.

Times and rows are tables of integers here, a row each, of which the first column decides before the next.
Importing this takes half a second and 90 MB, so `as_of` does it when the first search begins.
"""

import numpy as np
import numpy.typing as npt

from store.kernel.compiled import compiled
from store.kernel.instants import NO_TIME_US, Ints

Table = npt.NDArray[np.int64]


@compiled
def group_by_code(codes: Ints, starts: Ints, grouped: Ints, places: Ints) -> None:
    """Groups rows by code, those of one code in their order.

    Args:
        codes: of the rows, each at least 0 and below `len(starts) - 1`.
        starts: all zeros; made so that the rows of code c stand at starts[c] up to, not including, starts[c + 1].
        grouped: made the rows in that order.
        places: made where each row went.
    """
    for code in codes:
        starts[code + 1] += 1
    for code in range(1, len(starts)):
        starts[code] += starts[code - 1]
    following = starts.copy()
    for row in range(len(codes)):
        place = following[codes[row]]
        following[codes[row]] += 1
        grouped[place] = row
        places[row] = place


@compiled
def _is_before(us: int, ns: int, other_us: int, other_ns: int) -> bool:
    """Whether an instant is earlier than another; without nanoseconds, microseconds stand for them."""
    return us < other_us or (us == other_us and ns < other_ns)


@compiled
def _offer(held: Table, place: int, rows: Table, row: int, event_width: int) -> None:
    """Lets a row take a place unless a better one holds it, and marks the place if both have one event time.

    Args:
        held: the rows that hold places, and in one more column whether a place is marked.
        rows: the same for the row that is offered, or without that column.
    """
    width = held.shape[1] - 1
    mark = rows[row, width] if rows.shape[1] > width else 0
    k = 0
    while k < width and rows[row, k] == held[place, k]:
        k += 1
    if k == width:
        # The same row once more.
        held[place, width] |= mark
        return
    is_better = rows[row, k] > held[place, k]
    if k >= event_width:
        held[place, width] = 1
    elif is_better:
        held[place, width] = mark
    if is_better:
        for j in range(width):
            held[place, j] = rows[row, j]


@compiled
def add_rows(  # noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - calls with arrays take longer than what they do
    codes: Ints,
    visible: Table,
    rows: Table,
    starts: Ints,
    cursors: Ints,
    times: Table,
    by_time: Ints,
    codes_by_time: Ints,
    times_by_time: Table,
    held: Table,
    front: Ints,
) -> None:
    """Takes source rows into account.

    Args:
        codes: of the source rows; those of a code that no entity row has answer nothing.
        visible: from when on each can be seen, inclusive.
        rows: what ranks them: event time, created time if it plays a part, and position.
        starts: where the entity rows of each code start.
        cursors: for each code the place where the last search ended; changed.
        times: of the entity rows, ascending within a code.
        by_time: the places of the entity rows in order of time; `codes_by_time` and `times_by_time` are theirs.
        held: first of each code the newest row among those that came in order, then of each place the best that it was
            given so far; and whether another row has the same event time. `NO_TIME_US` where there is none. Changed.
        front: the latest instant from which any row could be seen, its microseconds and its nanoseconds or else once
            more its microseconds, and how many entity rows had been passed; changed.
    """
    event_width, width = times.shape[1], rows.shape[1]
    ns, code_count = event_width - 1, len(starts) - 1
    front_us, front_ns, reached = front
    asked = len(by_time)
    next_us = next_ns = NO_TIME_US
    if reached < asked:
        next_us, next_ns = times_by_time[reached, 0], times_by_time[reached, ns]
    for row in range(len(codes)):
        target = code = codes[row]
        if code < 0 or code >= code_count:
            # No entity row can have it; compiled code does not check where it reads.
            continue
        us, left = visible[row, 0], visible[row, ns]
        if _is_before(us, left, front_us, front_ns):
            # Entity rows that can see it have been passed, so it goes to the first of them itself, which is searched
            # for from where the last search ended, in steps that double.
            low, end = starts[code], starts[code + 1]
            high = cursors[code]
            if high > low and not _is_before(times[high - 1, 0], times[high - 1, ns], us, left):
                high -= 1
            else:
                low = high
                step = 1
                while high < end and _is_before(times[high, 0], times[high, ns], us, left):
                    low = high + 1
                    high += step
                    step *= 2
                high = min(high, end)
            while low < high:
                middle = (low + high) // 2
                if _is_before(times[middle, 0], times[middle, ns], us, left):
                    low = middle + 1
                else:
                    high = middle
            cursors[code] = low
            if low == end:
                continue
            target = code_count + low
        elif us != front_us or left != front_ns:
            front_us, front_ns = us, left
            while reached < asked and _is_before(next_us, next_ns, us, left):
                # Entity rows that this row comes too late for get the newest row of their key so far.
                place, asker = code_count + by_time[reached], codes_by_time[reached]
                if held[asker, 0] > held[place, 0]:
                    held[place, 0], held[place, 1] = held[asker, 0], held[asker, 1]
                    for j in range(2, width + 1):
                        held[place, j] = held[asker, j]
                elif held[asker, 0] != NO_TIME_US:
                    _offer(held, place, held, asker, event_width)
                reached += 1
                if reached < asked:
                    next_us, next_ns = times_by_time[reached, 0], times_by_time[reached, ns]
        if rows[row, 0] > held[target, 0]:
            # Mostly it is newer. Two columns stand here in words: a loop of few rounds takes five times as long.
            held[target, 0], held[target, 1] = rows[row, 0], rows[row, 1]
            for j in range(2, width):
                held[target, j] = rows[row, j]
            held[target, width] = 0
        else:
            _offer(held, target, rows, row, event_width)
    front[0], front[1], front[2] = front_us, front_ns, reached


@compiled
def carry_forward(starts: Ints, held: Table, event_width: int) -> None:
    """Hands what each entity row has on to the next of its code, unless something better stands there."""
    codes = len(starts) - 1
    for code in range(codes):
        for place in range(codes + starts[code] + 1, codes + starts[code + 1]):
            if held[place - 1, 0] > held[place, 0]:
                held[place, 0], held[place, 1] = held[place - 1, 0], held[place - 1, 1]
                for j in range(2, held.shape[1]):
                    held[place, j] = held[place - 1, j]
            elif held[place - 1, 0] != NO_TIME_US:
                _offer(held, place, held, place - 1, event_width)
