"""`python -m bench.windows`: windowed features, beside what one would write by hand."""

from typing import Annotated

import typer

from bench.parts import DATA, Options, run_parts
from bench.windows import lookups, stream, training

PARTS = {"training": training.run, "stream": stream.run, "lookups": lookups.run}


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
    options = Options("windows", DATA, rounds, threads, scale, frozenset())
    raise typer.Exit(0 if run_parts(PARTS, only or (), options) else 1)


if __name__ == "__main__":
    typer.run(main)
