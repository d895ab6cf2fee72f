"""A state that events were added to one by one is that of all of them merged."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from store.kernel.algebra import StateLayout, merge, prepare, update
from store.kernel.windows import Function, WindowFeature
from tests.kernel.test_tile_groups import NUMBERS


def layout() -> StateLayout:
    functions = {name: Function.parse(name) for name in NUMBERS}
    return StateLayout.of(
        [
            WindowFeature(f"{column}_{name}", column, function, 3_600_000_000, 300_000_000, "DOUBLE")
            for column in ("x", "y")
            for name, function in functions.items()
            if function is not None
        ]
    )


LAYOUT = layout()
floats = st.one_of(st.none(), st.floats(), st.sampled_from([1e16, 1.0, -1e16, 0.1]))
integers = st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1))
events = st.lists(
    st.tuples(st.tuples(floats, integers), st.integers(0, 3), st.one_of(st.none(), st.integers(0, 2))), min_size=1
)


@given(events)
def test_adding_one_by_one_is_merging_all(given: list[tuple[tuple[Any, ...], int, int | None]]) -> None:
    prepared = [prepare(LAYOUT, *event) for event in given]
    expected = merge(LAYOUT, copy.deepcopy(prepared))
    state = prepare(LAYOUT, *given[0])
    for event in given[1:]:
        update(LAYOUT, state, *event)
    assert repr(state) == repr(expected)
