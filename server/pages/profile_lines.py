"""A column's profile in words and figures: one line in a list, or a table beside its reference."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from markupsafe import Markup

from server.pages.charts import bars_of
from server.pages.shown import DASH, instant, number, share, visible
from store.kernel.profiles import ColumnProfile, Numbers
from store.monitor.subjects import Span

_SPARK_WIDTH: Final = 96
_SPARK_HEIGHT: Final = 20
_CATEGORIES: Final = 8
_SHARES: Final = (
    (0.01, "1 %"), (0.05, "5 %"), (0.25, "25 %"), (0.5, "Median"), (0.75, "75 %"), (0.95, "95 %"), (0.99, "99 %"),
)  # fmt: skip


def told_span(span: Span) -> str:
    """Returns a stretch of time in words."""
    start, end = (instant(us).striptags().removesuffix(" UTC") for us in (span.start_us, span.end_us))
    if start.endswith(" 00:00") and end.endswith(" 00:00"):
        start, end = start.removesuffix(" 00:00"), end.removesuffix(" 00:00")
    return f"{start} to {end} UTC"


def line_of(column: ColumnProfile) -> dict[str, Any]:
    """Returns a column in one line. Shapes: `spark` (SVG), `summary`, `missing`."""
    return {"spark": spark(column), "summary": _summary(column), "missing": share(column.nulls, column.rows)}


def _summary(column: ColumnProfile) -> str:
    if column.skipped:
        return column.skipped
    numbers = column.numbers
    if numbers is not None and numbers.finite:
        return f"median {number(numbers.quantile(0.5))}"
    if column.categories is not None and (top := column.categories.most_frequent(1)):
        total = int(column.categories.grouped().sum())
        return f"{visible(top[0][0], 24)} {share(top[0][1], total)}"
    if column.lengths is not None and column.lengths.finite:
        return f"median length {number(column.lengths.quantile(0.5))}"
    if column.moments is not None:
        return f"to {instant(column.moments.latest_us).striptags()}"
    return "all missing" if column.rows and column.nulls == column.rows else ""


def spark(column: ColumnProfile) -> Markup:
    """Returns a distribution as a picture the size of a word; nothing where there is none."""
    heights = _heights(column)
    if not heights:
        return Markup()
    most = max(height for _, _, height in heights) or 1.0
    path = "".join(
        f"M{x:.1f},{_SPARK_HEIGHT}v{-_SPARK_HEIGHT * height / most:.1f}h{width:.1f}V{_SPARK_HEIGHT}z"
        for x, width, height in heights
        if height > 0
    )
    label = f"Distribution of {visible(column.name, 80)}"
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path d="{}"/></svg>'
    ).format(_SPARK_WIDTH, _SPARK_HEIGHT, label, path)


def _heights(column: ColumnProfile) -> list[tuple[float, float, float]]:
    """Returns bars: from where, how wide, how high; in the picture's own widths."""
    numbers = column.numbers if column.numbers is not None else column.lengths
    if column.categories is not None and column.numbers is None:
        top = column.categories.most_frequent(_CATEGORIES)
        step = _SPARK_WIDTH / _CATEGORIES
        return [(place * step, step - 2, float(count)) for place, (_, count) in enumerate(top)]
    if numbers is None or not (bars := bars_of(numbers, None).current):
        return []
    low, high = bars[0].low, bars[-1].high
    scale = _SPARK_WIDTH / (high - low) if high > low else 0.0
    if not scale:
        return [(0.0, float(_SPARK_WIDTH), 1.0)]
    return [
        ((bar.low - low) * scale, (bar.high - bar.low) * scale, bar.share / (bar.high - bar.low))
        for bar in bars
        if bar.high > bar.low
    ]


def figures(column: ColumnProfile, reference: ColumnProfile | None) -> list[tuple[str, Any, Any]]:
    """Returns label, current and reference figure of all that is known of a column."""
    ours, theirs = dict(_figures(column)), dict(_figures(reference)) if reference is not None else {}
    labels = dict.fromkeys([*ours, *theirs])
    return [(label, ours.get(label, DASH), theirs.get(label, DASH)) for label in labels]


def _figures(column: ColumnProfile) -> Iterator[tuple[str, Any]]:
    yield "Rows", number(column.rows)
    yield "Missing", share(column.nulls, column.rows)
    for status, count in sorted(column.statuses.items()):
        yield status, share(count, column.rows)
    if column.sketch:
        yield "Distinct", number(column.distinct)
    if column.numbers is not None:
        yield from _numbers(column.numbers, lambda label: label)
    if column.categories is not None:
        total = int(column.categories.grouped().sum())
        for name, count in column.categories.most_frequent(_CATEGORIES):
            yield f"“{visible(name, 40)}”", share(count, total)
    if column.lengths is not None:
        yield from _numbers(column.lengths, lambda label: f"Length: {label.lower()}")
    if column.moments is not None:
        yield "Earliest", instant(column.moments.earliest_us)
        yield "Latest", instant(column.moments.latest_us)


def _numbers(numbers: Numbers, called: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    if numbers.finite:
        yield called("Mean"), number(numbers.mean)
        yield called("Standard deviation"), number(numbers.standard_deviation)
        yield called("Min"), number(numbers.least)
        for at, label in _SHARES:
            yield called(label), number(numbers.quantile(at))
        yield called("Max"), number(numbers.greatest)
    infinities = numbers.positive_infinities + numbers.negative_infinities
    for label, count in (("NaN", numbers.nans), ("Infinite", infinities)):
        if count:
            yield called(label), number(count)
