"""What charts show, as Vega-Lite specifications: pure, so that pages and reports draw the same ones.

Colours are names of the style sheet (`var(--current)`), so light and dark are its affair.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from server.pages.shown import visible
from store.kernel.histograms import Histogram, high_edges, low_edges
from store.kernel.profiles import Categories, Numbers

_WIDTH: Final = 440
_HEIGHT: Final = 150
_BARS_MAX: Final = 48
"""Bars of a histogram of integers, so that each has its own where there are no more of them."""

_BARS_MIN, _BARS_MOST = 12, 40
"""Bars of other histograms: half as many as there are buckets, since of rounded numbers some bars would stay empty."""

CATEGORIES_SHOWN: Final = 12
_LABEL_CHARS: Final = 28
_TAIL: Final = 0.001
"""Of each end of a distribution, left out where the rest could not be seen for it."""

_SPAN_MAX: Final = 1e300
"""Between the least and the greatest value: a picture of more would be reckoned with infinities."""

_PADDING: Final = {"left": 14, "right": 10, "top": 4, "bottom": 2}
"""Room for labels that the page's font makes wider than the one that they were measured in."""

_CONFIG: Final[dict[str, Any]] = {
    "aria": False,
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--line)", "gridColor": "var(--line)", "tickColor": "var(--line)",
        "labelColor": "var(--muted)", "titleColor": "var(--muted)", "labelFontSize": 12, "titleFontSize": 12,
        "titleFontWeight": "normal", "labelLimit": 190, "labelOverlap": True,
    },
}  # fmt: skip


# --- distributions of numbers -----------------------------------------------------------------


class Bar(NamedTuple):
    """One bar: from where to where, and the share of the numbers in it."""

    low: float
    high: float
    share: float


@dataclass(frozen=True, slots=True)
class Bars:
    """Two distributions over the same bars; `left_out` is the greatest share of either that lies outside of them."""

    current: tuple[Bar, ...]
    reference: tuple[Bar, ...]
    left_out: float = 0.0


def bars_of(current: Numbers, reference: Numbers | None) -> Bars:
    """Returns the distributions of numbers over bars that are unions of buckets, so that no count is guessed."""
    both = [current.histogram] + ([reference.histogram] if reference is not None else [])
    union = both[0] if len(both) == 1 else both[0].merge(both[1])
    if not union.total:
        return Bars((), ())
    is_integral = current.is_integral and (reference is None or reference.is_integral)
    first, last = _range(union, both)
    numbers = union.numbers[first : last + 1]
    lows, highs = _edges(numbers, is_integral=is_integral)
    if not float(highs[-1]) - float(lows[0]) < _SPAN_MAX:
        return Bars((), (), 1.0)
    bars_max = _BARS_MAX if is_integral else min(max(len(numbers) // 2, _BARS_MIN), _BARS_MOST)
    width = float(highs[-1] - lows[0]) / bars_max
    groups = _groups(lows, highs, width)
    ends = [_end(lows, highs, group, width) for group in groups]
    shown = [_bars(each, numbers, lows, groups, ends) for each in both]
    left_out = max(1 - sum(bar.share for bar in bars) for bars in shown if bars)
    return Bars(shown[0], shown[1] if len(shown) > 1 else (), left_out if left_out > 1e-9 else 0.0)


def _range(union: Histogram, both: Sequence[Histogram]) -> tuple[int, int]:
    """Returns the places of the first and the last bucket to be shown: all, or all but tails that are far away."""
    counted = [each for each in both if each.total]
    low = min(_place(union, each, _TAIL) for each in counted)
    high = max(_place(union, each, 1 - _TAIL) for each in counted)
    lows, highs = low_edges(union.numbers), high_edges(union.numbers)
    # Halves first: the distance between two great doubles is infinite.
    whole = float(highs[-1]) / 2 - float(lows[0]) / 2
    middle = float(highs[high]) / 2 - float(lows[low]) / 2
    return (low, high) if 0 < middle < whole / 2 else (0, len(union.numbers) - 1)


def _place(union: Histogram, histogram: Histogram, share: float) -> int:
    rank = max(1, int(np.ceil(share * histogram.total)))
    bucket = histogram.numbers[int(np.searchsorted(np.cumsum(histogram.counts), rank))]
    return int(np.searchsorted(union.numbers, bucket))


def _edges(numbers: Any, *, is_integral: bool) -> tuple[Any, Any]:
    lows, highs = low_edges(numbers), high_edges(numbers)
    if is_integral:
        # Integers stand in the middle of their bar: what lies between two belongs to neither.
        lows, highs = (
            np.where(numbers < 0, np.floor(lows) + 1, np.ceil(lows)) - 0.5,
            np.where(numbers > 0, np.ceil(highs) - 1, np.floor(highs)) + 0.5,
        )
    return lows, highs


def _groups(lows: Any, highs: Any, width: float) -> list[tuple[int, int]]:
    """Returns which buckets make a bar: neighbours, until it is so wide."""
    groups = []
    start = 0
    for place in range(1, len(lows) + 1):
        if place == len(lows) or highs[place] - lows[start] > width * (1 + 1e-9):
            groups.append((start, place))
            start = place
    return groups


def _end(lows: Any, highs: Any, group: tuple[int, int], width: float) -> float:
    """Returns where a bar ends: it may be as wide as others are, as nothing lies between it and the next one.

    Else lonely buckets would be spikes, and bars that almost touch would have teeth between them.
    """
    start, end = group
    wanted = max(float(highs[end - 1]), float(lows[start]) + width)
    if end == len(lows):
        return wanted
    return float(lows[end]) if lows[end] <= wanted + width else wanted


def _bars(
    histogram: Histogram, numbers: Any, lows: Any, groups: Sequence[tuple[int, int]], ends: Sequence[float]
) -> tuple[Bar, ...]:
    total = histogram.total
    if not total:
        return ()
    counts = np.zeros(len(numbers), np.int64)
    places = np.searchsorted(numbers, histogram.numbers)
    is_shown = (places < len(numbers)) & (numbers[np.minimum(places, len(numbers) - 1)] == histogram.numbers)
    counts[places[is_shown]] = histogram.counts[is_shown]
    return tuple(
        Bar(float(lows[start]), until, float(counts[start:end].sum() / total))
        for (start, end), until in zip(groups, ends, strict=True)
    )


def histogram(bars: Bars) -> dict[str, Any]:
    """Returns the chart of a distribution, filled, with that of the reference as a line over it.

    The height of a bar is its share by its width, so its area is the share: bars are of unequal width where buckets
    are.
    """
    height_of = _heights(bars)
    steps = [(edge, height_of(bar)) for bar in _closed(bars.reference) for edge in (bar.low, bar.high)]
    points = [{"x": edge, "y": height, "o": place} for place, (edge, height) in enumerate(steps)]
    rectangles = [{"x": bar.low, "x2": bar.high, "y": height_of(bar)} for bar in bars.current]
    low = min((bar.low for bar in (*bars.current, *bars.reference)), default=0.0)
    high = max((bar.high for bar in (*bars.current, *bars.reference)), default=1.0)
    x_axis = {"title": None, "grid": False, "tickCount": 6, "format": _format(max(abs(low), abs(high)))}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": rectangles},
            "mark": {"type": "rect", "fill": "var(--current)", "fillOpacity": 0.55, "stroke": "var(--page)",
                     "strokeWidth": 0.5},
            "encoding": {
                "x": {"field": "x", "type": "quantitative", "scale": {"domain": [low, high], "nice": False},
                      "axis": x_axis},
                "x2": {"field": "x2"},
                "y": {"field": "y", "type": "quantitative", "axis": None, "scale": {"zero": True}},
                "y2": {"datum": 0},
            },
        },
    ]  # fmt: skip
    if points:
        layers.append({
            "data": {"values": points},
            "mark": {"type": "line", "stroke": "var(--reference)", "strokeWidth": 1.75, "interpolate": "linear"},
            "encoding": {
                "x": {"field": "x", "type": "quantitative"},
                "y": {"field": "y", "type": "quantitative"},
                "order": {"field": "o"},
            },
        })  # fmt: skip
    return _chart({"width": _WIDTH, "height": _HEIGHT, "layer": layers})


def _format(magnitude: float) -> str:
    """Returns how d3 writes numbers of a size: years without a separator, and nothing with twenty digits."""
    if not 1e-3 <= magnitude < 1e7:
        return ".3~e"
    return ",.4~f" if magnitude >= 1e4 else ".4~f"


def _heights(bars: Bars) -> Callable[[Bar], float]:
    """Returns what gives the height of a bar: its share by its width, in units of the widest bar."""
    widest = max((bar.high - bar.low for bar in (*bars.current, *bars.reference)), default=0.0)

    def height(bar: Bar) -> float:
        width = (bar.high - bar.low) / widest if widest else 0.0
        return bar.share / width if width else bar.share

    return height


def _closed(bars: Sequence[Bar]) -> list[Bar]:
    """Returns bars with empty ones in the gaps between them, so that a line along them goes down there."""
    closed: list[Bar] = []
    for bar in bars:
        if closed and bar.low > closed[-1].high:
            closed.append(Bar(closed[-1].high, bar.low, 0.0))
        closed.append(bar)
    return closed


# --- categories -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CategoryShare:
    """A category, and its share of the values; None where a reference is lacking."""

    name: str
    current: float
    reference: float | None


def category_shares(current: Categories, reference: Categories | None) -> list[CategoryShare]:
    """Returns the most frequent categories of either side, by their current share."""
    ours, theirs = _shares(current), None if reference is None else _shares(reference)
    names = sorted(
        {*ours, *(theirs or {})}, key=lambda name: (-max(ours.get(name, 0), (theirs or {}).get(name, 0)), name)
    )
    shown = [
        CategoryShare(name, ours.get(name, 0.0), None if theirs is None else theirs.get(name, 0.0))
        for name in names[:CATEGORIES_SHOWN]
    ]
    return sorted(shown, key=lambda each: (-each.current, each.name))


def _shares(categories: Categories) -> dict[str, float]:
    total = int(categories.grouped().sum())
    return {name: count / total for name, count in categories.listed.items()} if total else {}


def bars_of_categories(shares: Sequence[CategoryShare]) -> dict[str, Any]:
    """Returns the chart of categories: a bar for the current share, a tick where that of the reference is."""
    # Names are told apart by their place, as two of them may look alike once they are cut.
    names = [f"{place}\u2003{visible(each.name, _LABEL_CHARS)}" for place, each in enumerate(shares, start=1)]
    values = [
        {"name": name, "current": each.current, "reference": each.reference}
        for name, each in zip(names, shares, strict=True)
    ]
    y = {"field": "name", "type": "nominal", "sort": names,
         "axis": {"title": None, "ticks": False, "domain": False, "labelExpr": "split(datum.label, '\u2003')[1]",
                  "labelColor": "var(--ink)"}}  # fmt: skip
    x = {"field": "current", "type": "quantitative", "axis": {"title": None, "format": ".0%", "tickCount": 4}}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "bar", "fill": "var(--current)", "fillOpacity": 0.55, "height": 11},
         "encoding": {"x": x, "y": y}},
    ]  # fmt: skip
    if any(each.reference is not None for each in shares):
        layers.append({
            "mark": {"type": "tick", "stroke": "var(--reference)", "thickness": 2.5, "size": 16, "opacity": 1},
            "encoding": {"x": {"field": "reference", "type": "quantitative"}, "y": y},
        })  # fmt: skip
    return _chart({"width": 300, "height": {"step": 20}, "data": {"values": values}, "layer": layers})


# --- over time --------------------------------------------------------------------------------


class Measured(NamedTuple):
    """A measure at an instant (milliseconds since the epoch), and whether it was an alarm."""

    at_ms: int
    value: float
    is_alarm: bool


def drift_over_time(points: Sequence[Measured], threshold: float | None, title: str) -> dict[str, Any]:
    """Returns the chart of a measure of drift, with its threshold; alarms are filled."""
    values = [{"at": each.at_ms, "value": each.value, "alarm": each.is_alarm} for each in points]
    x = {"field": "at", "type": "temporal", "scale": {"type": "utc"},
         "axis": {"title": None, "grid": False, "tickCount": 6}}  # fmt: skip
    y = {"field": "value", "type": "quantitative", "axis": {"title": title, "tickCount": 4}, "scale": {"zero": True}}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "line", "stroke": "var(--current)", "strokeWidth": 1.5}, "encoding": {"x": x, "y": y}},
        {
            "mark": {"type": "point", "size": 36, "strokeWidth": 1.5, "filled": False},
            "encoding": {
                "x": x, "y": y,
                "stroke": {"condition": {"test": "datum.alarm", "value": "var(--bad)"}, "value": "var(--current)"},
                "fill": {"condition": {"test": "datum.alarm", "value": "var(--bad)"}, "value": "var(--page)"},
            },
        },
    ]  # fmt: skip
    if threshold is not None:
        layers.append({
            "mark": {"type": "rule", "stroke": "var(--bad)", "strokeDash": [4, 3]},
            "encoding": {"y": {"datum": threshold, "type": "quantitative"}},
        })  # fmt: skip
    return _chart({"width": _WIDTH, "height": _HEIGHT, "data": {"values": values}, "layer": layers})


_AGES: Final = (
    (365 * 86_400, "1 y"), (30 * 86_400, "30 d"), (7 * 86_400, "7 d"), (86_400, "1 d"), (3_600, "1 h"), (60, "1 min"),
)  # fmt: skip


def freshness(ages_seconds: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Returns the chart of how old the newest rows of views are, on a scale that has seconds and months.

    Args:
        ages_seconds: views with their ages `offline` and `online`, and their `ttl`; what is not known is left out.
    """
    names = [f"{place}\u2003{visible(name, _LABEL_CHARS)}" for place, (name, _) in enumerate(ages_seconds, start=1)]
    values = [
        {"name": name, "what": what, "seconds": max(1.0, seconds)}
        for name, (_, ages) in zip(names, ages_seconds, strict=True)
        for what, seconds in ages.items()
    ]
    ticks = [1, *(least for least, _ in _AGES)]
    expr = " : ".join([*(f"datum.value >= {least} ? '{name}'" for least, name in _AGES), "'1 s'"])
    x = {"field": "seconds", "type": "quantitative", "scale": {"type": "log", "domainMin": 1, "nice": False},
         "axis": {"title": None, "values": ticks, "labelExpr": expr}}  # fmt: skip
    y = {"field": "name", "type": "nominal", "sort": names,
         "axis": {"title": None, "ticks": False, "domain": False, "grid": True, "labelColor": "var(--ink)",
                  "labelPadding": 8, "labelExpr": "split(datum.label, '\u2003')[1]"}}  # fmt: skip
    marks = {
        "ttl": {"type": "tick", "stroke": "var(--bad)", "thickness": 2, "size": 14, "opacity": 1},
        "offline": {"type": "point", "stroke": "var(--reference)", "fill": "var(--page)", "size": 55,
                    "strokeWidth": 2, "shape": "square", "opacity": 1},
        "online": {"type": "point", "stroke": "var(--current)", "fill": "var(--current)", "size": 50, "filled": True,
                   "opacity": 1},
    }  # fmt: skip
    layers = [
        {"transform": [{"filter": f"datum.what == '{what}'"}], "mark": mark, "encoding": {"x": x, "y": y}}
        for what, mark in marks.items()
    ]
    return _chart({"width": 420, "height": {"step": 20}, "data": {"values": values}, "layer": layers})


def _chart(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "config": _CONFIG,
        "padding": _PADDING,
        **spec,
    }
