"""Distances: SciPy's on the same samples, rounded to their buckets; zero for equal ones, and the same either way."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.kernel.drift_bins import Bins
from store.kernel.drift_distances import Cumulative, jensen_shannon, psi
from store.kernel.histograms import BUCKET_MAX, Histogram, bucket_of
from tests.oracles import drift as oracle

ORDINARY = st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-12)
SAMPLES = st.lists(st.one_of(ORDINARY, st.integers(-3, 3).map(float)), min_size=2, max_size=40)
COUNTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12).filter(
    lambda pairs: sum(a for a, _ in pairs) > 0 and sum(b for _, b in pairs) > 0
)


def histogram(values: Sequence[float]) -> Histogram:
    return Histogram.of(np.array(values, np.float64))


def cumulative(reference: Sequence[float], current: Sequence[float]) -> Cumulative:
    return Cumulative.of(histogram(reference), histogram(current), is_integral=False)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    before, after = zip(*pairs, strict=True)
    return np.array(before, np.int64), np.array(after, np.int64)


@settings(max_examples=50)
@given(SAMPLES, SAMPLES)
def test_distances_of_numbers_are_those_of_the_rounded_samples(reference: list[float], current: list[float]) -> None:
    before, after = ([oracle.rounded(each) for each in sample] for sample in (reference, current))
    found = cumulative(reference, current)
    assert found.kolmogorov_smirnov() == pytest.approx(oracle.kolmogorov_smirnov(before, after), abs=1e-9)
    if len(set(before)) > 1 and np.std(before) > 1e-9 * max(map(abs, before)):
        expected = oracle.wasserstein(before, after)
        assert found.wasserstein() / found.spread() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_distances_of_ordinary_samples_equal_scipys_to_a_billionth() -> None:
    draw = np.random.default_rng(5)
    for reference, current in [
        (draw.normal(50, 10, 5_000), draw.normal(52, 13, 700)),
        (draw.lognormal(0, 2, 3_000), draw.lognormal(0.1, 2, 3_000)),
        (draw.poisson(3, 400).astype(float), draw.poisson(4, 4_000).astype(float)),
        (-draw.exponential(3, 999), draw.standard_cauchy(998)),
    ]:
        before, after = ([oracle.rounded(each) for each in sample.tolist()] for sample in (reference, current))
        found = cumulative(reference.tolist(), current.tolist())
        assert found.kolmogorov_smirnov() == pytest.approx(oracle.kolmogorov_smirnov(before, after), abs=1e-9)
        assert found.wasserstein() / found.spread() == pytest.approx(oracle.wasserstein(before, after), rel=1e-9)


@settings(max_examples=50)
@given(SAMPLES, SAMPLES)
def test_rounding_lowers_kolmogorov_smirnov_by_no_more_than_a_bucket_holds(
    reference: list[float], current: list[float]
) -> None:
    raw, found = oracle.kolmogorov_smirnov(reference, current), cumulative(reference, current).kolmogorov_smirnov()
    most = max(max(histogram(each).counts) / len(each) for each in (reference, current))
    assert raw - most - 1e-9 <= found <= raw + 1e-9


@given(COUNTS)
def test_distances_of_counts_are_scipys(pairs: list[tuple[int, int]]) -> None:
    before, after = columns(pairs)
    assert psi(before, after) == pytest.approx(oracle.psi(before.tolist(), after.tolist()), abs=1e-9)
    # The root magnifies rounding near zero, so squares are compared: the divergences.
    expected = oracle.jensen_shannon(before.tolist(), after.tolist())
    assert jensen_shannon(before, after) ** 2 == pytest.approx(expected**2, abs=1e-9)
    if before.all() and after.all():
        assert psi(before, after) == pytest.approx(oracle.psi_of_divergences(before.tolist(), after.tolist()), abs=1e-9)


@given(COUNTS, st.randoms(use_true_random=False))
def test_counts_have_the_same_distance_either_way_in_any_order_and_none_from_themselves(
    pairs: list[tuple[int, int]], order: random.Random
) -> None:
    before, after = columns(pairs)
    shuffled = pairs.copy()
    order.shuffle(shuffled)
    for measure in (psi, jensen_shannon):
        found = measure(before, after)
        assert 0 <= found < math.inf
        assert measure(after, before) == pytest.approx(found, abs=1e-12)
        assert measure(*columns(shuffled)) ** 2 == pytest.approx(found**2, abs=1e-12)
        assert measure(before, before) == measure(after, after) == 0
    assert jensen_shannon(before, after) <= 1


@settings(max_examples=50)
@given(SAMPLES, SAMPLES)
def test_samples_have_the_same_distance_either_way_in_any_order_and_none_from_themselves(
    reference: list[float], current: list[float]
) -> None:
    found, back = cumulative(reference, current), cumulative(current, reference)
    turned = cumulative(reference[::-1], sorted(current))
    assert found.kolmogorov_smirnov() == back.kolmogorov_smirnov() == turned.kolmogorov_smirnov()
    assert found.wasserstein() == back.wasserstein() == turned.wasserstein()
    same = cumulative(reference, reference)
    assert same.kolmogorov_smirnov() == same.wasserstein() == 0


def test_an_empty_cell_counts_as_half_a_row() -> None:
    before, after = np.array([100, 0]), np.array([50, 50])
    expected = (0.5 - 1) * math.log(0.5 / 1) + (0.5 - 0.005) * math.log(0.5 / 0.005)
    assert psi(before, after) == pytest.approx(expected)


def test_the_greatest_doubles_have_a_finite_distance() -> None:
    most = np.finfo(np.float64).max
    found = cumulative([-most, most], [most, most])
    assert found.wasserstein() / found.spread() == pytest.approx(1.0)
    least = cumulative([5e-324, 5e-309], [5e-309, 5e-309])
    assert least.wasserstein() / least.spread() == pytest.approx(1.0)


@settings(max_examples=50)
@given(SAMPLES, st.integers(2, 20), ORDINARY)
def test_every_number_lies_in_one_bin_and_only_heavy_ones_fill_more_than_their_share(
    values: list[float], number: int, other: float
) -> None:
    found = histogram(values)
    bins = Bins.of_equal_mass(found, number)
    counts = bins.counts(found)
    assert counts.sum() == len(values)
    assert bins.counts(histogram([other])).sum() == 1
    low, high = bins.edges
    place = int(np.flatnonzero(bins.counts(histogram([other])))[0])
    assert low[place] <= other <= high[place]
    ends = [*bins.starts[1:].tolist(), BUCKET_MAX + 1]
    for count, start, end in zip(counts.tolist(), bins.starts.tolist(), ends, strict=True):
        # Two shares at most: the bucket that begins a bin and the one that ends it may each lie half in another.
        assert count * number < 3 * len(values) or end - start == 1


@settings(max_examples=50)
@given(SAMPLES.filter(lambda values: len(values) >= 4))
def test_a_heavy_value_is_a_bin_of_its_own(values: list[float]) -> None:
    heavy = values[0]
    crowded = [*values, *[heavy] * len(values)]
    bins = Bins.of_equal_mass(histogram(crowded), 20)
    assert bucket_of(heavy) in bins.starts
    assert bucket_of(heavy) + 1 in bins.starts or bucket_of(heavy) == BUCKET_MAX


def test_a_constant_that_becomes_another_has_moved_all_the_way() -> None:
    bins = Bins.of_equal_mass(histogram([5.0] * 100), 20)
    before, after = bins.counts(histogram([5.0] * 100)), bins.counts(histogram([7.0] * 100))
    assert jensen_shannon(before, after) == pytest.approx(1.0)


def test_zero_is_a_bin_of_its_own_from_one_in_a_hundred() -> None:
    draw = np.random.default_rng(1)
    for zeros, is_apart in ((15, True), (5, False)):
        values = [*draw.uniform(-1, 1, 1_000).tolist(), *[0.0] * zeros]
        starts = Bins.of_equal_mass(histogram(values), 20).starts
        assert (0 in starts and 1 in starts) is is_apart


def test_ordinary_numbers_fall_into_bins_of_equal_mass() -> None:
    found = Histogram.of(np.random.default_rng(2).normal(0, 1, 100_000))
    counts = Bins.of_equal_mass(found, 20).counts(found)
    assert len(counts) == 20
    assert counts.min() > 4_000
    assert counts.max() < 6_000


def test_no_numbers_have_one_bin() -> None:
    assert Bins.of_equal_mass(Histogram.empty(), 20).counts(histogram([1.0, -1.0])).tolist() == [2]
