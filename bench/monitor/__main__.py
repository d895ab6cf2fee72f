"""`python -m bench.monitor`: what profiling, pages and monitored lookups cost."""

import subprocess
import sys
from typing import Annotated

import typer

from bench.monitor import profiling
from bench.parts import DATA, Options, Part, run_parts


def _by_itself(module: str) -> Part:
    """Returns a part that has a command of its own, `python -m <module>`, and takes no options."""
    return lambda _: subprocess.run([sys.executable, "-m", module], check=False).returncode == 0


PARTS: dict[str, Part] = {
    "profiling": profiling.run,
    **{name: _by_itself(f"bench.monitor.{name}") for name in ("pages", "latency", "alarms")},
}


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
    options = Options("monitoring", DATA, rounds, threads, scale, frozenset())
    raise typer.Exit(0 if run_parts(PARTS, only or (), options) else 1)


if __name__ == "__main__":
    typer.run(main)
