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

    @property
    def cpu_rate(self) -> float:
        """Returns rows written per second of a processor, Redis' included, which other work moves less."""
        used = [own + of_redis for own, of_redis in zip(self.cpu_s, self.redis_cpu_s, strict=True)]
        return self.rows / float(np.median(used))


def verdicts(found: Mapping[Entry, Measurement]) -> list[Verdict]:
    """Returns what the targets say, as far as their contenders took part."""
    larder = max((one for one in found.values() if one.entry.contender == "larder"), key=lambda one: one.entry.keys)
    said = []
    if theirs := [one for one in found.values() if one.entry.contender == "feast"]:
        ratio = larder.rate / max(one.rate for one in theirs)
        by_cpu = f"by processor time {larder.cpu_rate / max(one.cpu_rate for one in theirs):.1f}"
        text = f"keys a second are {ratio:.1f} times Feast's at its best size, asked 15 ({by_cpu})"
        said.append(Verdict(text, ratio >= 15))
    for one in found.values():
        if one.entry.contender == "plain":
            ratio = larder.rate / one.rate
            by_cpu = f"by processor time {larder.cpu_rate / one.cpu_rate:.2f}"
            text = f"keys a second are {ratio:.2f} of the plain commands', asked 0.2 ({by_cpu})"
            said.append(Verdict(text, ratio >= 0.2))
    peak_gb = larder.peak_bytes / 1e9
    said.append(Verdict(f"peak memory is {peak_gb:.2f} GB, asked below 1.5", larder.peak_bytes < PEAK_BYTES_MAX))
    return said
