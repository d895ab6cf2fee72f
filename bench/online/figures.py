"""What is asked, what must be reached, and what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

TITLES = {
    "larder": "Larder",
    "feast": "feast serve",
    "bare": "bare FastAPI, the same bytes",
    "redis": "the same Redis commands, raw",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One way of asking: so many keys a request, by so many clients at once."""

    name: str
    keys: int
    clients: int


CASES = (Case("1 key", 1, 1), Case("100 keys", 100, 1), Case("1 key, 16 clients", 1, 16))


@dataclass(slots=True)
class Measurement:
    """What was measured of one contender in one case, over all its turns."""

    contender: str
    latencies_us: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    p50s_us: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    digest: str = ""

    def add(self, latencies_us: Sequence[int], seconds: float) -> None:
        """Takes in one turn."""
        self.latencies_us += latencies_us
        self.rates.append(len(latencies_us) / seconds)
        self.p50s_us.append(float(np.median(latencies_us)))

    def percentile_us(self, share: float) -> float:
        """Returns a percentile of all latencies."""
        return float(np.percentile(self.latencies_us, share))

    @property
    def p50_us(self) -> float:
        """Returns the median of the turns' medians, which a busy neighbour in one turn does not move."""
        return float(np.median(self.p50s_us))

    @property
    def rate(self) -> float:
        """Returns the median of the turns' requests per second."""
        return float(np.median(self.rates))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a target says of the measurements."""

    text: str
    is_met: bool


def verdicts(case: Case, found: Mapping[str, Measurement]) -> list[Verdict]:
    """Returns what the targets of a case say, as far as their contenders took part."""
    if "larder" not in found:
        return []
    larder, said = found["larder"], []
    if case.clients == 1 and "feast" in found:
        asked = 10 if case.keys == 1 else 35
        ratio = found["feast"].p50_us / larder.p50_us
        said.append(Verdict(f"p50 is 1/{ratio:.1f} of Feast's, asked 1/{asked}", ratio >= asked))
    if case.keys == 1:
        tail = larder.percentile_us(99) / larder.p50_us
        said.append(Verdict(f"p99 is {tail:.2f} times p50, asked below 3", tail < 3))
    if case.clients > 1:
        for contender, share, title in (("feast", 30.0, "Feast's"), ("bare", 0.55, "the bare app's")):
            if contender in found:
                ratio = larder.rate / found[contender].rate
                said.append(Verdict(f"throughput is {ratio:.2f} of {title}, asked {share:g}", ratio >= share))
    return said


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of Redis per key, of the same rows, and what the values alone take."""

    larder_bytes: float
    feast_bytes: float | None
    payload_bytes: int
    allocator: str
    redis_version: str

    def verdicts(self) -> list[Verdict]:
        """Returns what the targets say."""
        payload = self.larder_bytes / self.payload_bytes
        said = [Verdict(f"bytes per key are {payload:.2f} of the payload's, asked 1.6", payload <= 1.6)]
        if self.feast_bytes is not None:
            ratio = self.larder_bytes / self.feast_bytes
            said.append(Verdict(f"bytes per key are {ratio:.2f} of Feast's, asked 0.57", ratio <= 0.57))
        return said
