"""What all parts of the benchmark are told."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.offline.report import machine


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

    def record(self, line: Mapping[str, Any]) -> None:
        """Appends a line of figures to the results, with what they depend on besides."""
        file = self.data / "results" / "windows.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        shared = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {name: version(name) for name in ("larder", "feast", "duckdb", "numba", "pyarrow", "redis")},
            "scale": self.scale,
        }
        with file.open("a") as out:
            out.write(json.dumps(shared | dict(line)) + "\n")
