"""What was measured of one entry."""

from dataclasses import dataclass, field
from statistics import median

from bench.offline.answers import AnswerDigest


@dataclass
class Measurement:
    """Times of all runs of one entry, in seconds; `cpu_s` counts all threads.

    Args:
        peak_bytes: resident memory at its highest, up to the end of the process's first run.
        failure: why there are no times: it could not answer, or answered something else than the others.
    """

    label: str
    versions: dict[str, str] = field(default_factory=dict)
    keeps_order: bool = True
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    digest: AnswerDigest | None = None
    failure: str | None = None

    @property
    def wall_s_median(self) -> float:
        """Returns the median time by the wall clock."""
        return median(self.wall_s)

    @property
    def cpu_s_median(self) -> float:
        """Returns the median of processor time."""
        return median(self.cpu_s)
