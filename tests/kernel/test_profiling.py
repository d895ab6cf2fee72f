"""Sums of numbers, texts and instants: what slow models say, in whatever batches the values come."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import datasketches
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.kernel.histograms import buckets_of
from store.kernel.profiles import Categories, Moments, Numbers
from store.kernel.profiling import CategorySum, MomentSum, NumberSum, Texts, category_of
from store.kernel.profiling_loops import hash_of_word
from store.limits import CATEGORIES_MAX, CATEGORY_CHARACTERS_MAX, CATEGORY_GROUPS, TOP_MAX
from tests.oracles import profiles as oracle

INT64_MIN, INT64_MAX, UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1
FLOATS = st.floats() | st.integers(-200, 200).map(lambda n: n / 2) | st.sampled_from([0.0, -0.0, math.inf, -math.inf])
TAME = st.floats(-1e100, 1e100, allow_subnormal=False) | st.integers(-10, 10).map(float)
INT64 = st.integers(INT64_MIN, INT64_MAX) | st.integers(-5, 5)
UINT64 = st.integers(0, UINT64_MAX) | st.integers(0, 5)


def summed(parts: Sequence[Sequence[Any]], dtype: Any) -> NumberSum:
    found = NumberSum()
    for part in parts:
        values = np.array(part, dtype)
        (found.add_floats if values.dtype.kind == "f" else found.add_integers)(values)
    return found


def split(values: Sequence[Any], chance: random.Random) -> list[Sequence[Any]]:
    cuts = sorted(chance.randint(0, len(values)) for _ in range(chance.randint(0, 3)))
    edges = [0, *cuts, len(values)]
    return [values[begin:end] for begin, end in pairwise(edges)]


def check(found: Numbers, sketch: bytes, values: Sequence[Any]) -> None:
    """Everything that is exact is as the model says; means and deviations are checked apart."""
    expected = oracle.numbers(values)
    buckets = dict(zip(found.histogram.numbers.tolist(), found.histogram.counts.tolist(), strict=True))
    assert buckets == expected.buckets
    assert (found.least, found.greatest) == (expected.least, expected.greatest)
    assert type(found.least) is type(expected.least)
    assert (found.nans, found.positive_infinities, found.negative_infinities) == (
        expected.nans,
        expected.positive,
        expected.negative,
    )
    assert found.is_integral == expected.is_integral
    assert sketch == expected.sketch


def check_moments(found: Numbers, values: Sequence[Any]) -> None:
    """Mean and standard deviation are right to nine digits of the numbers' size."""
    finite = [Fraction(value) for value in values if math.isfinite(value)]
    expected = oracle.numbers(values)
    if not finite:
        assert found.standard_deviation is None
        return
    assert expected.mean is not None
    assert expected.squares is not None
    size = float(max(abs(each) for each in finite))
    assert math.isclose(found.mean, float(expected.mean), rel_tol=1e-9, abs_tol=1e-12 * size)
    if len(finite) > 1:
        exact = math.sqrt(expected.squares / (len(finite) - 1))
        deviation = found.standard_deviation
        assert deviation is not None or exact < 1e-130
        assert deviation is None or math.isclose(deviation, exact, rel_tol=1e-9, abs_tol=1e-9 * size)


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "dtype"), [(FLOATS, np.float64), (INT64, np.int64), (UINT64, np.uint64)])
def test_numbers_are_summed_up_whatever_the_batches(kind: Any, dtype: Any) -> None:
    @given(st.lists(kind, max_size=60), st.randoms(use_true_random=False))
    def agrees(values: list[Any], chance: random.Random) -> None:
        found = summed(split(values, chance), dtype)
        check(found.numbers(), found.sketch(), values)
        several = [summed([part], dtype) for part in split(values, chance)]
        chance.shuffle(several)
        whole, *others = several
        for each in others:
            whole.merge(each)
        check(whole.numbers(), whole.sketch(), values)
        if dtype != np.float64:
            check_moments(found.numbers(), values)
            check_moments(whole.numbers(), values)

    agrees()


@given(st.lists(TAME, max_size=60), st.randoms(use_true_random=False))
def test_means_and_deviations_are_right_and_merge(values: list[float], chance: random.Random) -> None:
    check_moments(summed(split(values, chance), np.float64).numbers(), values)
    kept = [summed([part], np.float64).numbers() for part in split(values, chance)]
    whole, *others = kept
    for each in others:
        whole = whole.merge(each)
    check_moments(whole, values)


def test_the_deviation_is_right_far_from_zero() -> None:
    values = np.random.default_rng(1).normal(1e9, 1.0, 10_000)
    parts = np.array_split(values, 7)
    exact = oracle.numbers(values.tolist())
    assert exact.squares is not None
    expected = math.sqrt(exact.squares / (len(values) - 1))
    whole, *others = (summed([part], np.float64).numbers() for part in parts)
    for each in others:
        whole = whole.merge(each)
    for found in (summed(parts, np.float64).numbers(), whole):
        assert found.standard_deviation == pytest.approx(expected, rel=1e-8)


def test_the_deviation_of_great_integers_is_right() -> None:
    values = [2**62 + step for step in (0, 1, 2, 3, 4)]
    one, other = summed([values[:3]], np.int64), summed([values[3:]], np.int64)
    one.merge(other)
    for found in (one.numbers(), summed([values], np.int64).numbers()):
        assert found.standard_deviation == pytest.approx(math.sqrt(2.5), rel=1e-15)


EDGES: dict[str, list[float]] = {
    "nothing": [],
    "nothing but NaN": [math.nan] * 3,
    "nothing but infinities": [math.inf, -math.inf, math.inf],
    "one": [1.5],
    "a constant": [0.1] * 1_000,
    "both zeros": [0.0, -0.0],
    "the greatest": [1.7e308, 1.7976931348623157e308, -1.7e308],
    "the least": [5e-324, -5e-324, 2.2250738585072014e-308],
    "infinity before a number": [math.inf, 3.0, 5.0],
}


@pytest.mark.parametrize("name", EDGES)
def test_unusual_numbers_are_told_rightly(name: str) -> None:
    values = EDGES[name]
    found = summed([values], np.float64)
    check(found.numbers(), found.sketch(), values)
    expected = oracle.numbers(values)
    if expected.mean is not None:
        assert found.numbers().mean == pytest.approx(float(expected.mean), rel=1e-12)


def test_deviations_that_no_double_can_tell_are_unknown_and_not_wrong() -> None:
    for values in ([1e200, -1e200, 3e200], [1e-200, 2e-200, 4e-200]):
        one, other = summed([values[:1]], np.float64).numbers(), summed([values[1:]], np.float64).numbers()
        assert summed([values], np.float64).numbers().standard_deviation is None
        assert one.merge(other).standard_deviation is None
        assert one.merge(other).mean == pytest.approx(sum(values) / 3, rel=1e-12)
    empty = summed([], np.float64).numbers()
    huge = summed([[1.7e308, -1.7e308]], np.float64).numbers()
    assert empty.merge(huge).mean == huge.merge(empty).mean == 0.0


def test_a_constant_has_no_deviation_however_it_was_merged() -> None:
    whole = summed([[0.1] * 7], np.float64).numbers()
    for size in (3, 11):
        whole = whole.merge(summed([[0.1] * size], np.float64).numbers())
    assert (whole.standard_deviation, whole.finite) == (0.0, 21)


def test_integers_at_the_ends_of_their_types_are_exact() -> None:
    signed = summed([[INT64_MIN, INT64_MAX, 0]], np.int64).numbers()
    assert (signed.least, signed.greatest) == (INT64_MIN, INT64_MAX)
    unsigned = summed([[UINT64_MAX], [2**63, 0]], np.uint64).numbers()
    assert (unsigned.least, unsigned.greatest) == (0, UINT64_MAX)
    assert unsigned.quantile(1.0) == UINT64_MAX


# --- distinct values ----------------------------------------------------------------------------


DISTINCT: dict[str, Callable[[np.random.Generator], Any]] = {
    "floats": lambda chance: chance.normal(size=20_000),
    "integers": lambda chance: chance.integers(-(10**12), 10**12, 20_000),
    "few": lambda chance: chance.integers(0, 50, 20_000),
    "just what is kept": lambda chance: chance.permutation(np.repeat(np.arange(4_096), 3)),
    "one more": lambda chance: chance.permutation(np.repeat(np.arange(4_097), 3)),
    "beyond doubles": lambda chance: 2**53 + chance.integers(-3_000, 3_000, 20_000),
    "halves": lambda chance: chance.integers(0, 9_000, 20_000) / 2,
}


@pytest.mark.parametrize("name", DISTINCT)
def test_the_sketch_is_that_of_feeding_every_value(name: str) -> None:
    values = DISTINCT[name](np.random.default_rng(2))
    expected = oracle.sketch_of([oracle.hashed(value) for value in values.tolist()])
    parts = np.array_split(values, 5)
    assert summed(parts, values.dtype).sketch() == expected
    one, other = summed(parts[:2], values.dtype), summed(parts[2:], values.dtype)
    one.merge(other)
    assert one.sketch() == expected


def test_hashes_are_those_of_the_library() -> None:
    for value in (0, 1, -1, INT64_MIN, INT64_MAX, 10**15):
        sketch = datasketches.update_theta_sketch(12)
        sketch.update(value)
        assert int(hash_of_word(value)) == int.from_bytes(sketch.compact().serialize()[-8:], "little")


# --- texts --------------------------------------------------------------------------------------


def texts_of(values: Sequence[str]) -> Texts:
    encoded = [value.encode() for value in values]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    return Texts(offsets, np.frombuffer(b"".join(encoded), np.uint8))


def counted(parts: Sequence[Sequence[str]]) -> CategorySum:
    found = CategorySum()
    for part in parts:
        tally = Counter(part)
        found.add(texts_of([*tally]), np.array([*tally.values()], np.int64))
    return found


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["", "a", "b", "\0", "é" * 150]
)


@given(st.lists(TEXTS, max_size=50), st.randoms(use_true_random=False))
def test_texts_are_counted_whatever_the_batches(values: list[str], chance: random.Random) -> None:
    several = [counted([part]) for part in split(values, chance)]
    chance.shuffle(several)
    whole, *others = several
    for each in others:
        whole.merge(each)
    for found in (whole, counted(split(values, chance))):
        assert found.categories() == Categories(dict(Counter(values)))
        assert found.sketch() == oracle.sketch_of([value or 0 for value in values])


@given(st.lists(TEXTS, min_size=1, max_size=20, unique=True))
def test_texts_of_any_length_have_the_groups_and_hashes_that_python_gives_them(values: list[str]) -> None:
    found = counted([values])
    found.give_up()
    again = counted([])
    again.give_up()
    again.add(texts_of(values), np.ones(len(values), np.int64))
    expected = oracle.groups(Counter(category_of(value) for value in values))
    assert found.categories().grouped().tolist() == again.categories().grouped().tolist() == expected


@pytest.mark.parametrize("number", [CATEGORIES_MAX - 1, CATEGORIES_MAX])
def test_more_texts_than_are_counted_each_become_groups(number: int) -> None:
    values = [f"text {each}" for each in range(number)] + ["often"] * 500 + ["text 7"] * 300
    random.Random(3).shuffle(values)
    tally = Counter(values)
    parts = [values[begin : begin + 3_000] for begin in range(0, len(values), 3_000)]
    one, other = counted(parts[:3]), counted(parts[3:])
    one.merge(other)
    for found in (counted([values]), counted(parts), one):
        categories = found.categories()
        assert (categories.counts is not None) == (number < CATEGORIES_MAX)
        assert categories.grouped().tolist() == oracle.groups(tally)
        assert found.sketch() == oracle.sketch_of([*tally])
        top = categories.most_frequent(TOP_MAX)
        assert [text for text, _ in top][:2] == ["often", "text 7"]
        assert all(0 < count <= tally[text] for text, count in top)
        assert tally["often"] - top[0][1] <= len(values) / 1_000


@pytest.mark.parametrize("order", [1, -1])
def test_groups_merge_with_complete_counts(order: int) -> None:
    many = [f"text {each}" for each in range(CATEGORIES_MAX + 5)]
    sums = [counted([many]), counted([["a", "a", "text 1"]])][::order]
    sums[0].merge(sums[1])
    assert sums[0].categories().grouped().tolist() == oracle.groups(Counter([*many, "a", "a", "text 1"]))


@given(st.lists(TEXTS, max_size=30), st.lists(TEXTS, max_size=30))
def test_categories_that_were_kept_add_up(mine: list[str], theirs: list[str]) -> None:
    one, other = counted([mine]).categories(), counted([theirs]).categories()
    assert one.merge(other) == other.merge(one) == counted([mine, theirs]).categories()


def test_categories_of_long_texts_are_short_and_told_apart() -> None:
    long = "ä" * CATEGORY_CHARACTERS_MAX
    assert category_of(long) == long
    one, other = category_of(long + "1"), category_of(long + "2")
    assert one != other
    assert len(one) == len(other) == CATEGORY_CHARACTERS_MAX
    assert one.startswith("ääää")
    assert counted([[long + "1", long + "1", long + "2"]]).categories().counts == {one: 2, other: 1}


def test_truths_and_bytes_are_categories_as_people_write_them() -> None:
    assert [category_of(value) for value in (True, False, b"\x00\xff", "x")] == ["true", "false", "00ff", "x"]


# --- instants -----------------------------------------------------------------------------------


@given(st.lists(INT64, max_size=40), st.randoms(use_true_random=False))
def test_instants_have_a_first_a_last_and_a_number(values: list[int], chance: random.Random) -> None:
    several = []
    for part in split(values, chance):
        found = MomentSum()
        found.add(np.array(part, np.int64))
        several.append(found)
    whole, *others = several
    for each in others:
        whole.merge(each)
    assert whole.moments == (Moments(min(values), max(values)) if values else None)
    assert whole.sketch() == oracle.sketch_of(values)


def test_buckets_of_the_loops_are_those_of_histograms() -> None:
    values = np.random.default_rng(4).standard_cauchy(20_000)
    found = summed([values], np.float64).numbers().histogram
    numbers, counts = np.unique(buckets_of(values), return_counts=True)
    assert found.numbers.tolist() == numbers.tolist()
    assert found.counts.tolist() == counts.tolist()
    assert CATEGORY_GROUPS == oracle.GROUPS
