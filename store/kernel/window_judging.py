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
        causes = {self._why_missing(place, known) for place in np.flatnonzero(missing).tolist()}
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

    def _why_missing(self, place: int, known: Known) -> Cause | None:
        """Returns why an event that the source holds was not known."""
        events, at = self.events, self.part.start + place
        copies = self._copies(place)
        if len(copies):
            if (copies <= known.applied_through).any():
                return None if not self.is_external else Cause.NOT_MATERIALIZED
            arrived_us = int(events.line_ids[at]) if events.line_ids[at] != NO_ID else int(copies.min())
            return Cause.LATE if arrived_us > known.at_us + _IDS_AHEAD_US else Cause.NOT_YET_APPLIED
        if events.line_ids[at] != NO_ID:
            if events.line_ids[at] > known.at_us + _IDS_AHEAD_US:
                return Cause.LATE
            return Cause.NOT_YET_APPLIED if events.line_ids[at] > known.applied_through else None
        created_us = int(events.created_us[at])
        came_us = int(self.came_us[events.files[at]])
        is_late = created_us > known.at_us or came_us > known.at_us
        return Cause.LATE if is_late else Cause.NOT_MATERIALIZED

    def _copies(self, place: int) -> Ints:
        """Returns the log ids under which an event of the source was accepted for this key."""
        events, at = self.events, self.part.start + place
        accepted = np.flatnonzero(~events.is_source[self.part])
        if events.line_ids[at] != NO_ID:
            accepted = accepted[events.line_ids[self.part][accepted] == events.line_ids[at]]
        elif self.is_external:
            content = self._content(place)
            accepted = np.array([n for n in accepted.tolist() if self._content(n) == content], dtype=np.int64)
        else:
            accepted = accepted[:0]
        return np.asarray(events.log_ids[self.part][accepted])

    def _why_extra(self, place: int) -> Cause:
        """Returns why an event that counted is not in the source."""
        is_landed = bool(self.events.is_landed[self.part.start + place])
        return Cause.SOURCE_REWRITTEN if is_landed else Cause.ONLINE_ONLY
