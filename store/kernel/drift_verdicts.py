"""Which findings of a run are alarms: those with an effect that matters, and that chance would not give.

The effect is held against a threshold of its measure. That chance does not explain it may be shown by any test of the
same values: one test sees shifts best, another single values. Chance is asked once for all tests of the run: where
nothing drifts, a run raises any alarm at all with at most the probability `false_alarm_rate`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

from store.kernel.drift import Comparison, Finding
from store.kernel.drift_chance import holm
from store.kernel.drift_measures import LENGTH, Measure, Verdict
from store.limits import DRIFT_BINS


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding and its verdict.

    Attributes:
        threshold: of the effect, None where the measure raises no alarm.
        p_run: the least p-value of the tests of the same values, for all tests of the run together; at or below the
            false-alarm rate for an alarm.
        rows_needed: with `TOO_FEW`, about how many values each side needs to tell from chance what was found, or what
            is at the threshold if that is more.
    """

    finding: Finding
    verdict: Verdict
    threshold: float | None = None
    p_run: float | None = None
    rows_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes an alarm.

    Attributes:
        false_alarm_rate: of a whole run in which nothing drifts.
        rows_min: independent values below which a side is too small to be compared.
    """

    false_alarm_rate: float
    rows_min: int


Thresholds = Mapping[str, float | None]
"""By measure; lengths have those of the measure itself unless they are named. None and absent: no alarm."""


def threshold_of(thresholds: Thresholds, name: str) -> float | None:
    """Returns the threshold of a measure by name."""
    return thresholds.get(name, thresholds.get(name.removeprefix(LENGTH)))


def effect_of(finding: Finding) -> float:
    """Returns a value less what chance alone gives on average, which is what a threshold is for."""
    value = finding.value or 0.0
    if finding.name.removeprefix(LENGTH) == Measure.JENSEN_SHANNON:
        # What adds up is the divergence, the square.
        return math.sqrt(max(value**2 - finding.by_chance**2, 0.0))
    return max(value - finding.by_chance, 0.0)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdicts of a run.

    Attributes:
        features: on each finding of each feature, in their order.
        comparisons: how many tests of chance share the false-alarm rate.
    """

    features: list[list[Judged]]
    comparisons: int


def judge(comparisons: Sequence[tuple[Comparison, Thresholds]], rules: Rules) -> Judgement:
    """Returns a verdict on each finding of each feature of a run, in their order."""
    family = _tests(comparisons, rules)
    adjusted = holm({"/".join(key): p for key, p in family.items()})
    least: dict[tuple[str, str], float] = {}
    for key in family:
        aspect = key[:2]
        least[aspect] = min(least.get(aspect, 1.0), adjusted["/".join(key)])
    level = rules.false_alarm_rate / max(len(family), 1)
    judged = [
        [
            _judged(finding, thresholds, (rules, comparison.alike), (least.get((str(place), _aspect(finding))), level))
            for finding in comparison.findings
        ]
        for place, (comparison, thresholds) in enumerate(comparisons)
    ]
    return Judgement(judged, len(family))


_OF_VALUES = frozenset({
    Measure.PSI,
    Measure.JENSEN_SHANNON,
    Measure.KOLMOGOROV_SMIRNOV,
    Measure.WASSERSTEIN,
    Measure.MEAN_SHIFT,
    Measure.CATEGORY_SHIFT,
})  # fmt: skip


def _aspect(finding: Finding) -> str:
    """Returns which of the values a finding is about: those themselves, their lengths, or one rate."""
    if finding.name.removeprefix(LENGTH) not in _OF_VALUES:
        return finding.name
    return LENGTH if finding.name.startswith(LENGTH) else "values"


def _tests(comparisons: Sequence[tuple[Comparison, Thresholds]], rules: Rules) -> dict[tuple[str, str, str], float]:
    """Returns the p-values that share the false-alarm rate, by feature, aspect and test."""
    family = {}
    for place, (comparison, thresholds) in enumerate(comparisons):
        # What is tested is chosen by sizes and settings alone, never by how far the two sides lie apart.
        able = {_aspect(each) for each in comparison.findings if threshold_of(thresholds, each.name) is not None}
        for finding in comparison.findings:
            if finding.p is None or not finding.test or min(finding.rows) < rules.rows_min * comparison.alike:
                continue
            if (aspect := _aspect(finding)) in able:
                family[str(place), aspect, finding.test] = finding.p
    return family


def _judged(
    finding: Finding,
    thresholds: Thresholds,
    asked: tuple[Rules, float],
    chance: tuple[float | None, float],
) -> Judged:
    rules, alike = asked
    threshold = threshold_of(thresholds, finding.name)
    if finding.value is None:
        return Judged(finding, Verdict.NOT_COMPARED, threshold)
    if threshold is None:
        return Judged(finding, Verdict.NOT_JUDGED)
    if min(finding.rows) < rules.rows_min * alike:
        return Judged(finding, Verdict.TOO_FEW, threshold, rows_needed=math.ceil(rules.rows_min * alike))
    adjusted, level = chance
    is_beyond_chance = adjusted is not None and adjusted <= rules.false_alarm_rate
    effect = effect_of(finding)
    if is_beyond_chance and effect >= threshold:
        return Judged(finding, Verdict.ALARM, threshold, adjusted)
    # Where chance alone gives as much as the threshold, a drift of that size would not be seen.
    if not is_beyond_chance and adjusted is not None and max(effect, finding.by_chance) >= threshold:
        return Judged(
            finding, Verdict.TOO_FEW, threshold, adjusted, _rows_needed(finding, max(threshold, effect), level, alike)
        )
    return Judged(finding, Verdict.STABLE, threshold, adjusted)


def _rows_needed(finding: Finding, effect: float, level: float, alike: float) -> int:
    size = max(_size_needed(finding, effect, level), 1.0) * alike
    smaller, larger = sorted(finding.rows)
    rows = 2 * size if larger <= 2 * size else 1 / (1 / size - 1 / larger)
    return max(math.ceil(rows), smaller + 1)


def _size_needed(finding: Finding, effect: float, level: float) -> float:
    """Returns the effective size at which an effect stands out at a level."""
    if finding.degrees is not None:
        is_psi = finding.name.removeprefix(LENGTH) == Measure.PSI
        index = effect if is_psi else 8 * math.log(2) * effect**2
        # More rows fill more bins than the few of a small sample.
        degrees = max(finding.degrees, min(finding.cells - 1, DRIFT_BINS - 1), 1)
        return max(float(special.chdtri(degrees, level)) - degrees, finding.cells - 1) / index
    return 2 * math.log(2 / level) * (finding.noise / effect) ** 2
