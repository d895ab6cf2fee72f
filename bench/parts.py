"""Benchmarks of several parts: what each part is told, which are run, and where their figures go."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from bench.offline.report import machine

DATA = Path(__file__).resolve().parent / ".data"
_LIBRARIES = ("larder", "feast", "duckdb", "numba", "pyarrow", "redis", "datasketches")

Part = Callable[["Options"], bool]
"""Prints its figures, appends its JSON lines, and returns whether all answers were right."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a part.

    Attributes:
        suite: the benchmark, after which its file of results is called.
        data: the folder of files; results are appended below it.
        scale: divides all numbers of rows.
        figures: the names of those to run; empty for all.
    """

    suite: str
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
        file = self.data / "results" / f"{self.suite}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        shared = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {name: version(name) for name in _LIBRARIES},
            "threads": self.threads,
            "scale": self.scale,
        }
        with file.open("a") as out:
            out.write(json.dumps(shared | dict(line)) + "\n")


def run_parts(parts: Mapping[str, Part], only: Sequence[str], options: Options) -> bool:
    """Runs parts, or some figures of them, and returns whether all answers were right.

    Args:
        only: the parts, or figures as `part:figure`; none for all.
        options: with `data` as it is unless LARDER_BENCH_DATA says where.

    Raises:
        typer.BadParameter: there is no such part.
    """
    # A run that is told to end takes its processes and their files with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    data = Path(os.environ.get("LARDER_BENCH_DATA") or options.data).absolute()
    data.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, set[str]] = {}
    for name in only or list(parts):
        part, _, figure = name.partition(":")
        if part not in parts:
            raise typer.BadParameter(f"no part {part!r}; there are {', '.join(parts)}")
        chosen.setdefault(part, set()).update({figure} - {""})
    told = ", ".join(f"{name} {value}" for name, value in machine().items())
    print(f"# {options.suite.capitalize()}\n\n{told}\n", flush=True)
    are_right = []
    for part, figures in chosen.items():
        are_right.append(parts[part](replace(options, data=data, figures=frozenset(figures))))
    return all(are_right)
