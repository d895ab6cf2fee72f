"""`python -m bench.windows`: windowed features, beside what one would write by hand."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.offline.report import machine
from bench.windows import lookups, stream, training
from bench.windows.options import Options

DATA = Path(__file__).resolve().parents[1] / ".data"
PARTS = {"training": training.run, "stream": stream.run, "lookups": lookups.run}
"""Each prints its figures, appends its JSON lines, and returns whether all answers were right."""


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
    chosen: dict[str, set[str]] = {}
    for name in only or list(PARTS):
        part, _, figure = name.partition(":")
        if part not in PARTS:
            raise typer.BadParameter(f"no part {part!r}; there are {', '.join(PARTS)}")
        chosen.setdefault(part, set()).update({figure} - {""})
    print("# Windows\n\n" + ", ".join(f"{name} {value}" for name, value in machine().items()) + "\n", flush=True)
    are_right = [
        PARTS[part](Options(data, rounds, threads, scale, frozenset(figures))) for part, figures in chosen.items()
    ]
    raise typer.Exit(0 if all(are_right) else 1)


if __name__ == "__main__":
    typer.run(main)
