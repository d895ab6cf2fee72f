"""What takes part, what must be reached, and what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bench.offline.shapes import FEATURES, VIEWS
from bench.online.figures import Verdict

TITLES = {
    "larder": "Larder",
    "feast": "Feast",
    "plain": "the same rows by HSET, packed beforehand",
    "scripted": "the same script calls, packed beforehand",
}
PAYLOAD_BYTES = VIEWS * FEATURES * 8
"""What the values of one key take without anything around them: doubles."""

PEAK_BYTES_MAX = 1_500_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """Who materializes, or pushes, how many keys of each view."""

    contender: str
    keys: int

    @property
    def label(self) -> str:
        """Returns the name in tables."""
        return f"{TITLES[self.contender]}, {self.keys:,} keys"


@dataclass(slots=True)
class Measurement:
    """What was measured of one entry, a number per run; `rows` is how many rows each run wrote, over all views."""

    entry: Entry
    rows: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    redis_cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def rate(self) -> float:
        """Returns rows written per second: those of the median run."""
        return self.rows / float(np.median(self.seconds))


def verdicts(found: Mapping[Entry, Measurement]) -> list[Verdict]:
    """Returns what the targets say, as far as their contenders took part."""
    larder = max((one for one in found.values() if one.entry.contender == "larder"), key=lambda one: one.entry.keys)
    said = []
    if theirs := [one.rate for one in found.values() if one.entry.contender == "feast"]:
        ratio = larder.rate / max(theirs)
        said.append(Verdict(f"keys a second are {ratio:.1f} times Feast's at its best size, asked 15", ratio >= 15))
    for one in found.values():
        if one.entry.contender == "plain":
            ratio = larder.rate / one.rate
            said.append(Verdict(f"keys a second are {ratio:.2f} of the plain commands', asked 0.2", ratio >= 0.2))
    peak_gb = larder.peak_bytes / 1e9
    said.append(Verdict(f"peak memory is {peak_gb:.2f} GB, asked below 1.5", larder.peak_bytes < PEAK_BYTES_MAX))
    return said
