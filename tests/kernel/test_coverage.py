"""What a run reads and covers, against a model that looks at single points of time."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from store.kernel.coverage import BEGINNING_US, Interval, ViewState, missing, plan_run, union
from tests.oracles.rows import covered

POINTS = range(-2, 22)
intervals = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5)


def points(pairs: object) -> set[int]:
    return covered(POINTS, list(pairs))  # type: ignore[call-overload]


@given(intervals)
def test_a_union_covers_what_any_of_its_parts_covers(pairs: list[tuple[int, int]]) -> None:
    merged = union(Interval(*pair) for pair in pairs)
    assert points(merged) == points(pairs)
    assert all(left.end_us < right.start_us for left, right in itertools.pairwise(merged))


@given(intervals, intervals)
def test_missing_is_what_is_wanted_and_not_covered(wanted: list[tuple[int, int]], have: list[tuple[int, int]]) -> None:
    gaps = missing(union(Interval(*p) for p in wanted), union(Interval(*p) for p in have))
    assert points(gaps) == points(wanted) - points(have)


@given(intervals, intervals, st.integers(0, 20), st.integers(0, 20), st.sampled_from(["", "same", "other"]))
def test_after_a_run_everything_promised_up_to_its_end_is_covered(
    have: list[tuple[int, int]], registered: list[tuple[int, int]], start: int, end: int, stored: str
) -> None:
    coverage = union(Interval(*p) for p in have)
    state = ViewState(3, stored, coverage)
    run = plan_run(state, "same", Interval(start, end), [Interval(*p) for p in registered], ttl_us=0)
    promised = {p for p in points(registered) | points(have) | points([(start, end)]) if p < end}
    assert promised <= points(run.coverage_after)
    assert points(run.intervals) <= points(run.coverage_after)
    assert all(interval.end_us <= end for interval in run.intervals)
    if stored == "other":
        assert run.is_rebuild
        assert promised <= points(run.intervals)
    else:
        assert not run.is_rebuild
        assert points(coverage) <= points(run.coverage_after)


def test_a_first_run_reads_what_it_was_asked_for() -> None:
    run = plan_run(ViewState(), "f", Interval(5, 9), [], ttl_us=0)
    assert (run.intervals, run.coverage_after, run.is_rebuild) == ((Interval(5, 9),), (Interval(5, 9),), False)


def test_an_emptied_redis_is_rebuilt_from_what_the_registry_promises() -> None:
    run = plan_run(ViewState(), "f", Interval(90, 100), [Interval(0, 50), Interval(50, 90)], ttl_us=0)
    assert run.intervals == (Interval(0, 100),)


def test_a_start_after_the_end_goes_on_from_the_coverage() -> None:
    state = ViewState(1, "f", (Interval(0, 50),))
    assert plan_run(state, "f", Interval(200, 100), [], ttl_us=0).intervals == (Interval(50, 100),)
    assert plan_run(ViewState(), "f", Interval(200, 100), [], ttl_us=30).intervals == (Interval(70, 100),)
    assert plan_run(ViewState(), "f", Interval(200, 100), [], ttl_us=0).intervals == (Interval(BEGINNING_US, 100),)


def test_an_interval_that_feast_recorded_beyond_the_end_promises_nothing_beyond_it() -> None:
    state = ViewState(1, "f", (Interval(0, 50),))
    run = plan_run(state, "f", Interval(500, 100), [Interval(0, 500)], ttl_us=0)
    assert (run.intervals, run.coverage_after) == ((Interval(50, 100),), (Interval(0, 100),))
