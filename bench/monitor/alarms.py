"""How far alarms of drift can be trusted: false ones where nothing has moved, and found ones where something has.

A sample of a population is one draw of counts, so a million rows cost what a hundred do. A run compares one feature of
every population, as a nightly run compares the features of a repo.

Run as `python -m bench.monitor.alarms`: ten minutes of one core; a JSON line per row of a table.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from store.kernel.drift import compare
from store.kernel.drift_measures import Verdict
from store.kernel.drift_verdicts import Rules, judge
from store.kernel.histograms import Histogram, buckets_of
from store.kernel.profiles import Categories, ColumnProfile, Kind, Numbers
from store.monitor.settings import MonitoringSettings

_POPULATION = 200_000
"""Values that a population is made of."""

Values = npt.NDArray[np.float64]
Draw = np.random.Generator


@dataclass(frozen=True)
class Population:
    """What the values of a feature are drawn from.

    Shapes: `values` (of numbers) or `labels` (of categories) and `shares` have one entry per different value.
    """

    name: str
    shares: Values
    values: Values | None = None
    labels: tuple[str, ...] = ()
    null_share: float = 0.0

    @classmethod
    def of_numbers(cls, name: str, values: Values, null_share: float = 0.0) -> "Population":
        """Returns the population of some numbers."""
        different, counts = np.unique(values, return_counts=True)
        return cls(name, counts / counts.sum(), different, null_share=null_share)

    @classmethod
    def of_categories(cls, name: str, shares: Sequence[float], null_share: float = 0.0) -> "Population":
        """Returns a population of categories with such shares."""
        labels = tuple(f"c{place}" for place in range(len(shares)))
        return cls(name, np.array(shares) / sum(shares), labels=labels, null_share=null_share)

    def sample(self, draw: Draw, rows: int) -> ColumnProfile:
        """Returns the profile of rows that are drawn independently."""
        nulls = int(draw.binomial(rows, self.null_share))
        counts = draw.multinomial(rows - nulls, self.shares)
        if self.values is None:
            listed = {label: int(count) for label, count in zip(self.labels, counts, strict=True) if count}
            return ColumnProfile(self.name, "String", Kind.CATEGORY, rows, nulls, categories=Categories(listed))
        return ColumnProfile(
            self.name, "Float64", Kind.NUMBER, rows, nulls, numbers=_numbers(self.values, counts.astype(np.int64))
        )


def _numbers(values: Values, counts: npt.NDArray[np.int64]) -> Numbers:
    some = counts > 0
    if not some.any():
        return Numbers(Histogram.empty())
    found, times = values[some], counts[some]
    every = Histogram.of(found)
    places = np.searchsorted(every.numbers, buckets_of(found))
    buckets = np.zeros(len(every.numbers), np.int64)
    np.add.at(buckets, places, times)
    mean = float(np.average(found, weights=times))
    squares = float(np.sum(times * (found - mean) ** 2))
    is_integral = bool(np.all(found == np.trunc(found)))
    return Numbers(
        Histogram(every.numbers, buckets), float(found.min()), float(found.max()), mean, squares, is_integral
    )


def populations(seed: int = 0) -> list[Population]:
    """Returns features of many shapes: symmetric, skewed, heavy-tailed, discrete, mostly zero or null, categories."""
    draw = np.random.default_rng(seed)
    many = _POPULATION
    zipf = 1 / np.arange(1, 3_001) ** 1.1
    numbers = Population.of_numbers
    return [
        numbers("normal", _coarse(draw.normal(50, 10, many))),
        numbers("skewed", _coarse(draw.lognormal(0, 1, many)), 0.05),
        numbers("heavy-tailed", _coarse(draw.pareto(0.8, many))),
        numbers("rare outliers", _coarse(np.where(draw.random(many) < 0.002, 1e6, draw.normal(0, 1, many)))),
        numbers("counts", draw.poisson(2, many).astype(np.float64), 0.001),
        numbers("mostly zero", _coarse(np.where(draw.random(many) < 0.95, 0, draw.exponential(1, many)))),
        numbers("mostly null", _coarse(draw.normal(0, 1, many)), 0.97),
        numbers("far from zero", np.round(draw.normal(-73.9, 0.1, many), 3)),
        Population.of_categories("few categories", [0.5, 0.3, 0.1, 0.09, 0.01], 0.02),
        Population.of_categories("even categories", [1.0] * 50),
        Population.of_categories("long tail", zipf.tolist()),
        Population.of_categories("rare category", [0.999, 0.001]),
    ]


def _coarse(values: Values) -> Values:
    """Returns values with three significant digits: fewer different ones, and all buckets still told apart."""
    scale = 10 ** (np.floor(np.log10(np.abs(np.where(values == 0, 1, values)))) - 2)
    coarse: Values = np.round(values / scale) * scale
    return coarse


def shifted(population: Population, by: float) -> Population:
    """Returns a population whose mean lies so many standard deviations higher."""
    assert population.values is not None
    spread = float(np.sqrt(np.cov(population.values, aweights=population.shares)))
    return replace(population, values=population.values + by * spread)


def scaled(population: Population, by: float) -> Population:
    """Returns a population that is so much wider about its mean."""
    assert population.values is not None
    mean = float(np.average(population.values, weights=population.shares))
    return replace(population, values=mean + (population.values - mean) * by)


def with_new_category(population: Population, share: float) -> Population:
    """Returns a population of which a share are of a category that it did not have."""
    shares = np.append(population.shares * (1 - share), share)
    return replace(population, labels=(*population.labels, "new"), shares=shares)


def with_more_nulls(population: Population, by: float) -> Population:
    """Returns a population with so many more nulls, as a share of the rows."""
    return replace(population, null_share=population.null_share + by)


def swapped(population: Population) -> Population:
    """Returns a population whose first two categories have changed places."""
    first, second, *others = population.labels
    return replace(population, labels=(second, first, *others))


PLANTED: dict[str, tuple[str, Callable[[Population], Population]]] = {
    "mean + 0.2 sd": ("normal", lambda each: shifted(each, 0.2)),
    "scale x 1.3": ("normal", lambda each: scaled(each, 1.3)),
    "new category at 2 %": ("few categories", lambda each: with_new_category(each, 0.02)),
    "nulls + 2 points": ("few categories", lambda each: with_more_nulls(each, 0.02)),
    "two categories swapped": ("few categories", swapped),
}
"""What is planted into which population."""


@dataclass
class FalseAlarms:
    """In how many runs anything alarmed although nothing had moved.

    Attributes:
        by_chance: whatever the effect, so that only the promised rate keeps alarms away.
        alarms: with the usual thresholds of effects.
    """

    runs: int
    by_chance: int = 0
    alarms: int = 0


def false_alarms(rows: tuple[int, int], runs: int, seed: int) -> FalseAlarms:
    """Returns how often runs raise alarms in which nothing has moved.

    Args:
        rows: of the reference and of the current profile.
    """
    draw = np.random.default_rng(seed)
    settings = MonitoringSettings()
    thresholds = settings.thresholds_of("")
    rules = Rules(settings.false_alarm_rate, settings.rows_min)
    found = FalseAlarms(runs)
    for _ in range(runs):
        pairs = [
            (compare(each.sample(draw, rows[0]), each.sample(draw, rows[1])), thresholds) for each in populations_once()
        ]
        judged = [each for one in judge(pairs, rules).features for each in one]
        found.by_chance += any(each.p_run is not None and each.p_run <= rules.false_alarm_rate for each in judged)
        found.alarms += any(each.verdict is Verdict.ALARM for each in judged)
    return found


def found_shifts(planted: str, rows: tuple[int, int], runs: int, seed: int) -> int:
    """Returns in how many of some runs a planted shift of one feature among all alarms."""
    draw = np.random.default_rng(seed)
    settings = MonitoringSettings()
    rules = Rules(settings.false_alarm_rate, settings.rows_min)
    name, change = PLANTED[planted]
    found = 0
    for _ in range(runs):
        pairs, place = [], 0
        for number, each in enumerate(populations_once()):
            current = change(each) if each.name == name else each
            place = number if each.name == name else place
            comparison = compare(each.sample(draw, rows[0]), current.sample(draw, rows[1]))
            pairs.append((comparison, settings.thresholds_of("")))
        found += any(each.verdict is Verdict.ALARM for each in judge(pairs, rules).features[place])
    return found


_MADE: list[Population] = []


def populations_once() -> list[Population]:
    """Returns the populations, made once a process."""
    if not _MADE:
        _MADE.extend(populations())
    return _MADE


SIZES = [(100, 100), (1_000, 1_000), (100_000, 1_000), (1_000, 100_000), (100_000, 100), (1_000_000, 1_000_000)]
"""Rows of the reference and of the current profile."""


def main(runs: int) -> None:
    """Prints false-alarm rates and power at sizes from a hundred to a million."""
    for rows in SIZES:
        told = {"table": "false alarms", "reference_rows": rows[0], "current_rows": rows[1]}
        found = asdict(false_alarms(rows, runs, 1))
        print(json.dumps(told | {"features": len(populations_once())} | found), flush=True)
    for planted in PLANTED:
        for current in (300, 1_000, 3_000, 10_000):
            told = {"table": "power", "planted": planted, "reference_rows": 100_000, "current_rows": current}
            times = found_shifts(planted, (100_000, current), runs // 10, 2)
            print(json.dumps(told | {"runs": runs // 10, "found": times}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
