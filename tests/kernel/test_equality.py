"""When two values count as the same."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.audit.columns import equal_values
from store.kernel.definitions import Column
from store.kernel.equality import FLOAT_TOLERANCE, are_equal


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        (1, 1, True),
        (2**53, 2**53 + 1, False),
        (1, True, False),
        (1, 1.0, False),
        (None, None, True),
        (None, 0, False),
        ("a", "a", True),
        ("a", "a ", False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (math.inf, 1e308, False),
        (0.0, FLOAT_TOLERANCE, True),
        (0.0, FLOAT_TOLERANCE * 1.001, False),
        (1e12, 1e12 + 999, True),
        (1e12, 1e12 + 1_001, False),
        ([1.0, math.nan], [1.0 + 1e-10, math.nan], True),
        ([1.0], [1.0, 1.0], False),
        ([], None, False),
        (b"\x00", b"\x00", True),
    ],
)
def test_values_are_equal_or_not(left: Any, right: Any, is_same: bool) -> None:
    assert are_equal(left, right) is is_same
    assert are_equal(right, left) is is_same


floats = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1e-9, 1.0, 1.0 + 1e-9, 1e300, 1.7e308])
integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53, 2**53 + 1])


@given(st.lists(st.tuples(floats | st.none(), floats | st.none()), max_size=20))
def test_columns_of_floats_are_compared_as_their_values_are(pairs: list[tuple[float | None, float | None]]) -> None:
    check("DOUBLE", pa.float64(), pairs)


@given(st.lists(st.tuples(integers | st.none(), integers | st.none()), max_size=20))
def test_columns_of_integers_are_compared_as_their_values_are(pairs: list[tuple[int | None, int | None]]) -> None:
    check("INT64", pa.int64(), pairs)


@given(st.lists(st.tuples(*[st.lists(floats, max_size=3) | st.none()] * 2), max_size=8))
def test_columns_of_lists_are_compared_as_their_values_are(pairs: list[Any]) -> None:
    check("DOUBLE_LIST", pa.list_(pa.float64()), pairs)


def check(type_name: str, kind: pa.DataType, pairs: list[Any]) -> None:
    left, right = (pa.chunked_array([[pair[side] for pair in pairs]], kind) for side in (0, 1))
    found = equal_values(Column("f", type_name), left, right)
    assert found.dtype == np.bool_
    assert found.tolist() == [are_equal(*pair) for pair in pairs]


def test_a_feature_that_is_gone_equals_only_nulls() -> None:
    served = pa.chunked_array([[1, None]], pa.int64())
    assert equal_values(Column("f", "INT64"), served, None).tolist() == [False, True]


def test_what_does_not_fit_the_type_that_was_served_is_another_value() -> None:
    served, today = pa.chunked_array([[1, None]], pa.int64()), pa.chunked_array([["one", None]])
    assert equal_values(Column("f", "INT64"), served, today).tolist() == [False, True]
