"""The two approximations: functions of the values alone, as near as promised, the same for arrays and single values."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.kernel.sketches import (
    DISTINCT_HASHES_MAX,
    bucket_of,
    bucket_value,
    buckets_of,
    distinct_count,
    hash_of,
    hashes_of_numbers,
    percentile,
    rank_of,
    smallest,
)

NUMBERS = st.one_of(st.floats(allow_nan=False), st.sampled_from([0.0, -0.0, 5e-324, 1.0, 2.0, 1.7976931348623157e308]))


@given(NUMBERS)
def test_a_bucket_stands_for_all_that_is_in_it(number: float) -> None:
    near = bucket_value(bucket_of(number))
    if math.isinf(number) or number == 0:
        assert near == number
    else:
        # The least doubles lie further apart than one in a hundred.
        assert abs(near - number) <= max(0.01 * abs(number), 5e-324)


@given(NUMBERS, NUMBERS)
def test_buckets_are_in_the_order_of_values(one: float, other: float) -> None:
    if one <= other:
        assert bucket_of(one) <= bucket_of(other)


@given(st.lists(NUMBERS))
def test_buckets_of_an_array_are_those_of_its_values(numbers: list[float]) -> None:
    assert buckets_of(np.array(numbers, dtype=np.float64)).tolist() == [bucket_of(number) for number in numbers]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(NUMBERS))
def test_hashes_of_an_array_are_those_of_its_values(whole: list[int], floats: list[float]) -> None:
    assert hashes_of_numbers(np.array(whole, dtype=np.int64)).tolist() == [hash_of(number) for number in whole]
    assert hashes_of_numbers(np.array(floats, dtype=np.float64)).tolist() == [hash_of(number) for number in floats]


def test_equal_values_of_two_forms_have_one_hash_and_others_do_not() -> None:
    assert hash_of(True) == hash_of(1)
    assert hash_of(0.0) == hash_of(-0.0)
    assert hash_of("a") == hash_of(b"a")
    assert len({hash_of(one) for one in (1, 1.0, "1", 2, -1, "", "ä")}) == 7


@pytest.mark.parametrize(
    ("percent", "count", "rank"),
    [("0", 5, 1), ("50", 5, 3), ("50", 4, 2), ("99.9", 1000, 999), ("99.9", 1001, 1000), ("100", 7, 7), ("10", 1, 1)],
)
def test_a_percentile_has_the_nearest_rank(percent: str, count: int, rank: int) -> None:
    assert rank_of(percent, count) == rank


def test_a_percentile_is_read_from_counts() -> None:
    counts = {bucket_of(1.0): 2, bucket_of(100.0): 1, bucket_of(-5.0): 1}
    assert percentile(counts, "0") == pytest.approx(-5.0, rel=0.01)
    assert percentile(counts, "50") == pytest.approx(1.0, rel=0.01)
    assert percentile(counts, "100") == pytest.approx(100.0, rel=0.01)


def hashes(count: int) -> np.ndarray:
    return hashes_of_numbers(np.arange(count, dtype=np.int64))


@pytest.mark.parametrize("count", [0, 1, 1_000, DISTINCT_HASHES_MAX - 1])
def test_fewer_values_than_are_kept_are_counted_exactly(count: int) -> None:
    assert distinct_count(smallest(hashes(count))) == count


@pytest.mark.parametrize("count", [DISTINCT_HASHES_MAX, DISTINCT_HASHES_MAX + 1, 50_000, 1_000_000])
def test_more_are_estimated_to_a_few_percent(count: int) -> None:
    assert distinct_count(smallest(hashes(count))) == pytest.approx(count, rel=0.04)


def test_the_hashes_that_are_kept_do_not_depend_on_order_or_groups() -> None:
    found = hashes(30_000)
    shuffled = found.copy()
    random.Random(7).shuffle(shuffled)
    parts = np.concatenate([smallest(part) for part in np.array_split(shuffled, 7)])
    assert smallest(parts).tolist() == smallest(found).tolist()
