"""Why an online answer and a training set agree or differ on one entity key: one cause, from what is known of both."""

from dataclasses import dataclass
from enum import StrEnum

from store.kernel.codec import RowTimes
from store.kernel.coverage import Coverage


class Reason(StrEnum):
    """Why two sides agree or differ; the text is what people read."""

    SAME_ROW = "same row"
    NO_ROW = "no row on either side"
    EXPIRED = "expired by ttl"
    NOT_MATERIALIZED = "not materialized yet"
    LATE = "late row"
    CORRECTED = "corrected row"
    KEY_TTL = "expired by key_ttl_seconds"
    FUTURE = "future row"
    ONLINE_ONLY = "pushed online only"
    OLDER_DEFINITION = "older definition"
    SOURCE_REWRITTEN = "source rewritten"


EXPLANATIONS = {
    Reason.SAME_ROW: "both sides read the row of the same event and created time",
    Reason.NO_ROW: "neither side has a row for this key that counts at this time",
    Reason.EXPIRED: "the online row is older than the ttl, so its values are withheld, as training would",
    Reason.NOT_MATERIALIZED: "the source has a row at an event time that no run has materialized; materialize it",
    Reason.LATE: "the source has a row at an event time that was materialized without it: it came afterwards (or was "
    "removed from Redis since); materialize again from before it",
    Reason.CORRECTED: "the source has a later version of the row online, of the same event time, which came after its "
    "event time was materialized; materialize again from before it",
    Reason.KEY_TTL: "the row was materialized, and its key has expired since by key_ttl_seconds",
    Reason.FUTURE: "the online row's event time lies after this time, so training must not see it",
    Reason.ONLINE_ONLY: "the online row was pushed, and the source has no such row: push to offline as well",
    Reason.OLDER_DEFINITION: "the online rows follow an older definition of the view; its next materialization "
    "rebuilds them",
    Reason.SOURCE_REWRITTEN: "the online row was materialized from a source that no longer says so; materialize again",
}
"""What each reason says in a sentence, and what to do where something can be done."""


@dataclass(frozen=True, slots=True)
class OnlineSide:
    """What the online store knows of an entity key.

    `times` are None where there is no row. `is_older_definition`: the view's rows follow another definition than the
    one declared now. `coverage`: the event times that were materialized.
    """

    times: RowTimes | None
    is_pushed: bool
    is_older_definition: bool
    coverage: Coverage
    has_key_ttl: bool


def reason_for_rows(online: OnlineSide, training: RowTimes | None, *, at_us: int, ttl_us: int) -> Reason:
    """Returns why the row that the online store has and the one that training sees at a time are the same or not.

    Args:
        training: the times of the row that training sees, None for none. A row older than the ttl it never sees.
        at_us: the time, to which event times are compared inclusively, as in the training join.
        ttl_us: the view's time to live, 0 for no limit.
    """
    times = online.times
    if times is None:
        return Reason.NO_ROW if training is None else _unseen(online, training)
    if times.event_us > at_us:
        return Reason.FUTURE
    if training is None and ttl_us and times.event_us < at_us - ttl_us:
        return Reason.EXPIRED
    if training is not None and times == training:
        return Reason.SAME_ROW
    if training is None or _order(times) > _order(training):
        if online.is_pushed:
            return Reason.ONLINE_ONLY
        return Reason.OLDER_DEFINITION if online.is_older_definition else Reason.SOURCE_REWRITTEN
    reason = _unseen(online, training)
    is_correction = _order(times)[:2] == _order(training)[:2] and reason in (Reason.LATE, Reason.KEY_TTL)
    return Reason.CORRECTED if is_correction else reason


def reason_for_values(rows: Reason, online: OnlineSide, *, is_found: bool) -> Reason:
    """Returns why values differ, given why their rows do.

    Args:
        is_found: whether the online row has the feature at all.
    """
    if rows is not Reason.SAME_ROW:
        return rows
    if not is_found or online.is_older_definition:
        return Reason.OLDER_DEFINITION
    return Reason.ONLINE_ONLY if online.is_pushed else Reason.SOURCE_REWRITTEN


def _unseen(online: OnlineSide, training: RowTimes) -> Reason:
    """Returns why the online store lacks a row that the source has."""
    if online.is_older_definition:
        return Reason.OLDER_DEFINITION
    if not any(interval.start_us <= training.event_us < interval.end_us for interval in online.coverage):
        return Reason.NOT_MATERIALIZED
    return Reason.KEY_TTL if online.has_key_ttl and online.times is None else Reason.LATE


def _order(times: RowTimes) -> tuple[int, int, int, int]:
    """Returns what rows are ordered by; a row without a created time is older than any with one."""
    created_us = -(2**63) if times.created_us is None else times.created_us
    return times.event_us, times.event_ns, created_us, times.created_ns
