"""`python -m bench.monitor`: what profiling, pages and monitored lookups cost."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from bench.monitor import profiling
from bench.offline.report import machine
from bench.windows.options import Options

DATA = Path(__file__).resolve().parents[1] / ".data"
OTHERS = {"pages": "bench.monitor.pages", "latency": "bench.monitor.latency", "alarms": "bench.monitor.alarms"}
"""Parts that have a command of their own: `python -m <module>`."""


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="A part, or a figure of one as `part:figure`; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs after its first time.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each contender.")] = 2,
    scale: Annotated[int, typer.Option(min=1, help="Divide all numbers of rows by this.")] = 1,
) -> None:
    """Compare answers, then times.

    Targets that are missed do not fail the run; answers that are wrong do. The files lie in bench/.data, or where
    LARDER_BENCH_DATA says.
    """
    # A run that is told to end takes its processes and their files with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    data = Path(os.environ.get("LARDER_BENCH_DATA") or DATA).absolute()
    data.mkdir(parents=True, exist_ok=True)
    parts = {"profiling": _profiling(Options(data, rounds, threads, scale, frozenset()))}
    parts |= {name: _part(module) for name, module in OTHERS.items() if find_spec(module)}
    chosen: dict[str, set[str]] = {}
    for name in only or list(parts):
        part, _, figure = name.partition(":")
        if part not in parts:
            raise typer.BadParameter(f"no part {part!r}; there are {', '.join(parts)}")
        chosen.setdefault(part, set()).update({figure} - {""})
    print("# Monitoring\n\n" + ", ".join(f"{name} {value}" for name, value in machine().items()) + "\n", flush=True)
    are_right = [parts[part](figures) for part, figures in chosen.items()]
    raise typer.Exit(0 if all(are_right) else 1)


def _profiling(options: Options) -> Callable[[set[str]], bool]:
    return lambda figures: profiling.run(replace(options, figures=frozenset(figures)))


def _part(module: str) -> Callable[[set[str]], bool]:
    return lambda _: subprocess.run([sys.executable, "-m", module], check=False).returncode == 0


if __name__ == "__main__":
    typer.run(main)
