"""Windowed features, slow and plain: what section 3.2 of the design says, line by line.

Instants are microseconds since the Unix epoch: integers, or fractions where nanoseconds play a part. None is a null.
Shares no code with `store`.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

DISTINCT_EXACT = 8_191
"""Up to so many distinct values are counted exactly."""


@dataclass(frozen=True)
class Event:
    """One event: its key, event time, created time, and its columns by name."""

    key: tuple[Any, ...]
    event: int | Fraction | None
    created: int | Fraction | None
    columns: dict[str, Any]


@dataclass(frozen=True)
class Feature:
    """An aggregate as declared: the function's name such as `sum` or `last_5`; window and hop in microseconds."""

    column: str
    function: str
    window: int
    hop: int


class BeyondInt64(Exception):
    """A sum of integers that 64 bits do not hold."""


def answer(
    events: Iterable[Event],
    key: tuple[Any, ...],
    time: int | Fraction | None,
    feature: Feature,
    is_cut_by_created: bool = False,
) -> Any:
    """Returns the feature of a key at a time, from the events of all keys."""
    if time is None or any(part is None for part in key):
        return None
    own = [event for event in events if event.key == key]
    if is_cut_by_created:
        own = [event for event in own if event.created is not None and event.created <= time]
    return value(own, time, feature)


def held(events: Iterable[Event], time: int | Fraction, feature: Feature) -> list[Event]:
    """Returns the events of one key that the window of a feature holds at a time and that have a value for it."""
    start = (math.floor(time) - feature.window) // feature.hop * feature.hop
    return [
        event
        for event in events
        if event.event is not None and start <= event.event <= time and _has_value(event.columns[feature.column])
    ]


def value(events: Iterable[Event], time: int | Fraction, feature: Feature) -> Any:
    """Returns the feature at a time, from the events of one key.

    Raises:
        BeyondInt64: a sum of integers that 64 bits do not hold.
    """
    found = held(events, time, feature)
    if feature.function == "count":
        return len(found)
    if not found:
        return None
    values = [event.columns[feature.column] for event in found]
    if feature.function in ("min", "max"):
        return _plain(min(values) if feature.function == "min" else max(values))
    if feature.function == "count_distinct":
        return len({_plain(one) for one in values})
    if match := re.fullmatch(r"approx_percentile_(.+)", feature.function):
        rank = math.ceil(Fraction(match[1]) * len(values) / 100)
        return float(sorted(values)[max(rank, 1) - 1])
    if feature.function in ("sum", "mean", "var", "std"):
        return _of_numbers(values, feature.function)
    newest = sorted(found, key=lambda event: (*_times(event), event.columns[feature.column]), reverse=True)
    listed = [_plain(event.columns[feature.column]) for event in newest]
    if feature.function == "last":
        return listed[0]
    if feature.function == "first":
        earliest = _times(newest[-1])
        return next(one for one, event in zip(listed, newest, strict=True) if _times(event) == earliest)
    return listed[: int(feature.function.removeprefix("last_"))]


def is_right(answered: Any, expected: Any, feature: Feature) -> bool:
    """Whether a value is what it should be, as near as the function promises."""
    if expected is None or answered is None:
        return answered is expected
    if feature.function.startswith("approx_percentile") and math.isfinite(expected):
        return abs(answered - expected) <= Fraction(1, 100) * abs(Fraction(expected))
    if feature.function == "count_distinct" and expected > DISTINCT_EXACT:
        return abs(answered - expected) <= 0.06 * expected
    return _is_same(answered, expected)


def _is_same(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_is_same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(right):
        return math.isnan(left)
    return bool(left == right)


def _has_value(one: Any) -> bool:
    return one is not None and not (isinstance(one, float) and math.isnan(one))


def _plain(one: Any) -> Any:
    """Returns a value with one zero for both."""
    return one + 0.0 if isinstance(one, float) else one


def _times(event: Event) -> tuple[Any, ...]:
    """Event time, then a created time before none at all, in whole microseconds."""
    assert event.event is not None
    return math.floor(event.event), event.created is not None, math.floor(event.created or 0)


def _of_numbers(values: Sequence[Any], function: str) -> Any:
    if infinite := {one for one in values if isinstance(one, float) and math.isinf(one)}:
        if function in ("sum", "mean"):
            return infinite.pop() if len(infinite) == 1 else math.nan
        return math.nan if len(values) > 1 else None
    exact = [Fraction(one) for one in values]
    if function == "sum":
        total = sum(exact)
        if isinstance(values[0], int):
            if not -(2**63) <= total < 2**63:
                raise BeyondInt64
            return int(total)
        return _rounded(total)
    mean = sum(exact) / len(exact)
    if function == "mean":
        return _rounded(mean)
    if len(exact) < 2:
        return None
    variance = _rounded(sum((one - mean) ** 2 for one in exact) / (len(exact) - 1))
    return variance if function == "var" else math.sqrt(variance)


def _rounded(exact: int | Fraction) -> float:
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf
