"""States made from columns are those that the algebra makes of one event after the other."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.kernel.algebra import NO_CREATED, StateLayout, merge, prepare
from store.kernel.tile_groups import EventColumns, states_of
from store.kernel.windows import Function, WindowFeature

NUMBERS = ("count", "sum", "mean", "var", "min", "max", "first", "last_3", "count_distinct", "approx_percentile_90")
OTHERS = ("count", "min", "max", "first", "last_2", "count_distinct")

KINDS = {
    "int": (NUMBERS, st.one_of(st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1)), np.int64),
    "small": (NUMBERS, st.integers(-100, 100), np.int64),
    "bool": (NUMBERS, st.booleans(), np.bool_),
    "float": (NUMBERS, st.one_of(st.floats(), st.sampled_from([1e16, -1e16, 1.0, 0.0, -0.0, 5e-324])), np.float64),
    "quarters": (NUMBERS, st.integers(-40, 40).map(lambda n: n / 4), np.float64),
    "text": (OTHERS, st.sampled_from(["", "a", "b", "ä", "z" * 9]), object),
    "bytes": (OTHERS, st.sampled_from([b"", b"a", b"\xff"]), object),
}


def layout_of(functions: tuple[str, ...]) -> StateLayout:
    features = []
    for name in functions:
        function = Function.parse(name)
        assert function is not None
        features.append(WindowFeature(name, "x", function, 3_600_000_000, 300_000_000, "DOUBLE"))
    return StateLayout.of(features)


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_columns_and_single_events_make_the_same_states(kind: str, data: st.DataObject) -> None:
    functions, values, dtype = KINDS[kind]
    layout = layout_of(functions)
    event = st.tuples(
        st.integers(0, 3),
        st.integers(0, 4),
        st.one_of(st.just(NO_CREATED), st.integers(0, 2)),
        st.one_of(st.none(), values),
    )
    events: list[tuple[int, int, int, Any]] = sorted(data.draw(st.lists(event, min_size=1)), key=lambda e: e[0])
    tiles = np.unique([tile for tile, *_ in events], return_inverse=True)[1].astype(np.int64)
    filler: Any = "" if kind == "text" else b"" if kind == "bytes" else 0
    column = np.empty(len(events), dtype=dtype)
    column[:] = [filler if value is None else value for *_, value in events]
    found = states_of(
        layout,
        EventColumns(
            tiles=tiles,
            event_us=np.array([e for _, e, _, _ in events], dtype=np.int64),
            created_us=np.array([c for _, _, c, _ in events], dtype=np.int64),
            values=[column],
            is_valid=[np.array([value is not None for *_, value in events])],
        ),
    )
    wanted = []
    for tile in range(tiles.max() + 1):
        of_tile = [event for event, number in zip(events, tiles, strict=True) if number == tile]
        wanted.append(
            merge(layout, [prepare(layout, [v], e, None if c == NO_CREATED else c) for _, e, c, v in of_tile])
        )
    assert [_said(state) for state in found] == [_said(state) for state in wanted]


def _said(state: list[Any]) -> str:
    """Returns a state so that 1 and True, and 0.0 and -0.0, are told apart."""
    return repr([_ordered(slot) for slot in state])


def _ordered(slot: Any) -> Any:
    return sorted(slot.items()) if isinstance(slot, dict) else slot


def test_sums_beyond_every_word_are_exact() -> None:
    layout = layout_of(("sum", "var"))
    values = np.array([1e308, 1e308, -1e308, 1e-308, 2.0**-1074])
    found = states_of(
        layout,
        EventColumns(
            np.zeros(5, dtype=np.int64),
            np.zeros(5, dtype=np.int64),
            np.full(5, NO_CREATED),
            [values],
            [np.ones(5, dtype=bool)],
        ),
    )
    assert found == [merge(layout, [prepare(layout, [float(v)], 0, None) for v in values])]
    assert math.isfinite(found[0][1])
