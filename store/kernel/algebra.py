"""The algebra of windowed features: prepare, update, merge, finalize, and how a tile's state is encoded.

A state is what some events of one key say, whatever their number: a list of slots, the first of them the newest event
time, then for each input column those parts that its functions need. Merging is commutative and associative, so a
state is a function of the multiset of its events: batch, training and stream may cut and order them as they like.

Numbers are added exactly. Every double is an integer times a power of two, so a sum is kept as such a pair, in lowest
terms; nothing is rounded before `finalize`. Variances come from exact sums and sums of squares.

Slots hold only what MessagePack can say, so that a tile is encoded and decoded in one call. A column's slots:

| part | slot |
|---|---|
| COUNT | number of values that are neither null nor NaN |
| SUM | of integers: the sum; of floats: `[sum, power]`, or `[sum, power, +infinities, -infinities]` |
| SQUARES | of integers: the sum of squares; of floats: `[sum, power]` |
| MIN, MAX | the value, None without one |
| FIRST | `[e, c, value]`, None without one |
| LAST | the N newest `[e, c, value]`, newest first |
| DISTINCT | the smallest hashes in ascending order, 8 bytes each |
| BUCKETS | counts by bucket number |

Integers beyond 64 bits are slots of signed big-endian bytes.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce
from typing import Any, Final

import numpy as np

from store.kernel.sketches import bucket_of, distinct_count, hash_of, percentile, smallest
from store.kernel.windows import WindowFeature, input_columns

State = list[Any]
"""What some events of one key say; see the module."""

NO_CREATED: Final = -(2**63)
"""Stands for a null created time: older than any."""

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class Part(IntEnum):
    """What a state keeps of a column, in the order of its slots."""

    COUNT = 0
    SUM = 1
    SQUARES = 2
    MIN = 3
    MAX = 4
    FIRST = 5
    LAST = 6
    DISTINCT = 7
    BUCKETS = 8


_PARTS_OF: Final[dict[str, tuple[Part, ...]]] = {
    "count": (),
    "sum": (Part.SUM,),
    "mean": (Part.SUM,),
    "std": (Part.SUM, Part.SQUARES),
    "var": (Part.SUM, Part.SQUARES),
    "min": (Part.MIN,),
    "max": (Part.MAX,),
    "first": (Part.FIRST,),
    "last": (Part.LAST,),
    "count_distinct": (Part.DISTINCT,),
    "approx_percentile": (Part.BUCKETS,),
}


class SumOverflow(OverflowError):
    """A sum of integers that an int64 cannot hold."""


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """What a state keeps of one input column.

    Attributes:
        slots: the place of each part in a state.
        kept_values: how many values LAST keeps.
    """

    name: str
    slots: dict[Part, int]
    kept_values: int


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Where a state has what; the same features always make the same layout, in whatever order they come."""

    columns: tuple[ColumnLayout, ...]
    width: int

    @classmethod
    def of(cls, features: Sequence[WindowFeature]) -> "StateLayout":
        """Returns the layout that serves some features of one view."""
        columns, place = [], 1
        for name in input_columns(features):
            functions = [feature.function for feature in features if feature.column == name]
            parts = {Part.COUNT, *(part for function in functions for part in _PARTS_OF[function.name])}
            slots = {part: place + number for number, part in enumerate(sorted(parts))}
            kept = max((f.kept_values for f in functions if f.name == "last"), default=0)
            columns.append(ColumnLayout(name, slots, kept))
            place += len(slots)
        return cls(tuple(columns), place)


# --- numbers ------------------------------------------------------------------------------------


def packed_int(value: int) -> int | bytes:
    """Returns an integer as a slot can hold it."""
    if _INT64_MIN <= value <= _INT64_MAX:
        return value
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _int(slot: int | bytes) -> int:
    return slot if isinstance(slot, int) else int.from_bytes(slot, "big", signed=True)


def _exact(value: float) -> tuple[int, int]:
    """Returns a finite float as an integer times a power of two."""
    numerator, denominator = value.as_integer_ratio()
    return numerator, 1 - denominator.bit_length()


def _lowest(total: int, power: int) -> list[Any]:
    """Returns an integer times a power of two with the integer odd: the one way to say a number."""
    if not total:
        return [0, 0]
    zeros = (total & -total).bit_length() - 1
    return [packed_int(total >> zeros), power + zeros]


def exact_sum(pairs: Iterable[tuple[int, int]]) -> list[Any]:
    """Returns the sum of integers times powers of two as the slot of a sum."""
    listed = list(pairs)
    power = min((pair[1] for pair in listed), default=0)
    return _lowest(sum([total << (own - power) for total, own in listed]), power)


def float_of(total: int, power: int, divisor: int = 1) -> float:
    """Returns `total * 2^power / divisor` rounded to a float; an infinity where it is too large for one."""
    numerator, denominator = (total << power, divisor) if power >= 0 else (total, divisor << -power)
    try:
        return numerator / denominator
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


# --- parts --------------------------------------------------------------------------------------


def _prepared_sum(value: Any) -> Any:
    if isinstance(value, int):
        return int(value)
    if math.isinf(value):
        return [0, 0, int(value > 0), int(value < 0)]
    return _lowest(*_exact(value))


def _prepared_square(value: Any) -> Any:
    if isinstance(value, int):
        return packed_int(int(value) ** 2)
    if math.isinf(value):
        return [0, 0]
    total, power = _exact(value)
    return _lowest(total * total, 2 * power)


def _sum_of_two(a: Any, b: Any) -> list[Any] | None:
    """Returns the sum of two slots of floats; None where they are not of the usual form."""
    if type(a) is not list or type(b) is not list or len(a) != 2 or len(b) != 2:
        return None
    (total, power), (other, other_power) = a, b
    if type(total) is not int or type(other) is not int:
        return None
    if power > other_power:
        return _lowest((total << (power - other_power)) + other, other_power)
    return _lowest(total + (other << (other_power - power)), power)


def _merged_sums(slots: Sequence[Any]) -> Any:
    if len(slots) == 2 and (summed := _sum_of_two(*slots)) is not None:
        return summed
    kinds = set(map(type, slots))
    if kinds == {int}:
        return packed_int(sum(slots))
    if kinds == {list} and set(map(len, slots)) == {2}:
        totals, powers = zip(*slots, strict=True)
        if set(map(type, totals)) != {int}:
            totals = tuple([_int(total) for total in totals])
        power = min(powers)
        return _lowest(sum([total << (own - power) for total, own in zip(totals, powers, strict=True)]), power)
    floats = [slot for slot in slots if isinstance(slot, list)]
    if not floats:
        return packed_int(sum([_int(slot) for slot in slots]))
    total = exact_sum((_int(slot[0]), slot[1]) for slot in floats)
    infinite = [slot for slot in floats if len(slot) > 2]
    return [*total, sum(slot[2] for slot in infinite), sum(slot[3] for slot in infinite)] if infinite else total


def _merged_last(slots: Sequence[Any], kept: int) -> Any:
    return sorted([entry for slot in slots for entry in slot], reverse=True)[:kept]


def _first_of(a: list[Any], b: list[Any]) -> list[Any]:
    """Returns the earlier of two values by event, then created time; of two that tie the greater."""
    if a[:2] != b[:2]:
        return a if a[:2] < b[:2] else b
    return a if a[2] >= b[2] else b


def _merged_distinct(slots: Sequence[bytes]) -> bytes:
    return smallest(np.frombuffer(b"".join(slots), "<u8")).astype("<u8").tobytes()


def _merged_buckets(slots: Sequence[dict[int, int]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for slot in slots:
        for number, count in slot.items():
            counts[number] = counts.get(number, 0) + count
    return counts


_EMPTY: Final[dict[Part, Callable[[], Any]]] = {
    Part.COUNT: int,
    Part.SUM: int,
    Part.SQUARES: int,
    Part.MIN: lambda: None,
    Part.MAX: lambda: None,
    Part.FIRST: lambda: None,
    Part.LAST: list,
    Part.DISTINCT: bytes,
    Part.BUCKETS: dict,
}


def empty_part(part: Part) -> Any:
    """Returns the slot of a part that has seen no value."""
    return _EMPTY[part]()


_PREPARE: Final[dict[Part, Callable[[Any, int, int], Any]]] = {
    Part.COUNT: lambda value, event_us, created_us: 1,  # noqa: ARG005 - one form for all parts
    Part.SUM: lambda value, event_us, created_us: _prepared_sum(value),  # noqa: ARG005
    Part.SQUARES: lambda value, event_us, created_us: _prepared_square(value),  # noqa: ARG005
    Part.MIN: lambda value, event_us, created_us: value,  # noqa: ARG005
    Part.MAX: lambda value, event_us, created_us: value,  # noqa: ARG005
    Part.FIRST: lambda value, event_us, created_us: [event_us, created_us, value],
    Part.LAST: lambda value, event_us, created_us: [[event_us, created_us, value]],
    Part.DISTINCT: lambda value, event_us, created_us: hash_of(value).to_bytes(8, "little"),  # noqa: ARG005
    Part.BUCKETS: lambda value, event_us, created_us: {bucket_of(float(value)): 1},  # noqa: ARG005
}

_MERGE: Final[dict[Part, Callable[[Sequence[Any], int], Any]]] = {
    Part.COUNT: lambda slots, kept: sum(slots),  # noqa: ARG005
    Part.SUM: lambda slots, kept: _merged_sums(slots),  # noqa: ARG005
    Part.SQUARES: lambda slots, kept: _merged_sums(slots),  # noqa: ARG005
    Part.MIN: lambda slots, kept: min(slots),  # noqa: ARG005
    Part.MAX: lambda slots, kept: max(slots),  # noqa: ARG005
    Part.FIRST: lambda slots, kept: reduce(_first_of, slots),  # noqa: ARG005
    Part.LAST: _merged_last,
    Part.DISTINCT: lambda slots, kept: _merged_distinct(slots),  # noqa: ARG005
    Part.BUCKETS: lambda slots, kept: _merged_buckets(slots),  # noqa: ARG005
}


# --- the algebra --------------------------------------------------------------------------------


def is_counted(value: Any) -> bool:
    """Whether a value takes part in aggregates: neither null nor NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def prepare(layout: StateLayout, values: Sequence[Any], event_us: int, created_us: int | None) -> State:
    """Returns the state of one event.

    Args:
        values: one per column of the layout: None, int, bool, float, str or bytes.
        created_us: None is older than any.
    """
    created = NO_CREATED if created_us is None else created_us
    state: State = [event_us] + [None] * (layout.width - 1)
    for column, value in zip(layout.columns, values, strict=True):
        is_present = is_counted(value)
        if is_present and isinstance(value, float):
            value += 0.0  # noqa: PLW2901 - of the two zeros only one is kept
        for part, place in column.slots.items():
            state[place] = _PREPARE[part](value, event_us, created) if is_present else _EMPTY[part]()
    return state


def update(layout: StateLayout, state: State, values: Sequence[Any], event_us: int, created_us: int | None) -> None:
    """Adds one event to a state, which nothing else may hold; the state is then that of `merge` with `prepare`."""
    created = NO_CREATED if created_us is None else created_us
    state[0] = max(state[0], event_us)
    for column, value in zip(layout.columns, values, strict=True):
        if not is_counted(value):
            continue
        if isinstance(value, float):
            value += 0.0  # noqa: PLW2901 - of the two zeros only one is kept
        slots = column.slots
        if not state[slots[Part.COUNT]]:
            for part, place in slots.items():
                state[place] = _PREPARE[part](value, event_us, created)
            continue
        for part, place in slots.items():
            if part is Part.COUNT:
                state[place] += 1
            elif part is Part.MIN:
                state[place] = min(state[place], value)
            elif part is Part.MAX:
                state[place] = max(state[place], value)
            else:
                prepared = _PREPARE[part](value, event_us, created)
                state[place] = _MERGE[part]((state[place], prepared), column.kept_values)


def merge(layout: StateLayout, states: Sequence[State]) -> State:
    """Returns the state of all events of at least one state."""
    if len(states) == 1:
        return states[0]
    merged: State = [max([state[0] for state in states])] + [None] * (layout.width - 1)
    for column in layout.columns:
        count_place = column.slots[Part.COUNT]
        having = [state for state in states if state[count_place]] or states[:1]
        for part, place in column.slots.items():
            slots = [state[place] for state in having]
            merged[place] = slots[0] if len(slots) == 1 else _MERGE[part](slots, column.kept_values)
    return merged


def merged_prefixes(column: ColumnLayout, part: Part, slots: Sequence[Any], bounds: Sequence[int]) -> list[Any]:
    """Returns the merged slots of a part of the first so many states, for each of some ascending numbers of states.

    Every state has a value in the column; of no states there is nothing to merge, and the answer is None.
    """
    merge_slots, kept = _MERGE[part], column.kept_values
    merged: list[Any] = []
    so_far: Any = None
    low = 0
    for bound in bounds:
        more = slots[low:bound]
        if more:
            together = more if low == 0 else (so_far, *more)
            so_far = together[0] if len(together) == 1 else merge_slots(together, kept)
        low = bound
        merged.append(so_far)
    return merged


def parts_of(feature: WindowFeature) -> tuple[Part, ...]:
    """Returns the parts of its column that a feature needs besides the count."""
    return _PARTS_OF[feature.function.name]


def finalize(layout: StateLayout, state: State | None, feature: WindowFeature) -> Any:
    """Returns the value of a feature; 0 for a count of nothing, and None for everything else of nothing.

    Args:
        state: of all events of the feature's window; None where there are none.

    Raises:
        SumOverflow: a sum of integers beyond int64.
    """
    column = next(column for column in layout.columns if column.name == feature.column)
    if state is None or not state[column.slots[Part.COUNT]]:
        return 0 if feature.function.name == "count" else None
    return finalized(column, state, feature)


def finalized(column: ColumnLayout, state: Mapping[int, Any] | State, feature: WindowFeature) -> Any:
    """Returns the value of a feature from a state with at least one value in its column.

    Args:
        state: at least the slots that the feature needs, by their places.
    """
    name = feature.function.name
    count: int = state[column.slots[Part.COUNT]]
    if name == "count":
        return count
    if name in ("sum", "mean", "std", "var"):
        return _of_sums(column, state, feature)
    slot = state[column.slots[_PARTS_OF[name][0]]]
    if name in ("min", "max"):
        return slot
    if name == "first":
        return slot[2]
    if name == "last":
        return (
            [entry[2] for entry in slot[: feature.function.kept_values]] if feature.function.parameter else slot[0][2]
        )
    if name == "count_distinct":
        return distinct_count(np.frombuffer(slot, "<u8"))
    return percentile(slot, feature.function.parameter)


def _of_sums(column: ColumnLayout, state: Mapping[int, Any] | State, feature: WindowFeature) -> Any:
    name, count = feature.function.name, state[column.slots[Part.COUNT]]
    slot = state[column.slots[Part.SUM]]
    if isinstance(slot, list):
        total, power = _int(slot[0]), slot[1]
        if len(slot) > 2:
            infinite = math.nan if slot[2] and slot[3] else math.inf if slot[2] else -math.inf
            if name in ("sum", "mean"):
                return infinite
            return None if count < 2 else math.nan
    else:
        total, power = _int(slot), 0
    if name == "sum":
        if isinstance(slot, list):
            return float_of(total, power)
        if not _INT64_MIN <= total <= _INT64_MAX:
            raise SumOverflow(feature.name)
        return total if feature.type_name == "INT64" else float(total)
    if name == "mean":
        return float_of(total, power, count)
    if count < 2:
        return None
    squares = state[column.slots[Part.SQUARES]]
    of_squares, square_power = (_int(squares[0]), squares[1]) if isinstance(squares, list) else (_int(squares), 0)
    low = min(square_power, 2 * power)
    spread = count * (of_squares << (square_power - low)) - (total * total << (2 * power - low))
    variance = float_of(spread, low, count * (count - 1))
    return variance if name == "var" else math.sqrt(variance)
