"""Drift of one feature: every measure of its current profile against its reference, and how likely chance gives it.

Nothing here decides: `judged` (`store.kernel.drift_verdicts`) holds what was found in a run against thresholds and one
false-alarm rate.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from store.kernel import drift_chance as chance
from store.kernel.drift_bins import Bins
from store.kernel.drift_distances import Cumulative, jensen_shannon, psi
from store.kernel.drift_measures import LENGTH, Measure
from store.kernel.histograms import Counts
from store.kernel.profiles import Categories, ColumnProfile, Numbers
from store.limits import DRIFT_BINS, DRIFT_EXPECTED_MIN

UNKNOWN_KEY_STATUS = "NOT_FOUND"
STALE_STATUS = "OUTSIDE_MAX_AGE"


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one feature.

    Attributes:
        name: a `Measure`, or one of lengths with `LENGTH` before it.
        rows: values that it rests on, of the reference and of the current profile.
        value: how far the two lie apart, 0 for equal ones; of rates, how far the current one is above or below. None
            where there is nothing to measure, for the reason `why`.
        by_chance: what chance alone gives on average, of measures that grow with the number of cells.
        test: which test of chance it shares with other measures of the feature; '' for none.
        p: that chance alone gives as much, as `store.kernel.drift_chance` has it.
        degrees: of freedom, of tests on cells.
        cells: that either side has, of measures on cells.
        noise: what chance gives shrinks with the root of the effective size; this is one deviation at a size of 1.
        rates: of the reference and of the current profile, of measures that compare two rates.
    """

    name: str
    rows: tuple[int, int]
    value: float | None = None
    by_chance: float = 0.0
    test: str = ""
    p: float | None = None
    degrees: int | None = None
    cells: int = 0
    noise: float = 1.0
    rates: tuple[float, float] | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """What a feature is compared on, to draw: bins of numbers, or categories.

    Shapes: all have one entry per cell. `edges` (least and greatest number) of bins, `names` of categories.
    """

    reference: Counts
    current: Counts
    edges: tuple[tuple[float, float], ...] = ()
    names: tuple[str, ...] = ()
    are_groups: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All findings of one feature, and how many rows are worth one.

    Attributes:
        cells: of its values; of lists, and of texts that are too many to count each, of their lengths.
    """

    findings: tuple[Finding, ...]
    cells: Cells | None = None
    alike: float = 1.0


def compare(reference: ColumnProfile, current: ColumnProfile, alike: float = 1.0) -> Comparison:
    """Returns how the values of two profiles of one kind differ.

    Args:
        alike: how many rows together are worth an independent one.
    """
    findings = [*_missing(reference, current, alike)]
    cells = None
    if reference.numbers is not None and current.numbers is not None:
        findings += _not_finite(reference, current, alike)
        found, cells = _of_numbers(reference.numbers, current.numbers, alike)
        findings += found
    if reference.categories is not None and current.categories is not None:
        found, cells = _of_categories(reference.categories, current.categories, alike)
        findings += found
    if reference.lengths is not None and current.lengths is not None:
        found, bins = _of_numbers(reference.lengths, current.lengths, alike)
        # Groups by hash mean nothing to anybody who sees them drawn; lengths do.
        cells = bins if cells is None or cells.are_groups else cells
        findings += [replace(each, name=LENGTH + each.name, test=each.test and LENGTH + each.test) for each in found]
    return Comparison(tuple(findings), cells, alike)


def _rate(name: Measure, reference: tuple[int, int], current: tuple[int, int], alike: float) -> Finding:
    """Returns how far a rate, given as hits and rows, has moved."""
    rows = (reference[1], current[1])
    if not all(rows):
        return Finding(name, rows, why=_without(rows, "rows"))
    rates = (reference[0] / rows[0], current[0] / rows[1])
    pooled = (reference[0] + current[0]) / sum(rows)
    p = chance.rates(reference, current, alike)
    noise = math.sqrt(pooled * (1 - pooled))
    return Finding(name, rows, abs(rates[1] - rates[0]), test=name, p=p, noise=noise, rates=rates)


def _without(rows: tuple[int, int], what: str) -> str:
    if not any(rows):
        return f"neither side has {what}"
    return f"the {'current side' if rows[0] else 'reference'} has no {what}"


def _missing(reference: ColumnProfile, current: ColumnProfile, alike: float) -> Iterator[Finding]:
    yield _rate(Measure.NULL_RATE, (reference.nulls, reference.rows), (current.nulls, current.rows), alike)
    if not reference.statuses or not current.statuses:
        return
    for name, status in ((Measure.UNKNOWN_KEY_RATE, UNKNOWN_KEY_STATUS), (Measure.STALE_RATE, STALE_STATUS)):
        before, after = ((each.statuses.get(status, 0), each.rows) for each in (reference, current))
        yield _rate(name, before, after, alike)


def _not_finite(reference: ColumnProfile, current: ColumnProfile, alike: float) -> Iterator[Finding]:
    before, after = reference.numbers, current.numbers
    assert before is not None
    assert after is not None
    if before.nans or after.nans:
        yield _rate(Measure.NAN_RATE, (before.nans, reference.rows), (after.nans, current.rows), alike)
    infinities = [each.positive_infinities + each.negative_infinities for each in (before, after)]
    if any(infinities):
        yield _rate(Measure.INFINITY_RATE, (infinities[0], reference.rows), (infinities[1], current.rows), alike)


def _of_numbers(reference: Numbers, current: Numbers, alike: float) -> tuple[list[Finding], Cells | None]:
    rows = (reference.finite, current.finite)
    names = (
        Measure.PSI,
        Measure.JENSEN_SHANNON,
        Measure.KOLMOGOROV_SMIRNOV,
        Measure.WASSERSTEIN,
        Measure.MEAN_SHIFT,
    )
    if not all(rows):
        return [Finding(name, rows, why=_without(rows, "finite values")) for name in names], None
    before, after = reference.histogram, current.histogram
    both = Cumulative.of(before, after, is_integral=reference.is_integral and current.is_integral)
    distance = both.kolmogorov_smirnov()
    # Chance is asked of bins of both together, by which neither sample is preferred, and that small samples can fill.
    fair = Bins.of_equal_mass(
        before.merge(after), max(2, min(DRIFT_BINS, int(min(rows) / alike) // (2 * DRIFT_EXPECTED_MIN)))
    )
    test = chance.homogeneity(fair.counts(before), fair.counts(after), alike)
    bins = Bins.of_equal_mass(before, DRIFT_BINS)
    cells = Cells(
        bins.counts(before), bins.counts(after), tuple(zip(*(each.tolist() for each in bins.edges), strict=True))
    )
    return [
        *_on_cells(cells, rows, (test, alike), "bins"),
        Finding(
            Measure.KOLMOGOROV_SMIRNOV, rows, distance, test="ks", p=chance.kolmogorov(distance, rows, alike), noise=0.5
        ),
        _wasserstein(both, alike),
        _mean_shift(reference, current, alike),
    ], cells


def _on_cells(
    cells: Cells, rows: tuple[int, int], asked: tuple[chance.Homogeneity | None, float], name: str
) -> Iterator[Finding]:
    """Yields PSI and Jensen-Shannon of counts, which share one test of chance."""
    test, alike = asked
    used = int(np.count_nonzero((cells.reference > 0) | (cells.current > 0)))
    expected = (used - 1) * alike / chance.size(*rows)
    index, distance = psi(cells.reference, cells.current), jensen_shannon(cells.reference, cells.current)
    p, degrees = (1.0, used - 1) if test is None else (test.p, test.degrees)
    shared = Finding("", rows, test=name, p=p, degrees=degrees, cells=used)
    yield replace(shared, name=Measure.PSI, value=index, by_chance=expected)
    # For small differences the divergence in bits is an eighth of the index, but for the base of the logarithm.
    by_chance = math.sqrt(expected / (8 * math.log(2)))
    yield replace(shared, name=Measure.JENSEN_SHANNON, value=distance, by_chance=min(by_chance, 1.0))


def _wasserstein(both: Cumulative, alike: float) -> Finding:
    """Returns the Wasserstein distance in standard deviations of the reference."""
    distance, spread = both.wasserstein(), both.spread()
    found = Finding(Measure.WASSERSTEIN, both.rows, test="wasserstein", p=chance.transport(both, alike))
    if not distance:
        return replace(found, value=0.0)
    if not spread:
        return Finding(Measure.WASSERSTEIN, both.rows, why="all values of the reference are about equal")
    return replace(found, value=distance / spread, noise=chance.transport_noise(both) / spread)


def _mean_shift(reference: Numbers, current: Numbers, alike: float) -> Finding:
    """Returns the distance of the means in standard deviations of the reference: exact, unlike what buckets tell."""
    rows = (reference.finite, current.finite)
    both = reference.merge(current)
    deviation = reference.standard_deviation
    assert both.least is not None
    assert both.greatest is not None
    # Halves, since the range of all doubles is infinite.
    span = both.greatest / 2 - both.least / 2
    shift = current.mean / 2 - reference.mean / 2
    if not span:
        return Finding(Measure.MEAN_SHIFT, rows, 0.0)
    if reference.least == reference.greatest:
        return Finding(Measure.MEAN_SHIFT, rows, why="all values of the reference are equal")
    variance = both.squares / sum(rows) / span / span / 4
    if not deviation or not all(math.isfinite(each) for each in (shift, variance)):
        return Finding(Measure.MEAN_SHIFT, rows, why="the values are too great, or too small, for a variance")
    p = chance.mean_shift(shift / span, variance, 1.0, rows, alike)
    noise = math.sqrt(variance) * span * 2 / deviation
    return Finding(Measure.MEAN_SHIFT, rows, abs(shift) * 2 / deviation, test="mean", p=p, noise=noise)


def _of_categories(reference: Categories, current: Categories, alike: float) -> tuple[list[Finding], Cells | None]:
    names = (
        Measure.PSI,
        Measure.JENSEN_SHANNON,
        Measure.CHI_SQUARED,
        Measure.CATEGORY_SHIFT,
        Measure.NEW_CATEGORY_RATE,
    )
    cells = _cells(reference, current)
    rows = (int(cells.reference.sum()), int(cells.current.sum()))
    if not all(rows):
        return [Finding(name, rows, why=_without(rows, "values")) for name in names], None
    test = chance.homogeneity(cells.reference, cells.current, alike)
    squared = Finding(Measure.CHI_SQUARED, rows, why="fewer than two categories have enough rows to be compared")
    if test is not None:
        squared = Finding(
            Measure.CHI_SQUARED, rows, test.statistic, by_chance=test.degrees * alike, p=test.p, degrees=test.degrees
        )
    return [
        *_on_cells(cells, rows, (test, alike), "categories"),
        squared,
        _category_shift(cells, rows, alike),
        _new_categories(cells, rows, alike),
    ], cells


def _category_shift(cells: Cells, rows: tuple[int, int], alike: float) -> Finding:
    """Returns how far the share of one category has moved, the one that moved most."""
    before, after = cells.reference / rows[0], cells.current / rows[1]
    most = int(np.argmax(np.abs(after - before)))
    p = chance.one_category(cells.reference, cells.current, alike)
    pooled = int(cells.reference[most] + cells.current[most]) / sum(rows)
    noise = math.sqrt(pooled * (1 - pooled))
    return Finding(
        Measure.CATEGORY_SHIFT, rows, float(abs(after[most] - before[most])), test="category", p=p, noise=noise
    )


def _cells(reference: Categories, current: Categories) -> Cells:
    if reference.counts is None or current.counts is None:
        return Cells(reference.grouped(), current.grouped(), are_groups=True)
    names = sorted({**reference.counts, **current.counts})
    before, after = (
        np.array([each.get(name, 0) for name in names], np.int64) for each in (reference.counts, current.counts)
    )
    return Cells(before, after, names=tuple(names))


def _new_categories(cells: Cells, rows: tuple[int, int], alike: float) -> Finding:
    name = Measure.NEW_CATEGORY_RATE
    if cells.are_groups:
        return Finding(name, rows, why="there are too many categories to know each")
    rate = int(cells.current[cells.reference == 0].sum()) / rows[1]
    p = chance.unseen(cells.reference, cells.current, alike)
    return Finding(name, rows, rate, test=name, p=p, noise=math.sqrt(rate * (1 - rate)), rates=(0.0, rate))
