"""Profiling of 10 M rows beside one hand-written SELECT and beside Feast's own path, answers compared before times."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.monitor.profiling_contender import Task
from bench.monitor.profiling_data import NUMBERS, TEXTS, table_file
from bench.parts import Options

ROWS = 10_000_000
VARIANTS: Mapping[str, Sequence[str]] = {"numbers": NUMBERS, "texts": TEXTS}
CONTENDERS: Mapping[str, str] = {
    "larder": "Larder: profiles of all features, kept",
    "select": "DuckDB, one SELECT by hand",
    "feast": "Feast: `feast monitor run`",
}
SELECT_TIMES_MAX, FEAST_TIMES_MIN = 1.5, 3.0
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Measured:
    """All turns of one contender; `wrong` says what its answer has otherwise than Larder's, '' for nothing."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    wrong: str = ""


def run(options: Options) -> bool:
    """Prints and records the figures of both variants; returns whether all answers agree."""
    are_right = True
    for variant, features in VARIANTS.items():
        if not options.figures or variant in options.figures:
            rows = options.rows(ROWS)
            measured = _measure(table_file(options.data, variant, rows), features, options)
            print(_text(variant, rows, len(features), measured), flush=True)
            for name, each in measured.items():
                options.record({"figure": variant, "contender": name, "rows": rows} | asdict(each))
            are_right = are_right and not any(each.wrong for each in measured.values())
    return are_right


def _measure(file: Path, features: Sequence[str], options: Options) -> dict[str, Measured]:
    measured = {name: Measured() for name in CONTENDERS}
    with ExitStack() as stack:
        alive = {}
        for name in CONTENDERS:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=options.data, prefix="scratch-"))
            alive[name] = _Child(Task(name, str(file), list(features), options.threads, scratch), stack)
        # The first turn compiles and fills the system's cache of files; it is where answers are compared.
        firsts = {name: child.say("run") for name, child in alive.items()}
        for name, first in firsts.items():
            measured[name].wrong = difference(firsts["larder"]["found"], first["found"])
        for _ in range(options.rounds):
            for name, child in alive.items():
                reply = child.say("run")
                measured[name].wall_s.append(reply["wall_s"])
                measured[name].cpu_s.append(reply["cpu_s"])
                measured[name].peak_bytes = max(measured[name].peak_bytes, reply["peak_bytes"])
    return measured


class _Child:
    def __init__(self, task: Task, stack: ExitStack) -> None:
        self._process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "bench.monitor.profiling_contender"],
                cwd=_PROJECT,
                env=os.environ | {"OMP_NUM_THREADS": str(task.threads)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self.say(json.dumps(asdict(task)))

    def say(self, line: str) -> dict[str, Any]:
        """Returns what the process answers to a line."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a contender's process ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(answer)
        return reply


def difference(expected: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns in what an answer differs from another, '' if they agree as far as both tell."""
    if expected.keys() != found.keys():
        return f"features {sorted(found)} instead of {sorted(expected)}"
    for name, measures in found.items():
        for measure, value in measures.items():
            known = expected[name].get(measure)
            if known is None or value is None or not math.isclose(known, value, rel_tol=1e-6, abs_tol=1e-9):
                return f"{name}: {measure} is {value} instead of {known}"
    return ""


def _text(variant: str, rows: int, features: int, measured: Mapping[str, Measured]) -> str:
    lines = [f"## profiling-{variant}: {rows:,} rows x {features} features", ""]
    lines += ["| contender | median s | min s | max s | CPU s | peak MB |", "|---|---|---|---|---|---|"]
    for name, each in measured.items():
        times = f"{median(each.wall_s):.2f} | {min(each.wall_s):.2f} | {max(each.wall_s):.2f}"
        lines.append(f"| {CONTENDERS[name]} | {times} | {median(each.cpu_s):.2f} | {each.peak_bytes / 1e6:.0f} |")
    lines += ["", *(f"- {told}: {'met' if is_met else 'NOT MET'}" for told, is_met in verdicts(measured))]
    lines += [f"- {name} has another answer: {each.wrong}" for name, each in measured.items() if each.wrong]
    return "\n".join([*lines, ""])


def verdicts(measured: Mapping[str, Measured]) -> list[tuple[str, bool]]:
    """Returns what the targets say, and whether they are met."""
    ours, select, feast = (median(measured[name].wall_s) for name in CONTENDERS)
    return [
        (
            f"Larder takes {ours / select:.2f}x the SELECT's time, at most {SELECT_TIMES_MAX}x",
            ours <= SELECT_TIMES_MAX * select,
        ),
        (
            f"Feast takes {feast / ours:.1f}x Larder's time, at least {FEAST_TIMES_MIN:.0f}x",
            feast >= FEAST_TIMES_MIN * ours,
        ),
    ]
