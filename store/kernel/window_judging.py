"""The two judgements of an audit on a served value of a windowed view: was it right, and why does training differ.

*Reproduction* asks whether the value is that of the events that were known then (`store.kernel.known_events`). *Skew*
asks why training, which counts what the source holds today, sees another one: each event that only one of the two
counts has its cause, and of these the first in `_ORDER` is told.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from store.kernel.instants import Ints, Truths
from store.kernel.judging import DIFFERENT, Cause, Reproduction
from store.kernel.known_events import NO_ID, KeyedEvents, Known

_ORDER: Final = (
    Cause.NOT_YET_APPLIED,
    Cause.LATE,
    Cause.NOT_MATERIALIZED,
    Cause.ONLINE_ONLY,
    Cause.SOURCE_REWRITTEN,
)

_ARRIVAL_SLACK_US: Final = 60_000_000
"""An event arrives at most so much before its own time: pushes refuse what is further ahead."""

_IDS_AHEAD_US: Final = 10_000
"""Ids run ahead of the clock where many events come at one instant, since each has one of its own."""


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """What is known of a windowed view beside the events, where a value is not reproduced.

    Attributes:
        is_other: the tiles followed another definition than the one that is declared today.
        is_rewritten: the files that the materialization had read are not those of today.
        begun_us: up to which log id events of the key's partition were applied without being kept; None where nothing
            says since when they are kept.
        erased_us: when rows of such keys were last erased, None if never.
        has_key_ttl: entity keys expire.
    """

    is_other: bool
    is_rewritten: bool
    begun_us: int | None
    erased_us: int | None
    has_key_ttl: bool


def why_lost(known: Known, start_us: int, first_kept_us: int, *, is_expired: bool, facts: WindowFacts) -> Reproduction:
    """Returns why a value is not what the known events give, `DIFFERENT` if nothing explains it.

    Args:
        start_us: where the longest window began.
        first_kept_us: when the first event came that is still kept of the key, or has landed; later than anything
            where there is none.
        is_expired: the value is what remains where the materialization's tiles or a part of the stream's had expired.
    """
    if facts.is_other:
        return Reproduction(False, Cause.OLDER_DEFINITION)
    if facts.erased_us is not None and known.at_us < facts.erased_us < first_kept_us:
        return Reproduction(False, Cause.ERASED)
    if known.applied_through and (facts.begun_us is None or facts.begun_us > start_us - _ARRIVAL_SLACK_US):
        return Reproduction(False, Cause.NOT_KEPT)
    if facts.is_rewritten:
        return Reproduction(False, Cause.SOURCE_REWRITTEN)
    if facts.has_key_ttl and is_expired:
        return Reproduction(False, Cause.KEY_TTL)
    if known.known_us is not None and known.known_us > known.at_us:
        # The clock was set back behind the materialization, whose tiles reach no further back than its own time asked.
        return Reproduction(False, Cause.FUTURE)
    return DIFFERENT


@dataclass(frozen=True, slots=True)
class Differing:
    """The events of one key that may count for a vector, and which of them counted where.

    Attributes:
        part: the places of the events of the feature's window.
        batch: which of them the materialization held; `stream` which were applied beside it. Parallel to `part`.
        has_value: which have a value in the feature's column.
        came_us: by the place of a file in the source, when it came.
    """

    events: KeyedEvents
    part: slice
    batch: Truths
    stream: Truths
    has_value: Truths
    came_us: Ints
    is_external: bool

    def cause(self, known: Known) -> Cause | None:
        """Returns why training counts other events than the lookup did; None if it does not, or nothing explains it."""
        events, part = self.events, self.part
        inside = self.has_value
        is_source = events.is_source[part]
        line_ids = events.line_ids[part]
        missing = inside & is_source & ~self.batch
        extra = inside & self.stream
        of_extra = extra & events.is_landed[part]
        missing, extra = (
            missing & ~(np.isin(line_ids, line_ids[of_extra]) & (line_ids != NO_ID)),
            extra & ~(of_extra & np.isin(line_ids, line_ids[inside & is_source])),
        )
        if self.is_external:
            missing, extra = self._unmatched(missing, extra)
        causes = self._why_missing(np.flatnonzero(missing), known)
        causes |= {self._why_extra(place) for place in np.flatnonzero(extra).tolist()}
        return None if None in causes else next((cause for cause in _ORDER if cause in causes), None)

    def _unmatched(self, missing: Truths, extra: Truths) -> tuple[Truths, Truths]:
        """Returns events without those that the user's own jobs brought to the source and a push to the stream."""
        left = Counter(self._content(place) for place in np.flatnonzero(extra).tolist())
        kept_missing, matched = missing.copy(), Counter[Any]()
        for place in np.flatnonzero(missing).tolist():
            content = self._content(place)
            if left[content] > matched[content]:
                matched[content] += 1
                kept_missing[place] = False
        kept_extra = extra.copy()
        for place in np.flatnonzero(extra).tolist():
            content = self._content(place)
            if matched[content]:
                matched[content] -= 1
                kept_extra[place] = False
        return kept_missing, kept_extra

    def _content(self, place: int) -> tuple[Any, ...]:
        at = self.part.start + place
        said = [
            values[at] if is_valid[at] and values[at] == values[at] else None
            for values, is_valid in zip(self.events.values, self.events.is_valid, strict=True)
        ]
        return (int(self.events.event_us[at]), *said)

    def _why_missing(self, places: Ints, known: Known) -> set[Cause | None]:
        """Returns why events that the source holds were not known."""
        line_ids = self.events.line_ids[self.part][places]
        arrived_us, log_ids = line_ids.copy(), self._log_ids(line_ids)
        if self.is_external:
            log_ids = np.array([self._log_id_by_content(place) for place in places.tolist()], dtype=np.int64)
            arrived_us = log_ids
        by_log = log_ids != NO_ID
        is_late = arrived_us > known.at_us + _IDS_AHEAD_US
        # What was not accepted for this key, and yet landed from the log, is judged by where it entered the log.
        is_applied = np.where(by_log, log_ids, line_ids) <= known.applied_through
        came = by_log | (line_ids != NO_ID)
        created_us = self.events.created_us[self.part][places]
        came_us = self.came_us[self.events.files[self.part][places]]
        is_new = (created_us > known.at_us) | (came_us > known.at_us)
        found: dict[Cause | None, Truths] = {
            Cause.LATE: (came & is_late) | (~came & is_new),
            Cause.NOT_YET_APPLIED: came & ~is_late & ~is_applied,
            Cause.NOT_MATERIALIZED if self.is_external else None: came & ~is_late & is_applied,
        }
        causes = {cause for cause, which in found.items() if which.any()}
        return causes | ({Cause.NOT_MATERIALIZED} if (~came & ~is_new).any() else set())

    def _log_ids(self, line_ids: Ints) -> Ints:
        """Returns the log ids under which events were accepted for this key, `NO_ID` for those that were not."""
        is_accepted = ~self.events.is_source[self.part]
        known_lines, known_logs = (
            self.events.line_ids[self.part][is_accepted],
            self.events.log_ids[self.part][is_accepted],
        )
        if not len(known_lines):
            return np.full(len(line_ids), NO_ID, dtype=np.int64)
        order = np.argsort(known_lines)
        known_lines, known_logs = known_lines[order], known_logs[order]
        at = np.minimum(np.searchsorted(known_lines, line_ids), len(known_lines) - 1)
        return np.where((known_lines[at] == line_ids) & (line_ids != NO_ID), known_logs[at], NO_ID)

    def _log_id_by_content(self, place: int) -> int:
        """Returns the least log id of an accepted event with the time and values of one of the source."""
        content = self._content(place)
        accepted = np.flatnonzero(~self.events.is_source[self.part])
        same = [n for n in accepted.tolist() if self._content(n) == content]
        return min(self.events.log_ids[self.part][same].tolist(), default=NO_ID)

    def _why_extra(self, place: int) -> Cause:
        """Returns why an event that counted is not in the source."""
        is_landed = bool(self.events.is_landed[self.part.start + place])
        return Cause.SOURCE_REWRITTEN if is_landed else Cause.ONLINE_ONLY
