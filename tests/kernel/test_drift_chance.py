"""Chance: p-values that are SciPy's where it has them, never too small, and one rate for all of a run."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from store.kernel import drift_chance as chance
from store.kernel.drift_distances import Cumulative
from store.kernel.histograms import Histogram
from tests.oracles import drift as oracle

MANY = st.lists(st.tuples(st.integers(12, 90), st.integers(12, 90)), min_size=2, max_size=8)


@given(MANY)
def test_counts_that_are_not_small_are_tested_as_scipy_does(pairs: list[tuple[int, int]]) -> None:
    before, after = (list(each) for each in zip(*pairs, strict=True))
    smaller = min(sum(before), sum(after)) / (sum(before) + sum(after))
    assume(min(a + b for a, b in pairs) * smaller >= 5)
    found = chance.homogeneity(np.array(before), np.array(after))
    assert found is not None
    pearson = oracle.chi_squared(before, after, is_likelihood=False)
    likelihood = oracle.chi_squared(before, after, is_likelihood=True)
    assert (found.statistic, found.degrees) == (pytest.approx(pearson[0], abs=1e-9), pearson[1])
    assert found.p == pytest.approx(max(pearson[2], likelihood[2]), rel=1e-9)


def test_small_cells_are_tested_together() -> None:
    before, after = np.array([500, 480, 1, 0, 2, 2]), np.array([510, 470, 0, 3, 1, 2])
    found = chance.homogeneity(before, after)
    pooled = oracle.chi_squared([500, 480, 5], [510, 470, 6], is_likelihood=False)
    assert found is not None
    assert (found.statistic, found.degrees) == (pytest.approx(pooled[0]), 2)
    assert chance.homogeneity(np.array([3, 2]), np.array([1, 2])) is None
    assert chance.homogeneity(np.array([900]), np.array([90])) is None


@given(st.floats(0, 1), st.integers(1, 10**6), st.integers(1, 10**6))
def test_kolmogorov_is_scipys_limit(effect: float, reference: int, current: int) -> None:
    expected = oracle.kolmogorov(effect, reference, current)
    assert chance.kolmogorov(effect, (reference, current)) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_rates_are_tested_exactly(of_reference: int, of_current: int, data: st.DataObject) -> None:
    reference, current = data.draw(st.integers(0, of_reference)), data.draw(st.integers(0, of_current))
    found = chance.rates((reference, of_reference), (current, of_current))
    assert found == pytest.approx(oracle.rates(reference, of_reference, current, of_current), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(
    ("reference", "of_reference", "current", "of_current"),
    [(10, 1_000_000, 1, 100), (5_000_000, 10_000_000, 5_010_000, 10_000_000), (0, 10**9, 40, 10**9)],
)
def test_rates_of_large_samples_are_tested_exactly(
    reference: int, of_reference: int, current: int, of_current: int
) -> None:
    found = chance.rates((reference, of_reference), (current, of_current))
    assert found == pytest.approx(oracle.rates(reference, of_reference, current, of_current), rel=1e-4)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4))
def test_new_categories_are_never_called_less_likely_than_they_are(pairs: list[tuple[int, int]]) -> None:
    before, after = (list(each) for each in zip(*pairs, strict=True))
    if sum(before) and sum(after):
        found = chance.unseen(np.array(before), np.array(after))
        assert oracle.chance_of_unseen(before, after) <= found * (1 + 1e-9) <= 1 + 1e-9


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=25))
def test_one_category_is_tested_exactly_times_how_many_there_are(pairs: list[tuple[int, int]]) -> None:
    before, after = (list(each) for each in zip(*pairs, strict=True))
    assume(sum(before) and sum(after))
    found = chance.one_category(np.array(before), np.array(after))
    tested = [oracle.rates(b, sum(before), a, sum(after)) for b, a in pairs if a or b]
    exact = min(1.0, min(tested) * len(tested))
    # With more than 20, those that stand out least are left out: then it may be greater.
    assert found >= exact * (1 - 1e-7)
    if len(pairs) <= 20:
        assert found == pytest.approx(exact, rel=1e-7)


def test_a_new_category_with_many_rows_is_no_chance_and_new_rare_ones_are() -> None:
    assert chance.unseen(np.array([500, 480, 0]), np.array([490, 480, 20])) < 1e-5
    rare = np.random.default_rng(3).integers(0, 2, 2_000)
    assert chance.unseen(rare, 1 - rare) > 0.1
    assert chance.unseen(np.array([7, 3]), np.array([2, 0])) == 1


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1)), st.floats(0.001, 0.5))
def test_adjusted_chances_reject_what_holms_procedure_does(chances: dict[str, float], rate: float) -> None:
    adjusted = chance.holm(chances)
    # A product and a quotient may differ in the last bit at the border itself.
    near = {name for name, value in adjusted.items() if math.isclose(value, rate, rel_tol=1e-12)}
    assert {name for name, value in adjusted.items() if value <= rate} - near == oracle.holm(chances, rate) - near


SHAPES = {
    "normal": lambda draw, rows: draw.normal(50, 10, rows),
    "heavy-tailed": lambda draw, rows: draw.pareto(0.8, rows),
    "a rare outlier": lambda draw, rows: np.where(draw.random(rows) < 0.002, 1e6, draw.normal(0, 1, rows)),
    "mostly zero": lambda draw, rows: np.where(draw.random(rows) < 0.95, 0, draw.exponential(1, rows)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("reference", "current"), [(60, 60), (2_000, 100), (100, 2_000)])
def test_distances_that_chance_gives_are_seldom_called_unlikely(shape: str, reference: int, current: int) -> None:
    draw = np.random.default_rng(11)
    unlikely = {"kolmogorov": 0, "transport": 0, "mean": 0}
    for _ in range(150):
        before, after = SHAPES[shape](draw, reference), SHAPES[shape](draw, current)
        both = Cumulative.of(Histogram.of(before), Histogram.of(after), is_integral=False)
        pooled = np.concatenate([before, after])
        shift = float(before.mean() - after.mean())
        spread = (float(pooled.var()), float(np.ptp(pooled)) or 1.0)
        found = {
            "kolmogorov": chance.kolmogorov(both.kolmogorov_smirnov(), (reference, current)),
            "transport": chance.transport(both),
            "mean": chance.mean_shift(shift, *spread, (reference, current)),
        }
        for name, p in found.items():
            unlikely[name] += p <= 0.01
    # Of 150, one and a half are expected at most; more than eight come with a chance below a thousandth of a percent.
    assert max(unlikely.values()) <= 8


def test_a_shift_that_chance_does_not_give_is_unlikely() -> None:
    draw = np.random.default_rng(12)
    before, after = draw.normal(0, 1, 5_000), draw.normal(0.3, 1, 5_000)
    both = Cumulative.of(Histogram.of(before), Histogram.of(after), is_integral=False)
    pooled = np.concatenate([before, after])
    assert chance.transport(both) < 1e-6
    assert chance.mean_shift(0.3, float(pooled.var()), float(np.ptp(pooled)), (5_000, 5_000)) < 1e-6
    assert chance.mean_shift(0.0, 0.0, 0.0, (10, 10)) == 1
