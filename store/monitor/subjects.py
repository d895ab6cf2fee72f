"""What a profile is of: a named set of columns, and the stretch of time that its rows lie in."""

from dataclasses import dataclass
from enum import StrEnum

from store.kernel.profiles import Profile


class SubjectKind(StrEnum):
    """Where the rows of a profile come from.

    A feature view's source (or, for a windowed view, its features as of each event), the vectors served of a feature
    service, a saved training set, or the raw events that came by a push source.
    """

    FEATURE_VIEW = "feature_view"
    FEATURE_SERVICE = "feature_service"
    TRAINING_SET = "training_set"
    PUSH_SOURCE = "push_source"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What is profiled, by kind and registered name."""

    kind: SubjectKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of time, [start, end).

    Units: microseconds since the epoch, UTC.
    """

    start_us: int
    end_us: int

    def holds(self, other: "Span") -> bool:
        """Whether all of another stretch lies in this one."""
        return self.start_us <= other.start_us and other.end_us <= self.end_us

    def meets(self, other: "Span") -> bool:
        """Whether two stretches have an instant in common."""
        return self.start_us < other.end_us and other.start_us < self.end_us


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectProfile(Profile):
    """The profile of a subject over a stretch of time, as it is kept.

    Attributes:
        computed_us: when it was computed, by the repo's clock, in microseconds since the epoch. Of two runs over the
            same stretch the later one counts, whatever the clock said.
    """

    subject: Subject
    span: Span
    computed_us: int
