"""The algebra of windowed features: however events are cut and ordered, it says what the plain oracle says."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.kernel.algebra import State, StateLayout, SumOverflow, finalize, merge, prepare
from store.kernel.tiles import TilePlan, window_values
from store.kernel.windows import Function, WindowFeature
from tests.oracles.windows import BeyondInt64, Event, Feature, is_right, value

LONG_US = 10**9
"""A window that holds every event of these tests, at whatever time it ends."""

_SUMS = ("sum", "mean", "std", "var")
_PERCENTILES = ("approx_percentile_0", "approx_percentile_33.3", "approx_percentile_100")
NUMBERS = ("count", *_SUMS, "min", "max", "first", "last", "last_2", "count_distinct", *_PERCENTILES)
OTHERS = ("count", "min", "max", "first", "last", "last_3", "count_distinct")
HARD = [1e16, 1.0, -1e16, 0.1, 0.0, -0.0, 5e-324, 1.7e308, -1.7e308, 1e9, 1e9 + 1, math.inf, -math.inf, math.nan]
NOW_US = 10**15

KINDS: dict[str, tuple[tuple[str, ...], st.SearchStrategy[Any], str]] = {
    "float": (NUMBERS, st.one_of(st.floats(), st.sampled_from(HARD)), "DOUBLE"),
    "whole": (NUMBERS, st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1)), "INT64"),
    "truth": (NUMBERS, st.booleans(), "INT64"),
    "text": (OTHERS, st.sampled_from(["", "a", "b", "ä", "\ud7ff", "𝄞"]), "STRING"),
    "bytes": (OTHERS, st.binary(max_size=2), "BYTES"),
}


@dataclass(frozen=True)
class Case:
    """Events of one key as (event time, created time, value), and where they are cut and how they are ordered."""

    kind: str
    events: tuple[tuple[int, int | None, Any], ...]
    order: tuple[int, ...]
    cuts: tuple[int, ...]

    @property
    def features(self) -> list[WindowFeature]:
        return [feature(name, KINDS[self.kind][2]) for name in KINDS[self.kind][0]]


def feature(name: str, type_name: str = "DOUBLE") -> WindowFeature:
    function = Function.parse(name)
    assert function is not None
    kind = type_name if name == "sum" else "DOUBLE"
    return WindowFeature(name, "x", function, LONG_US, 1_000, kind)


def cases(kind: str) -> st.SearchStrategy[Case]:
    one = st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 2)), st.one_of(st.none(), KINDS[kind][1]))

    def cut(events: list[tuple[int, int | None, Any]]) -> st.SearchStrategy[Case]:
        places = st.lists(st.integers(0, len(events)), max_size=4).map(sorted)
        order = st.permutations(range(len(events)))
        return st.builds(lambda o, c: Case(kind, tuple(events), tuple(o), tuple(c)), order, places)

    return st.lists(one, min_size=1, max_size=10).flatmap(cut)


def prepared(layout: StateLayout, case: Case) -> list[State]:
    return [prepare(layout, [one], event_us, created_us) for event_us, created_us, one in case.events]


def said(layout: StateLayout, state: State, case: Case) -> list[Any]:
    """What a state says of each feature; NaN as such, so that it can be compared."""
    found = []
    for each in case.features:
        try:
            answered = finalize(layout, state, each)
        except SumOverflow:
            answered = "beyond"
        found.append("nan" if isinstance(answered, float) and math.isnan(answered) else answered)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_says_what_the_oracle_says(kind: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(cases(kind))
    def judged(case: Case) -> None:
        layout = StateLayout.of(case.features)
        state = merge(layout, prepared(layout, case))
        events = [Event((1,), event_us, created_us, {"x": one}) for event_us, created_us, one in case.events]
        for each in case.features:
            name = f"{each.function.name}_{each.function.parameter}".removesuffix("_")
            asked = Feature("x", name, LONG_US, 1_000)
            try:
                expected = value(events, 10, asked)
            except BeyondInt64:
                with pytest.raises(SumOverflow):
                    finalize(layout, state, each)
                continue
            assert is_right(finalize(layout, state, each), expected, asked), (name, expected)

    judged()


@pytest.mark.parametrize("kind", KINDS)
def test_merging_neither_depends_on_order_nor_on_where_events_are_cut(kind: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(cases(kind))
    def judged(case: Case) -> None:
        layout = StateLayout.of(case.features)
        whole = merge(layout, prepared(layout, case))
        states = prepared(layout, case)
        shuffled = [states[place] for place in case.order]
        bounds = [0, *case.cuts, len(shuffled)]
        parts = [shuffled[low:high] for low, high in pairwise(bounds) if high > low]
        merged = merge(layout, [merge(layout, part) for part in parts])
        # The states themselves are equal, not only what they say: so are their encoded bytes.
        assert msgspec.msgpack.encode(_sorted(merged)) == msgspec.msgpack.encode(_sorted(whole))
        assert said(layout, merged, case) == said(layout, whole, case)

    judged()


def _sorted(state: Any) -> Any:
    """A state with its counts by bucket in order, which has no meaning."""
    return [sorted(slot.items()) if isinstance(slot, dict) else slot for slot in state]


@pytest.mark.parametrize("kind", KINDS)
def test_one_feature_of_states_is_that_of_all_of_them_merged(kind: str) -> None:
    @settings(max_examples=12, deadline=None)
    @given(cases(kind))
    def judged(case: Case) -> None:
        layout = StateLayout.of(case.features)
        whole = merge(layout, prepared(layout, case))
        entries = [[NOW_US, 0, 0, *state] for state in prepared(layout, case)]
        found = window_values(TilePlan.of(case.features), case.features, entries, NOW_US)
        for each, expected in zip(found, said(layout, whole, case), strict=True):
            assert each.is_overflow == (expected == "beyond")
            assert expected in (each.value, "nan", "beyond")

    judged()


def test_sums_and_variances_lose_nothing() -> None:
    layout = StateLayout.of([feature("sum"), feature("var")])

    def of(values: list[float]) -> State:
        return merge(layout, [prepare(layout, [one], 0, None) for one in values])

    assert finalize(layout, of([1e16, 1.0, -1e16]), feature("sum")) == 1.0
    assert finalize(layout, of([1e9, 1e9 + 1, 1e9 + 2]), feature("var")) == 1.0


def test_a_layout_is_the_same_in_whatever_order_features_come() -> None:
    features = [feature(name) for name in NUMBERS]
    assert StateLayout.of(features) == StateLayout.of(features[::-1])


def test_of_nothing_there_is_a_count_of_none() -> None:
    layout = StateLayout.of([feature("count"), feature("sum")])
    empty = prepare(layout, [None], 0, None)
    for state in (None, empty, merge(layout, [empty, empty])):
        assert finalize(layout, state, feature("count")) == 0
        assert finalize(layout, state, feature("sum")) is None
