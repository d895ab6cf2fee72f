"""What the kernel found, as a report has it."""

import math
from collections.abc import Iterable

import numpy as np

from store.kernel.drift import Cells
from store.kernel.drift_measures import Verdict
from store.kernel.drift_verdicts import Judged
from store.kernel.histograms import BUCKET_MAX, high_edges, low_edges
from store.kernel.profiles import ColumnProfile
from store.limits import DRIFT_CELLS_SHOWN_MAX
from store.monitor.drift_report import Bar, MeasureResult, Side

_ORDER = (Verdict.ALARM, Verdict.TOO_FEW, Verdict.STABLE)


def verdict_of(judged: Iterable[Judged]) -> Verdict:
    """Returns the verdict on a feature: an alarm if any measure says so, then that there is too little to tell."""
    found = {each.verdict for each in judged}
    return next((each for each in _ORDER if each in found), Verdict.NOT_COMPARED)


def result_of(judged: Judged) -> MeasureResult:
    """Returns a measure with its verdict."""
    finding = judged.finding
    before, after = finding.rates or (None, None)
    return MeasureResult(
        name=str(finding.name),
        verdict=judged.verdict,
        value=finding.value,
        threshold=judged.threshold,
        by_chance=finding.by_chance,
        p=finding.p,
        p_run=judged.p_run,
        degrees=finding.degrees,
        rows_reference=finding.rows[0],
        rows_current=finding.rows[1],
        rate_reference=before,
        rate_current=after,
        rows_needed=judged.rows_needed,
        why=finding.why,
    )


def side_of(column: ColumnProfile) -> Side:
    """Returns one side in a few numbers; of texts and lists those of their lengths are left out."""
    numbers = column.numbers
    if numbers is None or not numbers.finite:
        return Side(column.rows, column.nulls)
    low, median, high = (numbers.quantile(share) for share in (0.25, 0.5, 0.75))
    return Side(
        column.rows,
        column.nulls,
        median=_finite(median),
        quartiles=None if low is None or high is None else (float(low), float(high)),
        mean=_finite(numbers.mean),
        standard_deviation=_finite(numbers.standard_deviation),
        least=_finite(numbers.least),
        greatest=_finite(numbers.greatest),
    )


def _finite(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None


def bars_of(cells: Cells | None) -> tuple[Bar, ...]:
    """Returns counts of both sides to draw: all bins in order, or the categories that differ most, and the others."""
    if cells is None or cells.are_groups:
        return ()
    if cells.names:
        return tuple(_bars_of_categories(cells))
    least, greatest = float(low_edges(np.array([-BUCKET_MAX]))[0]), float(high_edges(np.array([BUCKET_MAX]))[0])
    return tuple(
        Bar("", None if low <= least else low, None if high >= greatest else high, before, after)
        for (low, high), before, after in zip(
            cells.edges, cells.reference.tolist(), cells.current.tolist(), strict=True
        )
        if before or after
    )


def _bars_of_categories(cells: Cells) -> Iterable[Bar]:
    before, after = cells.reference, cells.current
    shares = (before / max(int(before.sum()), 1), after / max(int(after.sum()), 1))
    # Half of the places go to those that differ most, the others to the most frequent ones.
    differing = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[: DRIFT_CELLS_SHOWN_MAX // 2].tolist()
    frequent = np.argsort(-(shares[0] + shares[1]), kind="stable")[:DRIFT_CELLS_SHOWN_MAX].tolist()
    shown = list(dict.fromkeys((*differing, *frequent)))[:DRIFT_CELLS_SHOWN_MAX]
    shown.sort(key=lambda place: (-int(before[place]), -int(after[place]), cells.names[place]))
    for place in shown:
        yield Bar(cells.names[place], None, None, int(before[place]), int(after[place]))
    rest = (int(before.sum() - before[shown].sum()), int(after.sum() - after[shown].sum()))
    if any(rest):
        yield Bar("", None, None, *rest, is_rest=True)
