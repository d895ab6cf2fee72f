"""The as-of search over random histories that come in random pieces, judged by a scan of all rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from store.kernel.as_of import AskedRows, AsOfSearch, SourceChunk
from store.kernel.instants import NO_ROW, NO_TIME_US, Instants

Moment = tuple[int, int]


@dataclass(frozen=True)
class Row:
    code: int
    event: Moment
    created: Moment | None
    position: int


def moments(has_ns: bool, reach: int = 4) -> st.SearchStrategy[Moment]:
    return st.tuples(st.integers(-reach, reach), st.integers(0, 2) if has_ns else st.just(0))


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[tuple[int, Moment]], list[list[Row]], bool, bool, bool]:
    has_ns, has_created = draw(st.booleans()), draw(st.booleans())
    asked = draw(st.lists(st.tuples(st.integers(NO_ROW, 2), moments(has_ns)), max_size=12))
    created = st.none() | moments(has_ns) if has_created else st.none()
    rows = draw(st.lists(st.tuples(st.integers(0, 2), moments(has_ns), created), max_size=30))
    numbered = [Row(*row, position=position) for position, row in enumerate(rows)]
    shuffled = draw(st.permutations(numbered)) if draw(st.booleans()) else numbered
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    pieces = [list(shuffled[start:end]) for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    return asked, pieces, has_ns, has_created, draw(st.booleans()) and has_created


def answer(code: int, moment: Moment, rows: Sequence[Row], is_cut: bool) -> int:
    seen = [row for row in rows if code != NO_ROW and row.code == code and row.event <= moment]
    if is_cut:
        seen = [row for row in seen if row.created is not None and row.created <= moment]
    ranked = sorted(seen, key=lambda r: (r.event, r.created is not None, r.created or (0, 0), r.position))
    return ranked[-1].position if ranked else NO_ROW


def instants(given_moments: Sequence[Moment | None], has_ns: bool) -> Instants:
    us = np.array([NO_TIME_US if moment is None else moment[0] for moment in given_moments], dtype=np.int64)
    ns = np.array([0 if moment is None else moment[1] for moment in given_moments], dtype=np.int64)
    return Instants(us, ns if has_ns else None)


@settings(max_examples=400, deadline=None)
@given(search=searches())
def test_every_row_is_answered_by_the_newest_row_that_it_can_see(
    search: tuple[list[tuple[int, Moment]], list[list[Row]], bool, bool, bool],
) -> None:
    asked, pieces, has_ns, has_created, is_cut = search
    codes = np.array([code for code, _ in asked], dtype=np.int64)
    asked_rows = AskedRows.of(codes, instants([moment for _, moment in asked], has_ns))
    found = AsOfSearch(asked_rows, has_created=has_created, has_cutoff=is_cut)
    for piece in pieces:
        found.add(
            SourceChunk(
                np.array([row.code for row in piece], dtype=np.int64),
                instants([row.event for row in piece], has_ns),
                instants([row.created for row in piece], has_ns) if has_created else None,
                np.array([row.position for row in piece], dtype=np.int64),
            )
        )
    rows = sorted((row for piece in pieces for row in piece), key=lambda row: row.position)
    matches = found.matches()
    assert matches.positions.tolist() == [answer(code, moment, rows, is_cut) for code, moment in asked]
    for position, event in zip(matches.positions, matches.event.us, strict=True):
        assert position == NO_ROW or rows[position].event[0] == event


def test_ties_among_many_rows_of_one_instant_go_to_the_last_position() -> None:
    count = 1_000
    codes = np.arange(count, dtype=np.int64) % 7
    search = AsOfSearch(AskedRows.of(np.arange(7, dtype=np.int64), Instants(np.full(7, 5))), has_created=False)
    search.add(SourceChunk(codes, Instants(np.full(count, 5)), None, np.arange(count, dtype=np.int64)))
    expected = [max(place for place in range(count) if place % 7 == code) for code in range(7)]
    assert search.matches().positions.tolist() == expected


def test_rows_of_keys_that_nothing_asks_for_answer_nothing() -> None:
    # A key whose entity rows have no time is scanned for all the same.
    search = AsOfSearch(AskedRows.of(np.array([0, NO_ROW]), Instants(np.array([5, 5]))), has_created=False)
    count = 100_000
    codes = np.arange(count, dtype=np.int64) - count // 2
    search.add(SourceChunk(codes, Instants(np.full(count, 5)), None, np.arange(count, dtype=np.int64)))
    assert search.matches().positions.tolist() == [count // 2, NO_ROW]
