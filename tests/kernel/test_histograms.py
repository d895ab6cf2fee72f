"""Histograms: every number in one bucket, buckets in order, sums of histograms the histogram of all."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.kernel.histograms import BUCKET_MAX, Histogram, bucket_of, buckets_of, high_edges, low_edges, middles

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def edges_of(number: int) -> tuple[float, float, float]:
    one = np.array([number], np.int32)
    return float(low_edges(one)[0]), float(middles(one)[0]), float(high_edges(one)[0])


@given(FINITE)
def test_a_number_lies_in_its_bucket_whose_middle_is_within_a_hundredth(value: float) -> None:
    number = bucket_of(value)
    low, middle, high = edges_of(number)
    if value > 0:
        assert low <= value < high or (value == high and number == BUCKET_MAX)
    elif value < 0:
        assert low < value <= high or (value == low and number == -BUCKET_MAX)
    else:
        assert low == middle == high == 0.0
    if abs(value) > 1e-300:
        assert math.isclose(middle, value, rel_tol=0.0079)


@given(st.lists(FINITE))
def test_arrays_and_single_numbers_agree_and_keep_their_order(values: list[float]) -> None:
    ordered = sorted(values)
    numbers = buckets_of(np.array(ordered, np.float64)).tolist()
    assert numbers == [bucket_of(value) for value in ordered] == sorted(numbers)


@given(st.lists(FINITE), st.lists(FINITE))
def test_two_histograms_add_up_to_that_of_all(mine: list[float], theirs: list[float]) -> None:
    one, other = Histogram.of(np.array(mine, np.float64)), Histogram.of(np.array(theirs, np.float64))
    assert one.merge(other) == other.merge(one) == Histogram.of(np.array(mine + theirs, np.float64))


@given(st.lists(st.integers(-128, 128), min_size=1), st.floats(0, 1))
def test_quantiles_of_small_integers_are_exact(values: list[int], share: float) -> None:
    found = Histogram.of(np.array(values, np.float64)).quantile(share, is_integral=True)
    assert found == sorted(values)[max(1, math.ceil(share * len(values))) - 1]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_no_numbers_have_no_quantile(share: float) -> None:
    assert Histogram.empty().quantile(share) is None
