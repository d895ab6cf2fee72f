"""Which of many profiles, of stretches of time that may overlap, are to be added up."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from store.monitor.subjects import Span, SubjectProfile


class _Choice(NamedTuple):
    """How much time some stretches cover, and how lately they were computed, both weighted by their lengths."""

    covered_us: int
    lateness: int

    def plus(self, profile: SubjectProfile) -> "_Choice":
        length = profile.span.end_us - profile.span.start_us
        return _Choice(self.covered_us + length, self.lateness + length * profile.computed_us)


def best_slices(profiles: Sequence[SubjectProfile]) -> list[SubjectProfile]:
    """Returns profiles no two of which overlap, that cover most time, and of those the latest; in order of time.

    An empty stretch covers no time, and is only taken where there are no others.

    Source: weighted interval scheduling, Kleinberg and Tardos, Algorithm Design, 6.1.
    """
    ordered = sorted(profiles, key=lambda each: (each.span.end_us, each.span.start_us))
    ends = [each.span.end_us for each in ordered]
    best = [_Choice(0, 0)]
    for place, each in enumerate(ordered):
        with_it = best[_before(ends, each, place)].plus(each)
        best.append(max(best[-1], with_it))
    chosen = []
    place = len(ordered)
    while place:
        each = ordered[place - 1]
        if best[place] == best[place - 1]:
            place -= 1
            continue
        chosen.append(each)
        place = _before(ends, each, place - 1)
    return chosen[::-1] or ordered[-1:]


def _before(ends: Sequence[int], profile: SubjectProfile, place: int) -> int:
    """Returns how many of the stretches before a place end by the start of a profile."""
    return bisect_right(ends, profile.span.start_us, 0, place)


def gaps(covered: Sequence[Span], span: Span) -> list[Span]:
    """Returns the parts of a span that none of some stretches covers; these do not overlap and are in order."""
    found = []
    reached = span.start_us
    for each in covered:
        if each.start_us > reached and reached < span.end_us:
            found.append(Span(reached, min(each.start_us, span.end_us)))
        reached = max(reached, each.end_us)
    if reached < span.end_us:
        found.append(Span(reached, span.end_us))
    return found
