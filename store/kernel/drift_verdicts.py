"""Which findings of a run are alarms: those with an effect that matters, and that chance would not give.

The effect is held against a threshold of its measure. Chance is asked once for all findings of the run that have a
threshold: where nothing drifts, a run raises any alarm at all with at most the probability `false_alarm_rate`.
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
        p_run: the p-value for all comparisons of the run together; at or below the false-alarm rate for an alarm.
        rows_needed: with `TOO_FEW`, about how many values each side needs for an effect at the threshold to be told
            from chance.
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
        rows_min: values below which a side is too small to be compared.
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
    family: dict[str, float] = {}
    for place, (comparison, thresholds) in enumerate(comparisons):
        for finding in comparison.findings:
            if _is_tested(finding, thresholds, rules):
                assert finding.p is not None
                family[f"{place}/{finding.test}"] = finding.p
    adjusted = holm(family)
    level = rules.false_alarm_rate / max(len(family), 1)
    judged = [
        [
            _judged(finding, thresholds, rules, (adjusted.get(f"{place}/{finding.test}"), level))
            for finding in comparison.findings
        ]
        for place, (comparison, thresholds) in enumerate(comparisons)
    ]
    return Judgement(judged, len(family))


def _is_tested(finding: Finding, thresholds: Thresholds, rules: Rules) -> bool:
    # What is tested is chosen by sizes and settings alone, never by how far the two sides lie apart.
    has_threshold = threshold_of(thresholds, finding.name) is not None
    return finding.p is not None and has_threshold and min(finding.rows) >= rules.rows_min


def _judged(finding: Finding, thresholds: Thresholds, rules: Rules, chance: tuple[float | None, float]) -> Judged:
    threshold = threshold_of(thresholds, finding.name)
    if finding.value is None:
        return Judged(finding, Verdict.NOT_COMPARED, threshold)
    if threshold is None:
        return Judged(finding, Verdict.NOT_JUDGED)
    if min(finding.rows) < rules.rows_min:
        return Judged(finding, Verdict.TOO_FEW, threshold, rows_needed=rules.rows_min)
    adjusted, level = chance
    is_beyond_chance = adjusted is not None and adjusted <= rules.false_alarm_rate
    if is_beyond_chance and effect_of(finding) >= threshold:
        return Judged(finding, Verdict.ALARM, threshold, adjusted)
    if not is_beyond_chance and finding.value >= threshold > 0 and adjusted is not None:
        return Judged(finding, Verdict.TOO_FEW, threshold, adjusted, _rows_needed(finding, threshold, level))
    return Judged(finding, Verdict.STABLE, threshold, adjusted)


def _rows_needed(finding: Finding, threshold: float, level: float) -> int:
    size = max(_size_needed(finding, threshold, level), 1.0)
    smaller, larger = sorted(finding.rows)
    rows = 2 * size if larger <= 2 * size else 1 / (1 / size - 1 / larger)
    return max(math.ceil(rows), smaller + 1)


def _size_needed(finding: Finding, threshold: float, level: float) -> float:
    """Returns the effective size at which an effect at the threshold stands out at a level."""
    if finding.degrees is not None:
        is_psi = finding.name.removeprefix(LENGTH) == Measure.PSI
        index = threshold if is_psi else 8 * math.log(2) * threshold**2
        # More rows fill more bins than the few of a small sample.
        degrees = max(finding.degrees, min(finding.cells - 1, DRIFT_BINS - 1), 1)
        return (float(special.chdtri(degrees, level)) - degrees) / index
    return 2 * math.log(2 / level) * (finding.noise / threshold) ** 2
