"""What a windowed feature is: an aggregate of the events of a key in a window whose tail moves in hops.

At time t, with window w and hop h, the window holds the events with `floor_h(t - w) <= e <= t`, hops counted from the
Unix epoch in UTC: the head is exact, the tail moves in hops.

Source: section 3.2 of the design; the sawtooth windows of Chronon (https://chronon.ai).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from store.errors import DefinitionError
from store.limits import WINDOW_LAST_VALUES_MAX

SECOND_US: Final = 1_000_000
_HOUR_US: Final = 3_600 * SECOND_US
_DAY_US: Final = 24 * _HOUR_US
_HOPS_BY_WINDOW: Final = ((12 * _HOUR_US, 300 * SECOND_US), (12 * _DAY_US, _HOUR_US))
"""Up to 12 hours a hop is 5 minutes, up to 12 days an hour; beyond that it is a day."""

_PLAIN_FUNCTIONS: Final = frozenset(
    {"count", "sum", "mean", "min", "max", "std", "var", "first", "last", "count_distinct"}
)
_LAST_N: Final = re.compile(r"last_([1-9][0-9]{0,8})")
_PERCENTILE: Final = re.compile(r"approx_percentile_([0-9]{1,3}(?:\.[0-9]{1,6})?)")
FUNCTIONS: Final = (*sorted(_PLAIN_FUNCTIONS), "last_N", "approx_percentile_P")
NUMERIC: Final = frozenset({"sum", "mean", "std", "var", "approx_percentile"})
"""Functions of numbers (and of truths, which count as 0 and 1)."""


class Function(NamedTuple):
    """An aggregate function: its name, and what `last_5` or `approx_percentile_90` say besides (else "")."""

    name: str
    parameter: str = ""

    @property
    def kept_values(self) -> int:
        """How many values `last` keeps: 1, or the 5 of `last_5`."""
        return int(self.parameter or 1)

    @classmethod
    def parse(cls, text: str) -> "Function | None":
        """Returns the function of a declared name, None where there is none of that name."""
        if text in _PLAIN_FUNCTIONS:
            return cls(text)
        if (match := _LAST_N.fullmatch(text)) and int(match[1]) <= WINDOW_LAST_VALUES_MAX:
            return cls("last", match[1])
        if (match := _PERCENTILE.fullmatch(text)) and float(match[1]) <= 100:
            return cls("approx_percentile", match[1])
        return None


@dataclass(frozen=True, slots=True)
class WindowFeature:
    """One windowed feature as declared.

    `column` is its name in the view, after field mapping and transformation; `type_name` the feature's Feast type.
    """

    name: str
    column: str
    function: Function
    window_us: int
    hop_us: int
    type_name: str

    def start_us(self, time_us: int) -> int:
        """Returns the earliest event time, inclusive, that the window holds at a time."""
        return floor_to(time_us - self.window_us, self.hop_us)


def floor_to(time_us: int, hop_us: int) -> int:
    """Returns the last hop boundary at or before a time; boundaries are counted from the Unix epoch."""
    return time_us // hop_us * hop_us


def hop_of(window_us: int, slide_us: int | None, tiling_us: int | None) -> int:
    """Returns the hop of a window.

    Args:
        slide_us: the aggregation's `slide_interval`; Feast sets it to the window where it is not given.
        tiling_us: the view's `tiling_hop_size`.
    """
    if slide_us is not None and slide_us != window_us:
        return slide_us
    if tiling_us:
        return tiling_us
    return next((hop for longest, hop in _HOPS_BY_WINDOW if window_us <= longest), _DAY_US)


def check_windows(view: str, features: Sequence[WindowFeature]) -> None:
    """Checks that windows and hops of one view can be computed together.

    Raises:
        DefinitionError: a window under a second, a hop that is not within its window, hops that do not divide each
            other, two features of one name.
    """
    names: set[str] = set()
    for feature in features:
        what = f"feature view {view!r}: aggregation {feature.name!r}"
        if feature.name in names:
            raise DefinitionError(f"{what} stands twice; give one of the two a name of its own")
        names.add(feature.name)
        if feature.window_us < SECOND_US:
            raise DefinitionError(f"{what} has a time_window of {_seconds(feature.window_us)}, expected at least 1 s")
        if not 0 < feature.hop_us < feature.window_us:
            raise DefinitionError(
                f"{what} has a hop of {_seconds(feature.hop_us)} in a window of {_seconds(feature.window_us)}; give it "
                "a slide_interval, or the view a tiling_hop_size, that is shorter than the window"
            )
    for shorter, longer in pairwise(hops_of(features)):
        if longer % shorter:
            raise DefinitionError(
                f"feature view {view!r}: hops of {_seconds(shorter)} and {_seconds(longer)} do not nest; make the "
                "longer one (a slide_interval or the tiling_hop_size) a multiple of the shorter"
            )


def hops_of(features: Iterable[WindowFeature]) -> tuple[int, ...]:
    """Returns the distinct hops of some features, in microseconds, the shortest first."""
    return tuple(sorted({feature.hop_us for feature in features}))


def reach_us(features: Iterable[WindowFeature]) -> int:
    """Returns how far back from any time the windows of some features reach at most, in microseconds."""
    return max((feature.window_us + feature.hop_us for feature in features), default=0)


def input_columns(features: Iterable[WindowFeature]) -> tuple[str, ...]:
    """Returns the columns that some features aggregate, each once, by name."""
    return tuple(sorted({feature.column for feature in features}))


def _seconds(us: int) -> str:
    return f"{us / SECOND_US:g} s"
