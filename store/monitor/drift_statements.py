"""What was found of a feature, in a sentence that a person understands without knowing any distance."""

import math
from collections.abc import Iterable, Sequence

from store.kernel.drift_measures import LENGTH, Measure, Verdict
from store.monitor.drift_report import Bar, MeasureResult, Side

_RATES = {
    Measure.NULL_RATE: "have no value",
    Measure.NAN_RATE: "are NaN",
    Measure.INFINITY_RATE: "are infinite",
    Measure.UNKNOWN_KEY_RATE: "are of unknown keys",
    Measure.STALE_RATE: "are stale (past the ttl)",
}
_TIMES_FROM = 3.0
"""From which ratio on it is told as such, no longer in per cent."""

_NAMES = {
    Measure.PSI: "PSI",
    Measure.JENSEN_SHANNON: "Jensen-Shannon",
    Measure.KOLMOGOROV_SMIRNOV: "Kolmogorov-Smirnov",
    Measure.WASSERSTEIN: "Wasserstein",
    Measure.MEAN_SHIFT: "mean shift",
    Measure.CATEGORY_SHIFT: "category shift",
}


def statement(
    verdict: Verdict, measures: Sequence[MeasureResult], sides: tuple[Side, Side], bars: Sequence[Bar]
) -> str:
    """Returns a sentence on a feature whose two sides were compared."""
    if verdict is Verdict.ALARM:
        return _alarm([each for each in measures if each.verdict is Verdict.ALARM], sides, bars)
    if verdict is Verdict.TOO_FEW:
        return _too_few([each for each in measures if each.verdict is Verdict.TOO_FEW])
    if verdict is Verdict.NOT_COMPARED:
        reasons = dict.fromkeys(each.why for each in measures if each.why)
        return f"not compared: {'; '.join(reasons) or 'nothing of it can be measured'}"
    if all(side.rows and side.rows == side.nulls for side in sides):
        return "no values, on either side"
    return "as in the reference"


def _alarm(alarms: Sequence[MeasureResult], sides: tuple[Side, Side], bars: Sequence[Bar]) -> str:
    parts = [*_told_rates(alarms), *_told_values(alarms, sides, bars)]
    distances = [each for each in alarms if each.rate_current is None]
    if distances:
        most = max(distances, key=_furthest)
        parts.append(f"{_named(most)} {most.value:.3g}, alarm from {most.threshold:g}")
    return "; ".join(parts)


def _furthest(measure: MeasureResult) -> tuple[bool, float]:
    """Orders measures by how many times their threshold they are, those of lengths before those of values."""
    return not measure.name.startswith(LENGTH), (measure.value or 0.0) / (measure.threshold or math.inf)


def _named(measure: MeasureResult) -> str:
    name = _NAMES.get(Measure(measure.name.removeprefix(LENGTH)), measure.name)
    return f"{name} of lengths" if measure.name.startswith(LENGTH) else name


def _told_rates(alarms: Iterable[MeasureResult]) -> list[str]:
    return [
        f"{_percent(each.rate_current)} {_RATES[Measure(each.name)]} instead of {_percent(each.rate_reference or 0)}"
        for each in alarms
        if each.name in _RATES and each.rate_current is not None
    ]


def _told_values(alarms: Sequence[MeasureResult], sides: tuple[Side, Side], bars: Sequence[Bar]) -> list[str]:
    told = []
    new = next((each for each in alarms if each.name == Measure.NEW_CATEGORY_RATE), None)
    if new is not None and new.rate_current is not None:
        most = max((each for each in bars if not each.reference and not each.is_rest), key=_current, default=None)
        named = f", most of them {most.label!r}" if most is not None and most.label else ""
        told.append(f"{_percent(new.rate_current)} are of categories that the reference does not have{named}")
    of_values = [each for each in alarms if each.rate_current is None]
    if any(not each.name.startswith(LENGTH) for each in of_values):
        told += (
            _told_categories(bars, is_new_told=bool(told)) if any(each.label for each in bars) else _told_numbers(sides)
        )
    elif of_values:
        told.append("the lengths are distributed otherwise")
    return told


def _current(bar: Bar) -> int:
    return bar.current


def _told_categories(bars: Sequence[Bar], *, is_new_told: bool) -> list[str]:
    before, after = (max(sum(getattr(each, side) for each in bars), 1) for side in ("reference", "current"))
    known = [each for each in bars if not each.is_rest and (each.reference or not is_new_told)]
    shares = [(each, each.reference / before, each.current / after) for each in known]
    moved = sorted(shares, key=lambda each: -abs(each[2] - each[1]))[:2]
    return [f"{bar.label!r} is {_percent(now)} instead of {_percent(was)}" for bar, was, now in moved if was != now]


def _told_numbers(sides: tuple[Side, Side]) -> list[str]:
    before, after = sides
    if before.median is None or after.median is None or before.quartiles is None or after.quartiles is None:
        return ["the values are distributed otherwise"]
    if before.median != after.median:
        middle = f"the middle value is {_number(after.median)} instead of {_number(before.median)}"
        return [middle + _change(before.median, after.median)]
    if before.quartiles != after.quartiles:
        spans = [f"from {_number(low)} to {_number(high)}" for low, high in (after.quartiles, before.quartiles)]
        return [f"the middle half of the values lies {spans[0]} instead of {spans[1]}"]
    if before.mean is not None and after.mean is not None and before.mean != after.mean:
        return [f"the mean is {_number(after.mean)} instead of {_number(before.mean)}"]
    return ["the values are distributed otherwise"]


def _change(before: float, after: float) -> str:
    """Returns by how much a number has changed in brackets, where a ratio of both means something."""
    if before <= 0 or after < 0:
        return ""
    ratio = after / before
    if ratio >= _TIMES_FROM:
        return f" ({ratio:,.0f} times as much)"
    return f" ({abs(ratio - 1) * 100:.0f} % {'higher' if ratio > 1 else 'lower'})"


def _too_few(measures: Sequence[MeasureResult]) -> str:
    nearest = min(measures, key=lambda each: (each.rows_needed or 0, each.rate_current is not None))
    what = "rows" if nearest.rate_current is not None else "values"
    return (
        f"too few to tell: {nearest.rows_current:,} {what} against {nearest.rows_reference:,} of the reference; about "
        f"{nearest.rows_needed or 0:,} are needed on each side"
    )


def _percent(share: float) -> str:
    percent = share * 100
    return f"{percent:.1f} %" if not 0 < percent < 0.1 else f"{percent:.2g} %"


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.3g}"
