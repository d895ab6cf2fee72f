"""Which event times a materialization has covered, and what the next one has to read: half-open intervals."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from store.kernel.tiles import Seam

BEGINNING_US = -(2**63)
"""Earlier than any event time: the start of an interval without one."""


class Interval(NamedTuple):
    """The event times from `start_us` inclusive to `end_us` exclusive, microseconds since the Unix epoch."""

    start_us: int
    end_us: int


Coverage = tuple[Interval, ...]
"""Disjoint intervals in order, none empty and no two touching."""


def union(intervals: Iterable[Interval]) -> Coverage:
    """Returns the event times that lie in any of the intervals; empty and inverted ones add nothing."""
    merged: list[Interval] = []
    for interval in sorted(i for i in intervals if i.start_us < i.end_us):
        if merged and interval.start_us <= merged[-1].end_us:
            merged[-1] = Interval(merged[-1].start_us, max(merged[-1].end_us, interval.end_us))
        else:
            merged.append(interval)
    return tuple(merged)


def missing(wanted: Coverage, covered: Coverage) -> Coverage:
    """Returns the event times that are wanted and not covered."""
    gaps: list[Interval] = []
    for interval in wanted:
        start_us = interval.start_us
        for have in covered:
            if have.end_us <= start_us or have.start_us >= interval.end_us:
                continue
            if have.start_us > start_us:
                gaps.append(Interval(start_us, have.start_us))
            start_us = max(start_us, have.end_us)
        if start_us < interval.end_us:
            gaps.append(Interval(start_us, interval.end_us))
    return union(gaps)


def without_start(end_us: int, *, ttl_us: int) -> Interval:
    """Returns what to read up to `end_us` where nothing says from where: back by the ttl, 0 for everything.

    Feast asks so, with a START at or after END, where it derives START from the system's clock in a repo whose clock
    is another, or from the END of an earlier run that lay in the future.
    """
    return Interval(end_us - ttl_us if ttl_us else BEGINNING_US, end_us)


@dataclass(frozen=True, slots=True)
class ViewState:
    """What is kept in Redis of a view: which generation is read, what it covers, and which one is being built.

    `generation` 1 without a fingerprint is what a view has that nobody has materialized yet.
    `building` is 0 where no new generation is under way. Rows of generations before `cleaned_below` are gone.
    `known_us` is the clock's instant at which the last run began that ended well and read up to the end of what is
    covered; None where none is known to have. `seam` is where a windowed view's materialization ends, and `files` tells
    which files of its source it read.
    """

    generation: int = 1
    fingerprint: str = ""
    coverage: Coverage = ()
    building: int = 0
    cleaned_below: int = 1
    known_us: int | None = None
    seam: Seam | None = None
    files: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """What one materialization has to do: read these event times, into a new generation if it is a rebuild."""

    is_rebuild: bool
    intervals: Coverage
    coverage_after: Coverage

    @property
    def reaches_end(self) -> bool:
        """Whether it reads up to the end of all that is covered then, so that it sees what became known before it."""
        return bool(self.intervals) and self.intervals[-1].end_us == self.coverage_after[-1].end_us


def plan_run(
    state: ViewState, fingerprint: str, requested: Interval, registered: Iterable[Interval], *, ttl_us: int
) -> Run:
    """Returns what a materialization of `requested` has to do.

    START bounds the work, not the truth: event times that the registry says were materialized and that the
    online store does not cover (it was emptied or rolled back) are read as well. A changed definition is read
    anew for all event times that the registry knows of or the old rows cover.
    A START at or after END says nothing, so the run goes on from where the coverage ends, or else as far back as
    `without_start` says.

    Args:
        state: what the online store holds of the view.
        fingerprint: of the definition that the run follows.
        requested: START and END, END already clipped to the clock.
        registered: the intervals that Feast's registry holds for the view.
        ttl_us: the view's time to live, 0 for none.
    """
    end_us = requested.end_us
    is_changed = state.fingerprint not in ("", fingerprint)
    covered = () if is_changed else state.coverage
    promised = [*registered, *state.coverage]
    start_us = requested.start_us
    if start_us >= end_us:
        start_us = min(covered[-1].end_us, end_us) if covered else without_start(end_us, ttl_us=ttl_us).start_us
    wanted = union(Interval(i.start_us, min(i.end_us, end_us)) for i in promised)
    intervals = union([Interval(start_us, end_us), *missing(wanted, covered)])
    return Run(
        is_rebuild=is_changed,
        intervals=intervals,
        coverage_after=union([*covered, *intervals]),
    )
