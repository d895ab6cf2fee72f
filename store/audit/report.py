"""What an audit found: counts per feature, the differences one by one, and how much of what was served it saw."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from store.audit.log import Coverage
from store.kernel.judging import SAME, Cause, Reproduction
from store.limits import AUDIT_DIFFERENCES_MAX


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that was not what recomputing gives.

    Attributes:
        judgement: `reproduction` or `skew`.
        served: the value as it was served, `trained` the one that training sees today; plain values.
        cause: why, None where nothing explains it.
    """

    judgement: str
    service: str
    feature: str
    type_name: str
    request_id: str
    at_us: int
    key: Mapping[str, Any]
    status: str
    served: Any
    trained: Any
    cause: Cause | None

    @property
    def is_failure(self) -> bool:
        """Whether it fails the audit: nothing explains it."""
        return self.cause is None


@dataclass(slots=True)
class FeatureTally:
    """The two numbers of one feature of a service, and what they are made of.

    Attributes:
        audited: values.
        different: values that recomputing from what was known then does not give; `lost` counts those of which what
            was known is no longer there, by cause.
        skewed: values that recomputing from what is known today does not give, by cause; None for no cause.
    """

    service: str
    feature: str
    type_name: str
    audited: int = 0
    different: int = 0
    lost: Counter[Cause] = field(default_factory=Counter)
    skewed: Counter[Cause | None] = field(default_factory=Counter)

    @property
    def reproduced(self) -> int:
        """Values that recomputing from what was known then gives."""
        return self.audited - self.different - self.lost.total()

    @property
    def unexplained(self) -> int:
        """Values that differ from training without a cause."""
        return self.skewed[None]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.different and not self.unexplained


@dataclass(frozen=True, slots=True)
class Judged:
    """One value, judged: `cause` explains a skew, and `is_skewed` says whether there is one."""

    reproduction: Reproduction
    is_skewed: bool
    cause: Cause | None


WELL = Judged(SAME, False, None)
"""A value of which all is well."""


@dataclass(slots=True)
class ServiceReport:
    """What an audit found of one service.

    Attributes:
        audited: vectors that were compared.
        not_audited: features that this audit leaves out, by reason.
    """

    service: str
    coverage: Coverage
    audited: int = 0
    features: dict[str, FeatureTally] = field(default_factory=dict)
    not_audited: dict[str, str] = field(default_factory=dict)

    def tally(self, feature: str, type_name: str) -> FeatureTally:
        """Returns the counts of a feature, `view:feature`."""
        if feature not in self.features:
            self.features[feature] = FeatureTally(self.service, feature, type_name)
        return self.features[feature]


@dataclass(slots=True)
class AuditReport:
    """What an audit found.

    Attributes:
        differences: one by one, up to a limit; `left_out` more are only counted.
    """

    start_us: int | None
    end_us: int | None
    services: list[ServiceReport] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    left_out: int = 0

    def list_one(self, difference: Difference) -> None:
        """Lists a difference, if there is room; what fails the audit takes the place of what does not."""
        if len(self.differences) < AUDIT_DIFFERENCES_MAX:
            self.differences.append(difference)
            return
        self.left_out += 1
        if difference.is_failure:
            place = next((i for i, each in enumerate(self.differences) if not each.is_failure), None)
            if place is not None:
                self.differences[place] = difference

    @property
    def tallies(self) -> Sequence[FeatureTally]:
        """The counts of all features."""
        return [tally for service in self.services for tally in service.features.values()]

    @property
    def is_clean(self) -> bool:
        """Whether every value is reproduced as far as that can be told, and every skew has its cause."""
        return all(tally.is_clean for tally in self.tallies)

    @property
    def audited(self) -> int:
        """Vectors that were compared."""
        return sum(service.audited for service in self.services)
