"""The one reason why the two sides of an entity key agree or differ."""

import pytest

from store.kernel.codec import RowTimes
from store.kernel.coverage import Interval
from store.kernel.reasons import EXPLANATIONS, OnlineSide, Reason, reason_for_rows, reason_for_values

TTL, AT = 50, 100
COVERED = (Interval(0, 90),)


def online(
    times: RowTimes | None, *, is_pushed: bool = False, is_older: bool = False, has_key_ttl: bool = False
) -> OnlineSide:
    return OnlineSide(times, is_pushed, is_older, COVERED, has_key_ttl)


def row(event_us: int, created_us: int | None = None, event_ns: int = 0) -> RowTimes:
    return RowTimes(event_us, event_ns, created_us)


@pytest.mark.parametrize(
    ("side", "training", "reason"),
    [
        (online(None), None, Reason.NO_ROW),
        (online(row(80)), row(80), Reason.SAME_ROW),
        (online(row(100)), row(100), Reason.SAME_ROW),
        (online(row(101)), row(80), Reason.FUTURE),
        (online(row(49)), None, Reason.EXPIRED),
        # At exactly the ttl a row still counts, so training would see it if the source had it.
        (online(row(50)), None, Reason.SOURCE_REWRITTEN),
        (online(None), row(89), Reason.LATE),
        (online(None), row(90), Reason.NOT_MATERIALIZED),
        (online(None, has_key_ttl=True), row(80), Reason.KEY_TTL),
        (online(None, is_older=True), row(95), Reason.OLDER_DEFINITION),
        (online(row(80)), row(85), Reason.LATE),
        (online(row(80)), row(80, event_ns=1), Reason.LATE),
        (online(row(80)), row(95), Reason.NOT_MATERIALIZED),
        (online(row(10)), row(95), Reason.NOT_MATERIALIZED),
        (online(row(80, 81)), row(80, 82), Reason.CORRECTED),
        (online(row(80)), row(80, 82), Reason.CORRECTED),
        (online(row(95, 95)), row(95, 96), Reason.NOT_MATERIALIZED),
        (online(row(80), is_pushed=True), row(70), Reason.ONLINE_ONLY),
        (online(row(80), is_pushed=True), None, Reason.ONLINE_ONLY),
        (online(row(80)), row(70), Reason.SOURCE_REWRITTEN),
        (online(row(80), is_older=True), row(70), Reason.OLDER_DEFINITION),
        (online(row(80), is_older=True), row(95), Reason.OLDER_DEFINITION),
    ],
)
def test_rows_have_one_reason(side: OnlineSide, training: RowTimes | None, reason: Reason) -> None:
    assert reason_for_rows(side, training, at_us=AT, ttl_us=TTL) is reason


def test_without_a_ttl_nothing_expires() -> None:
    assert reason_for_rows(online(row(-(10**15))), None, at_us=AT, ttl_us=0) is Reason.SOURCE_REWRITTEN


@pytest.mark.parametrize(
    ("rows", "side", "is_found", "reason"),
    [
        (Reason.LATE, online(row(1)), True, Reason.LATE),
        (Reason.SAME_ROW, online(row(1)), False, Reason.OLDER_DEFINITION),
        (Reason.SAME_ROW, online(row(1), is_older=True), True, Reason.OLDER_DEFINITION),
        (Reason.SAME_ROW, online(row(1), is_pushed=True), True, Reason.ONLINE_ONLY),
        (Reason.SAME_ROW, online(row(1)), True, Reason.SOURCE_REWRITTEN),
    ],
)
def test_values_of_one_row_that_differ_have_a_reason(
    rows: Reason, side: OnlineSide, is_found: bool, reason: Reason
) -> None:
    assert reason_for_values(rows, side, is_found=is_found) is reason


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)
