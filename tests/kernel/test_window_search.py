"""Windowed features found by the loops, judged by the plain oracle and by the algebra."""

import math
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.kernel import window_search
from store.kernel.algebra import StateLayout, SumOverflow, finalize, merge, prepare
from store.kernel.as_of import AskedRows
from store.kernel.instants import NO_TIME_US, Instants
from store.kernel.sketches import hash_of
from store.kernel.window_events import EventChunk, Events, Form, InputColumn, ordered_hashes
from store.kernel.window_search import AskedWindows, WindowSearch
from store.kernel.windows import Function, WindowFeature
from tests.oracles import windows as oracle

_SUMS = ("sum", "mean", "std", "var")
_PERCENTILES = ("approx_percentile_0", "approx_percentile_50", "approx_percentile_99.5")
NUMBERS = ("count", *_SUMS, "min", "max", "first", "last", "last_1", "last_3", "count_distinct", *_PERCENTILES)
OTHERS = ("count", "min", "max", "first", "last", "last_2", "count_distinct")
FLOATS = st.one_of(
    st.floats(),
    st.sampled_from([1e16, 1.0, -1e16, 0.0, -0.0, 5e-324, -5e-324, 1.7e308, 1e9 + 0.25, 1e9, math.inf, -math.inf]),
    st.integers(-4, 4).map(lambda n: n / 4),
)
WHOLE = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**62, -(2**62), -(2**63)]))
UNSIGNED = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
TEXTS = st.sampled_from(["", "a", "b", "ä", "zz"])
KINDS = {
    "float": (Form.FLOAT, NUMBERS, FLOATS),
    "whole": (Form.SIGNED, NUMBERS, WHOLE),
    "unsigned": (Form.UNSIGNED, NUMBERS, UNSIGNED),
    "text": (Form.CODED, OTHERS, TEXTS),
}
SHAPES = ((10, 3), (20, 5), (100, 10), (7, 1))
"""Windows and hops, in microseconds: small ones, so that events lie on their bounds."""


@dataclass(frozen=True)
class Case:
    """One search: events with times in thousandths of microseconds, entity rows, and how both are cut."""

    kind: str
    shapes: tuple[tuple[int, int], ...]
    events: tuple[tuple[int, int, int | None, Any], ...]
    rows: tuple[tuple[int, int], ...]
    has_created: bool
    has_cutoff: bool
    is_ns: bool
    chunk_rows: int
    groups: int

    @property
    def features(self) -> list[WindowFeature]:
        names = KINDS[self.kind][1]
        found = [feature(name, *shape) for shape in self.shapes for name in names]
        if self.kind in ("whole", "unsigned"):
            # Of integers a sum may be declared as one too.
            found += [feature("sum", *shape, type_name="INT64") for shape in self.shapes]
        return found


def feature(name: str, window: int, hop: int, column: str = "x", type_name: str = "") -> WindowFeature:
    function = Function.parse(name)
    assert function is not None
    return WindowFeature(f"{name}_{window}", column, function, window, hop, type_name or "DOUBLE")


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    is_ns = draw(st.booleans())
    instants = st.one_of(st.integers(-40, 160), st.integers(0, 20)).map(lambda us: us * 1_000)
    if is_ns:
        instants = st.builds(lambda us, left: us + left, instants, st.sampled_from([0, 0, 1, 500, 999]))
    value = st.one_of(st.none(), *([KINDS[kind][2]] * 4))
    created = st.one_of(st.none(), instants)
    one = st.tuples(st.integers(0, 3), instants, created, value)
    events = draw(st.lists(one, max_size=25))
    if draw(st.booleans()):
        events = sorted(events, key=lambda event: event[1])
    return Case(
        kind=kind,
        shapes=tuple(draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=2, unique=True))),
        events=tuple(events),
        rows=tuple(draw(st.lists(st.tuples(st.integers(0, 3), instants), min_size=1, max_size=7))),
        has_created=draw(st.booleans()),
        has_cutoff=draw(st.booleans()),
        is_ns=is_ns,
        chunk_rows=draw(st.sampled_from([1, 3, 100])),
        groups=draw(st.sampled_from([1, 2, 64])),
    )


def instants(thousandths: list[int | None], is_ns: bool) -> Instants:
    us = np.array([NO_TIME_US if n is None else n // 1_000 for n in thousandths], dtype=np.int64)
    return Instants(us, np.array([(n or 0) % 1_000 for n in thousandths], dtype=np.int64) if is_ns else None)


class Coded:
    """Values as the integers that stand for them, and back."""

    def __init__(self, form: Form, values: list[Any]) -> None:
        self.form = form
        self.texts = list(dict.fromkeys(value for value in values if isinstance(value, str)))

    def integer(self, value: Any) -> int:
        if value is None:
            return 0
        if self.form is Form.FLOAT:
            return int(np.float64(value + 0.0).view(np.int64))
        if self.form is Form.UNSIGNED:
            return int(np.uint64(value).view(np.int64))
        return self.texts.index(value) if self.form is Form.CODED else value

    def value(self, integer: int) -> Any:
        if self.form is Form.FLOAT:
            return float(np.int64(integer).view(np.float64))
        if self.form is Form.UNSIGNED:
            return int(np.int64(integer).view(np.uint64))
        return self.texts[integer] if self.form is Form.CODED else int(integer)

    def column(self) -> InputColumn:
        if self.form is not Form.CODED:
            return InputColumn("x", self.form)
        ranks = np.array([sorted(self.texts).index(text) for text in self.texts], dtype=np.int64)
        hashes = np.array([hash_of(text) for text in self.texts], dtype=np.uint64)
        return InputColumn("x", Form.CODED, ranks, ordered_hashes(hashes))


def found(case: Case, features: list[WindowFeature]) -> list[list[Any]]:
    """Returns for each feature its values by entity row; an overflow is one as such."""
    form = KINDS[case.kind][0]
    coded = Coded(form, [event[3] for event in case.events])
    times = instants([time for _, time in case.rows], case.is_ns)
    rows = AskedRows.of(np.array([code for code, _ in case.rows], dtype=np.int64), times)
    with mock.patch.object(window_search, "GROUPS_MAX", case.groups):
        search = WindowSearch(
            AskedWindows(rows, tuple(features), case.is_ns, case.has_cutoff, case.has_created or case.has_cutoff)
        )
    kept: list[list[Events]] = [[] for _ in range(search.group_count)]
    for start in range(0, len(case.events), case.chunk_rows):
        some = case.events[start : start + case.chunk_rows]
        is_counted = np.array([oracle._has_value(value) for _, _, _, value in some])
        chunk = EventChunk(
            np.array([code for code, _, _, _ in some], dtype=np.int64),
            instants([event for _, event, _, _ in some], case.is_ns),
            instants([created for _, _, created, _ in some], case.is_ns)
            if case.has_created or case.has_cutoff
            else None,
            (np.array([coded.integer(value) for _, _, _, value in some], dtype=np.int64),),
            (None if is_counted.all() else is_counted,),
        )
        for group, events in search.chosen(chunk):
            kept[group].append(events)
    for group, pieces in enumerate(kept):
        search.answer(group, pieces, [coded.column()])
    answers = []
    for each, result in zip(features, search.answers.features, strict=True):
        values: list[Any] = [None] * len(case.rows)
        elements = iter(result.elements.tolist())
        for place, row in enumerate(rows.rows.tolist()):
            if place in result.beyond:
                values[row] = SumOverflow
            elif each.function.name == "last" and each.function.parameter:
                listed = [coded.value(next(elements)) for _ in range(int(result.values[place]))]
                values[row] = listed if result.is_valid[place] else None
            elif result.is_valid[place]:
                raw = result.values[place].item()
                values[row] = coded.value(raw) if each.function.name in ("min", "max", "first", "last") else raw
        answers.append(values)
    return answers


def check(case: Case) -> None:
    features = case.features
    layout = StateLayout.of(features)
    has_created = case.has_created or case.has_cutoff
    events = [
        oracle.Event(
            (code,), Fraction(event, 1_000), None if created is None else Fraction(created, 1_000), {"x": value}
        )
        if has_created
        else oracle.Event((code,), Fraction(event, 1_000), None, {"x": value})
        for code, event, created, value in case.events
    ]
    for each, answers in zip(features, found(case, features), strict=True):
        plain = oracle.Feature("x", each.function.name, each.window_us, each.hop_us)
        if each.function.parameter:
            plain = oracle.Feature("x", f"{each.function.name}_{each.function.parameter}", each.window_us, each.hop_us)
        for (code, time), answered in zip(case.rows, answers, strict=True):
            at = Fraction(time, 1_000)
            own = [
                event
                for event in events
                if event.key == (code,) and (not case.has_cutoff or (event.created is not None and event.created <= at))
            ]
            try:
                expected = oracle.value(own, at, plain)
            except oracle.BeyondInt64:
                assert answered is SumOverflow
                continue
            if plain.function == "sum" and each.type_name == "DOUBLE" and expected is not None:
                expected = float(expected)
            assert oracle.is_right(answered, expected, plain), (each, code, time, answered, expected)
            assert same(answered, algebra(layout, own, at, plain, each)), (each, code, time)


def algebra(
    layout: StateLayout, own: list[oracle.Event], at: Fraction, plain: oracle.Feature, each: WindowFeature
) -> Any:
    states = [
        prepare(
            layout,
            [event.columns["x"]],
            math.floor(event.event or 0),
            None if event.created is None else math.floor(event.created),
        )
        for event in oracle.held(own, at, plain)
    ]
    return finalize(layout, merge(layout, states) if states else None, each)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float) and math.isnan(right):
        return math.isnan(left)
    return bool(left == right)


EXAMPLES = {"float": 60, "whole": 30, "unsigned": 15, "text": 25}


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_oracle_and_of_the_algebra(kind: str) -> None:
    @settings(max_examples=EXAMPLES[kind], deadline=None)
    @given(cases(kind))
    def judged(case: Case) -> None:
        check(case)

    judged()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_oracle_and_of_the_algebra_in_full(kind: str) -> None:
    @settings(max_examples=int(os.environ.get("LARDER_LONG_EXAMPLES", "3000")), deadline=None)
    @given(cases(kind))
    def judged(case: Case) -> None:
        check(case)

    judged()
