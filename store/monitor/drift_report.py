"""What a comparison of two profiles found, in the form in which it is kept, shown and sent."""

from collections.abc import Mapping
from dataclasses import dataclass

from store.kernel.drift_measures import Verdict
from store.monitor.subjects import Span, Subject


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """One measure of one feature.

    Attributes:
        name: of a `Measure`, or of one of lengths, such as `length_psi`.
        value: how far the two sides lie apart; None where there is nothing to measure, for the reason `why`.
        threshold: from which effect on it is an alarm, None for never.
        by_chance: what chance alone gives on average; it is taken off before the threshold is asked.
        p: the probability that chance gives as much in this one comparison; `p_run` in any comparison of the run.
        rows_reference, rows_current: values that it rests on.
        rate_reference, rate_current: of measures that compare rates.
        rows_needed: where there are too few to tell, about how many values each side needs.
    """

    name: str
    verdict: Verdict
    value: float | None
    threshold: float | None
    by_chance: float
    p: float | None
    p_run: float | None
    degrees: int | None
    rows_reference: int
    rows_current: int
    rate_reference: float | None
    rate_current: float | None
    rows_needed: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison in a few numbers; what the feature's kind does not have is None."""

    rows: int
    nulls: int
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    mean: float | None = None
    standard_deviation: float | None = None
    least: float | None = None
    greatest: float | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """How many values of both sides lie in one bin of numbers, or are of one category.

    Attributes:
        label: the category; '' for a bin. The last one of categories may stand for all others.
        low, high: what the bin can hold; None for a category, and where a bin is open.
        is_rest: it stands for all categories that are not listed.
    """

    label: str
    low: float | None
    high: float | None
    reference: int
    current: int
    is_rest: bool = False


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """What was found of one feature.

    Attributes:
        feature: its name in the current profile, `reference_feature` that in the reference, '' for none.
        kind: how its values were summed up, a `store.kernel.profiles.Kind`.
        statement: a sentence for people.
        bars: both distributions on shared bins or categories, empty if they cannot be compared; of lists, and of texts
            that are too many to count each, of their lengths.
    """

    feature: str
    reference_feature: str
    type_name: str
    kind: str
    verdict: Verdict
    statement: str
    measures: tuple[MeasureResult, ...] = ()
    reference: Side | None = None
    current: Side | None = None
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The current profile of a subject against its reference.

    Attributes:
        subject: whose current profile it is, over `span`; `reference` and `reference_span` what it was held against.
        computed_us: when, by the repo's clock, in microseconds since the epoch.
        comparisons: of the whole run, which share one false-alarm rate.
        notes: what whoever reads it should know, in sentences.
    """

    subject: Subject
    span: Span
    reference: Subject
    reference_span: Span
    computed_us: int
    rows: int
    reference_rows: int
    false_alarm_rate: float
    rows_min: int
    comparisons: int
    features: tuple[FeatureDrift, ...]
    notes: tuple[str, ...] = ()

    @property
    def alarms(self) -> tuple[FeatureDrift, ...]:
        """The features that have drifted."""
        return tuple(each for each in self.features if each.verdict is Verdict.ALARM)


@dataclass(frozen=True, slots=True)
class DriftPoint:
    """One feature at one time, for drift over time.

    Attributes:
        span: of the current profile.
        measures: values by name, those that there are.
        thresholds: by name, of measures that raise alarms.
    """

    span: Span
    computed_us: int
    verdict: Verdict
    measures: Mapping[str, float]
    thresholds: Mapping[str, float]
