"""What is asked, and what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.online.figures import Verdict

_PERCENTILES = (50.0, 99.0, 99.9)


@dataclass(slots=True)
class Phase:
    """What was measured in one kind of company; latencies in milliseconds, everything else in seconds a piece."""

    name: str
    latencies_ms: list[float] = field(default_factory=list)
    retrieval_s: list[float] = field(default_factory=list)
    materialization_s: list[float] = field(default_factory=list)
    materialization_cpu_s: list[float] = field(default_factory=list)

    def percentile_ms(self, share: float) -> float:
        """Returns a percentile of all latencies."""
        return float(np.percentile(self.latencies_ms, share))

    def figures(self) -> dict[str, Any]:
        """Returns the phase as plain numbers, None for what did not take part."""
        has_lookups = bool(self.latencies_ms)
        shares = {
            f"p{share:g}_ms": round(self.percentile_ms(share), 3) if has_lookups else None for share in _PERCENTILES
        }
        return {
            "company": self.name,
            "n": len(self.latencies_ms),
            **shares,
            "max_ms": round(max(self.latencies_ms), 3) if has_lookups else None,
            "retrievals": len(self.retrieval_s),
            "retrieval_s": _median(self.retrieval_s),
            "materializations": len(self.materialization_s),
            "materialization_s": _median(self.materialization_s),
            "materialization_cpu_s": _median(self.materialization_cpu_s),
        }


def _median(seconds: Sequence[float]) -> float | None:
    return round(float(np.median(seconds)), 2) if seconds else None


def verdicts(idle: Phase, retrieving: Phase, materializing: Phase, both: Phase) -> list[Verdict]:
    """Returns what the targets say: of lookups beside both, and of what each of the two has left of its speed alone."""
    p99 = both.percentile_ms(99)
    ratio = p99 / idle.percentile_ms(99)
    said = [
        Verdict(f"p99 beside both is {ratio:.1f} times p99 alone, asked at most 6", ratio <= 6),
        Verdict(f"p99 beside both is {p99:.1f} ms, asked at most 5", p99 <= 5),
    ]
    pairs = (
        ("retrievals", retrieving.retrieval_s, both.retrieval_s),
        ("materializations", materializing.materialization_s, both.materialization_s),
    )
    for what, alone, beside in pairs:
        if alone and beside:
            kept = float(np.median(alone) / np.median(beside))
            said.append(Verdict(f"{what} keep {kept:.2f} of their speed, asked 0.5", kept >= 0.5))
    return said
