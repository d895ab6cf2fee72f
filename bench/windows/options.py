"""What all parts of the benchmark are told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a part.

    Attributes:
        data: the folder of files; results are appended below it.
        scale: divides all numbers of rows.
        figures: the names of those to run; empty for all.
    """

    data: Path
    rounds: int
    threads: int
    scale: int
    figures: frozenset[str]

    def rows(self, full: int) -> int:
        """Returns a number of rows at this scale, at least 1."""
        return max(1, full // self.scale)
