"""The two judgements of an audit on one served row of a plain view: was it right, and why does training differ.

*Reproduction* asks whether the value served is that of the row that was read, by the times that the log tells. *Skew*
asks why training, with all that is known today, sees another value; one cause explains it, or nothing does, a fault.

What distinguishes the causes is when a row came: its created time, else when its file was written; and what the last
materialization before could have seen: what it covered, and when it began.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from store.kernel.codec import RowTimes
from store.kernel.equality import are_equal
from store.kernel.served_log import LoggedState


class Cause(StrEnum):
    """Why what was served differs from what training sees; the text is what people read."""

    NOT_YET_APPLIED = "not yet applied"
    LATE = "late"
    NOT_MATERIALIZED = "not materialized"
    CORRECTED = "corrected"
    EXPIRED = "expired"
    ONLINE_ONLY = "online only"
    FUTURE = "future"
    OLDER_DEFINITION = "older definition"
    ERASED = "erased"
    KEY_TTL = "key ttl"
    SOURCE_REWRITTEN = "source rewritten"
    NOT_KEPT = "not kept"


CAUSES = {
    Cause.NOT_YET_APPLIED: "the event was pushed and not yet applied when the key was looked up",
    Cause.LATE: "the row came into the source after the key was looked up, or after its time had been materialized",
    Cause.NOT_MATERIALIZED: "the row was in the source, and no run had materialized its time yet",
    Cause.CORRECTED: "a later version of the row came into the source",
    Cause.EXPIRED: "the ttl was another one then",
    Cause.ONLINE_ONLY: "the row was pushed online only, or without this feature, so training never sees it",
    Cause.FUTURE: "the row's event time lay after the request, so training must not see it",
    Cause.OLDER_DEFINITION: "the view's definition was another one then, or its rows still followed an older one",
    Cause.ERASED: "the key's rows have been erased since",
    Cause.KEY_TTL: "the key had expired by key_ttl_seconds",
    Cause.SOURCE_REWRITTEN: "the source's files were written anew since, and say something else",
    Cause.NOT_KEPT: "events that were applied by then are not kept: the view was not logged yet when they came",
}
"""What each cause says in a sentence."""


@dataclass(frozen=True, slots=True)
class ServedRow:
    """What the log tells of the row that a lookup read of a view.

    `times` is None where there was no row. `is_older`: the rows that were in force followed another definition than
    the one by which they were read. `is_key_known`: training sees some row of the key today.
    """

    at_us: int
    times: RowTimes | None
    is_pushed: bool
    is_older: bool
    is_key_known: bool


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of the source: values by feature, and when its file came to stand there, in microseconds."""

    values: dict[str, Any]
    came_us: int


@dataclass(frozen=True, slots=True)
class ViewFacts:
    """What is known of a view.

    Attributes:
        ttl_us: as it was served, 0 for no limit; `ttl_now_us` as it is declared today.
        is_redefined: it was read by another definition than today's.
        state: what Redis held of it when the row was served, or as near to it as is known.
        has_key_ttl: entity keys expire.
        source_changed_us: when its own files last changed, of the repo's clock; None for a view without a source.
        erased_us: when rows of such keys were last erased; None if never.
    """

    ttl_us: int
    ttl_now_us: int
    is_redefined: bool
    state: LoggedState
    has_key_ttl: bool
    source_changed_us: int | None
    erased_us: int | None

    def was_erased_after(self, at_us: int) -> bool:
        """Whether rows of such keys were erased after a time."""
        return self.erased_us is not None and self.erased_us > at_us

    def was_rewritten_after(self, at_us: int) -> bool:
        """Whether the source's own files changed after a time."""
        return self.source_changed_us is not None and self.source_changed_us > at_us


class Reproduction(NamedTuple):
    """Whether a value was served as its row had it; `lost` says why that can no longer be told."""

    is_equal: bool
    lost: Cause | None = None


SAME = Reproduction(True)
DIFFERENT = Reproduction(False)


def is_outside(row: ServedRow, ttl_us: int) -> bool:
    """Whether a row was too old at its request time, by the rule of lookups: both ends inclusive, in microseconds."""
    return row.times is not None and bool(ttl_us) and row.times.event_us < row.at_us - ttl_us


def judge_reproduction(
    row: ServedRow, feature: str, value: Any, status: str, rows: Sequence[SourceRow], facts: ViewFacts
) -> Reproduction:
    """Returns whether a value and its status follow from the row that was read.

    Args:
        rows: those of the source with the key and the times of the row; several if it came several times.
    """
    if row.times is None:
        return SAME if status == "NOT_FOUND" and value is None else DIFFERENT
    if status == "NOT_FOUND":
        # A row written without the feature: by a push that left it out, or before it was declared.
        lost = Cause.ONLINE_ONLY if row.is_pushed else Cause.OLDER_DEFINITION
        return Reproduction(False, lost) if value is None else DIFFERENT
    if is_outside(row, facts.ttl_us) or status == "OUTSIDE_MAX_AGE":
        is_right = is_outside(row, facts.ttl_us) and status == "OUTSIDE_MAX_AGE" and value is None
        return SAME if is_right else DIFFERENT
    if status != ("NULL_VALUE" if value is None else "PRESENT"):
        return DIFFERENT
    known = [each for each in rows if feature in each.values]
    if any(are_equal(each.values[feature], value) for each in known):
        return SAME
    if row.is_older or facts.is_redefined:
        return Reproduction(False, Cause.OLDER_DEFINITION)
    if known:
        was_rewritten = all(each.came_us > row.at_us for each in known)
        return Reproduction(False, Cause.SOURCE_REWRITTEN) if was_rewritten else DIFFERENT
    lost_row = _why_gone(row, facts)
    return DIFFERENT if lost_row is None else Reproduction(False, lost_row)


def _why_gone(row: ServedRow, facts: ViewFacts) -> Cause | None:
    """Returns why the source has no row like the one that was served, None if nothing explains it."""
    if not row.is_key_known and facts.was_erased_after(row.at_us):
        return Cause.ERASED
    if row.is_pushed:
        return Cause.ONLINE_ONLY
    if row.is_older or facts.is_redefined:
        return Cause.OLDER_DEFINITION
    return Cause.SOURCE_REWRITTEN if facts.was_rewritten_after(row.at_us) else None


@dataclass(frozen=True, slots=True)
class Trained:
    """The row that training sees today, None for none, and the rows of the source with its key and times."""

    times: RowTimes | None
    rows: Sequence[SourceRow] = ()


def cause_of_skew(
    row: ServedRow,
    status: str,
    reproduction: Reproduction,
    rows: Sequence[SourceRow],
    trained: Trained,
    facts: ViewFacts,
) -> Cause | None:
    """Returns why a value differs from the one that training sees, None if nothing that is known explains it.

    Args:
        status: of the value as served.
        reproduction: whether it was served as its row had it.
        rows: as for `judge_reproduction`.
    """
    if row.times is None:
        return None if trained.times is None else _why_not_served(row, trained, facts)
    if row.times[:2] > (row.at_us, 0):
        return Cause.FUTURE
    if status == "OUTSIDE_MAX_AGE" or (trained.times is None and is_outside(row, facts.ttl_now_us)):
        return Cause.EXPIRED if facts.ttl_us != facts.ttl_now_us else None
    if trained.times == row.times:
        return _why_other_value(row, status, reproduction, rows, facts)
    if trained.times is None or _order(trained.times) < _order(row.times):
        # Training would see the row, were it still there.
        return None if rows else _why_gone(row, facts)
    return _why_not_served(row, trained, facts)


def _why_other_value(
    row: ServedRow, status: str, reproduction: Reproduction, rows: Sequence[SourceRow], facts: ViewFacts
) -> Cause | None:
    if status == "NOT_FOUND":
        return reproduction.lost
    if row.is_older or facts.is_redefined:
        return Cause.OLDER_DEFINITION
    if reproduction.is_equal:
        # Of rows that tie, the last to come stands; the one that was served is still there.
        return Cause.CORRECTED if rows else None
    return reproduction.lost


def _why_not_served(row: ServedRow, trained: Trained, facts: ViewFacts) -> Cause | None:
    """Returns why the online store lacked the row that training sees."""
    times = trained.times
    assert times is not None, "there is a row that training sees"
    came_late = Cause.LATE
    if row.times is not None and row.times[:2] == times[:2]:
        came_late = Cause.CORRECTED
    created_us = times.created_us
    came_us = min((each.came_us for each in trained.rows), default=None)
    if created_us is not None and created_us > row.at_us:
        return came_late
    if row.is_older or facts.is_redefined:
        return Cause.OLDER_DEFINITION
    if not facts.state.covers(times.event_us):
        return Cause.NOT_MATERIALIZED
    known_us = facts.state.known_us
    if (
        known_us is None
        or (created_us is not None and created_us > known_us)
        or (came_us is not None and came_us > known_us)
    ):
        return came_late
    return Cause.KEY_TTL if row.times is None and facts.has_key_ttl else None


def _order(times: RowTimes) -> tuple[int, int, int, int]:
    """Returns what rows are ordered by; a row without a created time is older than any with one."""
    created_us = -(2**63) if times.created_us is None else times.created_us
    return times.event_us, times.event_ns, created_us, times.created_ns
