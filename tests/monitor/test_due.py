"""Which stretches of time a run profiles."""

import pytest

from store.errors import InputError
from store.limits import PROFILE_EMPTY_SLICES_MAX, PROFILE_SLICES_MAX
from store.monitor.due import DAY_US, Asked, due_spans, every_us
from store.monitor.subjects import Span
from tests.monitor.profiles import days

HOUR_US = DAY_US // 24
NOW = 100 * DAY_US + 5
DUE = Asked(None, None, DAY_US)


@pytest.mark.parametrize(
    ("text", "expected"), [("1d", DAY_US), ("6h", 6 * HOUR_US), ("30m", HOUR_US // 2), ("1w", 7 * DAY_US)]
)
def test_lengths_of_time_are_read(text: str, expected: int) -> None:
    assert every_us(text) == expected


@pytest.mark.parametrize("text", ["", "d", "0d", "1", "-1d", "1.5h", "1y", "1d ", "100000d"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--every .* is no length of time; write it like 1d"):
        every_us(text)


def test_a_first_run_takes_the_days_that_are_over_of_what_there_is() -> None:
    due = due_spans(DUE, Span(97 * DAY_US + 7, NOW), {}, NOW)
    assert due.spans == (days(97, 98), days(98, 99), days(99, 100))
    assert not due.note


def test_a_later_run_takes_what_came_after_the_last() -> None:
    extent = Span(DAY_US, NOW)
    assert due_spans(DUE, extent, {days(98, 99): 1}, NOW).spans == (days(99, 100),)
    assert due_spans(DUE, extent, {days(99, 100): 1}, NOW).spans == ()


def test_days_after_the_newest_row_are_profiled_for_a_while() -> None:
    due = due_spans(DUE, Span(DAY_US, 2 * DAY_US), {days(1, 2): 1}, NOW)
    assert due.spans[-1].end_us == (2 + PROFILE_EMPTY_SLICES_MAX) * DAY_US
    assert due_spans(DUE, Span(DAY_US, 2 * DAY_US), {due.spans[-1]: 1}, NOW).spans == ()


def test_without_rows_nothing_is_due() -> None:
    assert due_spans(DUE, None, {}, NOW).spans == ()
    assert due_spans(Asked(None, NOW, DAY_US), None, {}, NOW).spans == ()


@pytest.mark.parametrize("more", [0, 1])
def test_a_run_has_a_bound(more: int) -> None:
    now = (PROFILE_SLICES_MAX + 50) * DAY_US
    due = due_spans(DUE, Span((50 - more) * DAY_US, now), {}, now)
    assert len(due.spans) == PROFILE_SLICES_MAX
    assert bool(due.note) == bool(more)
    end_us = (PROFILE_SLICES_MAX + more) * DAY_US
    if more:
        with pytest.raises(InputError, match="has more than 1100 stretches of this length"):
            Asked(0, end_us, DAY_US)
    else:
        assert len(due_spans(Asked(0, end_us, DAY_US), None, {}, now).spans) == PROFILE_SLICES_MAX


def test_a_time_that_was_asked_for_is_cut_at_whole_days() -> None:
    asked = Asked(DAY_US + HOUR_US, 3 * DAY_US + 1, DAY_US)
    expected = (Span(DAY_US + HOUR_US, 2 * DAY_US), days(2, 3), Span(3 * DAY_US, 3 * DAY_US + 1))
    assert due_spans(asked, None, {days(2, 3): 1}, NOW).spans == expected


def test_an_open_end_is_filled_from_what_there_is() -> None:
    extent = Span(98 * DAY_US + 1, 99 * DAY_US)
    assert due_spans(Asked(None, 99 * DAY_US, DAY_US), extent, {}, NOW).spans == (days(98, 99),)
    assert due_spans(Asked(99 * DAY_US, None, DAY_US), extent, {}, NOW).spans[-1] == Span(100 * DAY_US, NOW)
    with pytest.raises(InputError, match=r"is not before --to .*, which is exclusive"):
        due_spans(Asked(NOW, None, DAY_US), extent, {}, NOW)
