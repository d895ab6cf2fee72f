"""Training sets of windowed features, beside a window frame of constant width written by hand.

The frame is what one would write without hops: it answers another question, and it is what sawtooth windows must not
cost more than. So its answers are not compared; Larder's are, with a naive rescan of a sample of entity rows.
"""

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

from bench.offline.figures import PEAK_BYTES_MAX
from bench.parts import Options
from bench.windows.training_contender import Task
from bench.windows.training_data import files, naive_answers

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
WEEK = (7 * DAY_US, HOUR_US)
THREE = (WEEK, (DAY_US, HOUR_US), (HOUR_US, HOUR_US // 12))
EVENTS, ROWS = 10_000_000, 1_000_000
MEMORY_LIMIT = "1GB"
TITLES = {"larder": "Larder", "range": "constant RANGE frame", "three": "Larder, three windows"}
PROJECT = Path(__file__).resolve().parents[2]
_NEAR = 1e-9


@dataclass(frozen=True, slots=True)
class Figure:
    """Contenders that take turns, and how many times the second one's time the first may take at most."""

    name: str
    keys: int
    entries: tuple[str, ...]
    at_most: float | None
    rounds_max: int = 100
    memory_limit: str | None = None


FIGURES = (
    Figure("keys-10000", 10_000, ("larder", "range"), 1.0),
    Figure("keys-1000000", 1_000_000, ("larder", "range"), 0.35),
    Figure("keys-100", 100, ("larder", "range"), 0.25, rounds_max=3),
    Figure("three-windows", 10_000, ("three", "larder"), 1.6),
    Figure("memory", 10_000, ("larder",), None, rounds_max=1, memory_limit=MEMORY_LIMIT),
)


@dataclass
class Measured:
    """What was measured of one contender; `wrong` says how its answers differ from a rescan, "" if they do not."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    wrong: str = ""


class Contender:
    """A contender in a process of its own, alive until the block is left."""

    def __init__(self, task: Task, stack: ExitStack) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(task.threads)}
        self._child = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "bench.windows.training_contender"],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self.say(json.dumps(asdict(task)))

    def say(self, line: str) -> dict[str, Any]:
        """Returns what the process answers to a line."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError(f"a contender's process ended with status {self._child.wait()}")
        reply: dict[str, Any] = json.loads(answer)
        return reply


def run(options: Options) -> bool:
    """Prints and records all figures; returns whether all answers were right."""
    are_right = True
    for figure in FIGURES:
        if not options.figures or figure.name in options.figures:
            measured = _measure(figure, options)
            print(_text(figure, measured, options), flush=True)
            _record(figure, measured, options)
            are_right = are_right and not any(one.wrong for one in measured.values())
    return are_right


def _measure(figure: Figure, options: Options) -> dict[str, Measured]:
    keys = _keys(figure, options)
    options.data.mkdir(parents=True, exist_ok=True)
    events, entities = files(options.data, options.rows(EVENTS), options.rows(ROWS), keys)
    measured = {name: Measured() for name in figure.entries}
    with ExitStack() as stack:
        alive: dict[str, Contender] = {}
        for name in figure.entries:
            windows = THREE if name == "three" else (WEEK,)
            expected = naive_answers(events, entities, windows)
            scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=options.data, prefix="scratch-"))
            task = Task(
                contender="range" if name == "range" else "larder",
                events=str(events),
                entities=str(entities),
                windows=[list(shape) for shape in windows],
                threads=options.threads,
                memory_limit=figure.memory_limit,
                scratch=scratch,
                sample=list(expected),
            )
            alive[name] = Contender(task, stack)
            first = alive[name].say("run sample")
            measured[name].peak_bytes = first["peak_bytes"]
            if name != "range":
                measured[name].wrong = _difference(expected, first["sample"])
        names = list(figure.entries)
        for turn in range(min(options.rounds, figure.rounds_max)):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                reply = alive[name].say("run")
                measured[name].wall_s.append(reply["wall_s"])
                measured[name].cpu_s.append(reply["cpu_s"])
                measured[name].peak_bytes = max(measured[name].peak_bytes, reply["peak_bytes"])
    return measured


def _keys(figure: Figure, options: Options) -> int:
    """Returns the number of keys at a scale: events per key stay the same, down to a hundred keys."""
    return max(min(figure.keys, 100), figure.keys // options.scale)


def _difference(expected: Mapping[int, Sequence[float | None]], answered: Sequence[Any]) -> str:
    if len(answered) != len(expected):
        return f"{len(answered)} of {len(expected)} sampled rows were answered"
    for row, values in answered:
        for one, other in zip(values, expected[row], strict=True):
            is_same = one == other if one is None or other is None else math.isclose(one, other, rel_tol=_NEAR)
            if not is_same:
                return f"row {row} has {values}, expected {list(expected[row])}"
    return ""


def _verdicts(figure: Figure, measured: Mapping[str, Measured]) -> list[tuple[str, bool]]:
    verdicts = []
    if figure.at_most is not None:
        one, other = (measured[name] for name in figure.entries)
        ratio, cpu = median(one.wall_s) / median(other.wall_s), median(one.cpu_s) / median(other.cpu_s)
        said = f"{TITLES[figure.entries[0]]} takes {ratio:.2f} of {TITLES[figure.entries[1]]} (CPU {cpu:.2f})"
        verdicts.append((f"{said}, at most {figure.at_most}", ratio <= figure.at_most))
    if figure.memory_limit:
        peak = max(one.peak_bytes for one in measured.values())
        said = f"the process holds {peak / 1e6:.0f} MB at its peak, at most {PEAK_BYTES_MAX / 1e6:.0f}"
        verdicts.append((said, peak <= PEAK_BYTES_MAX))
    return verdicts


def _text(figure: Figure, measured: Mapping[str, Measured], options: Options) -> str:
    limit = f", memory_limit {figure.memory_limit}" if figure.memory_limit else ""
    sizes = f"{options.rows(ROWS):,} entity rows, {options.rows(EVENTS):,} events"
    lines = [
        f"## {figure.name}: {sizes}, {_keys(figure, options):,} keys{limit}",
        "",
        "| contender | n | median s | min | max | CPU s | peak MB |",
        "|---" * 7 + "|",
    ]
    for name, one in measured.items():
        cells = [f"{value:.2f}" for value in (median(one.wall_s), min(one.wall_s), max(one.wall_s), median(one.cpu_s))]
        lines.append(f"| {TITLES[name]} | {len(one.wall_s)} | {' | '.join(cells)} | {one.peak_bytes / 1e6:.0f} |")
    said = [f"- {text}: {'met' if is_met else 'NOT MET'}" for text, is_met in _verdicts(figure, measured)]
    wrong = [f"- {TITLES[name]} FAILED: {one.wrong}" for name, one in measured.items() if one.wrong]
    return "\n".join([*lines, "", *said, *wrong, ""])


def _record(figure: Figure, measured: Mapping[str, Measured], options: Options) -> None:
    shared = {
        "part": "training",
        "figure": figure.name,
        "threads": options.threads,
        "keys": _keys(figure, options),
        "memory_limit": figure.memory_limit,
        "verdicts": [{"text": text, "is_met": is_met} for text, is_met in _verdicts(figure, measured)],
    }
    for name, one in measured.items():
        options.record(shared | {"contender": name, **asdict(one)})
