"""`python -m bench.offline`: Larder's training sets beside those of its peers."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.offline.contenders import TITLES
from bench.offline.figures import Figure, Sizes, all_figures
from bench.offline.report import figure_text, machine, record
from bench.offline.runner import Settings, measure

DATA = Path(__file__).resolve().parents[1] / ".data"
QUICK_SCALE = 50


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="A figure by its name, or `linear`, `memory`, `few`, `cutoff`; repeatable.")
    ] = None,
    contenders: Annotated[str, typer.Option(help="Who takes part, with commas between.")] = ",".join(TITLES),
    rounds: Annotated[int, typer.Option(min=1, help="How often each runs after its first time.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each contender.")] = 2,
    scale: Annotated[int, typer.Option(min=1, help="Divide all numbers of rows by this.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help=f"The same as --scale {QUICK_SCALE} --rounds 1.")] = False,
    with_feast_deep: Annotated[
        bool, typer.Option("--with-feast-deep", help="Feast's store over the deep history too: many minutes.")
    ] = False,
) -> None:
    """Compare answers, then times, of training sets by Larder and by what one could take instead.

    Targets that are missed do not fail the run; answers that differ do. The files lie in bench/.data, or where
    LARDER_BENCH_DATA says.
    """
    # A run that is told to end takes its processes and their spilled files with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sizes = Sizes(QUICK_SCALE if quick else scale)
    data = Path(os.environ.get("LARDER_BENCH_DATA") or DATA).absolute()
    settings = Settings(data, threads, 1 if quick else rounds)
    chosen = _chosen(all_figures(sizes, has_feast_deep=with_feast_deep), only or [], contenders.split(","))
    print("# Training sets\n\n" + ", ".join(f"{name} {value}" for name, value in machine().items()) + "\n", flush=True)
    has_failure = False
    for figure in chosen:
        found = measure(figure, settings, lambda text: typer.echo(f"  {text}", err=True))
        record(figure, found, settings, data / "results" / "offline.jsonl")
        print(figure_text(figure, found), flush=True)
        has_failure |= any(one.failure for one in found)
    raise typer.Exit(1 if has_failure else 0)


def _chosen(figures: tuple[Figure, ...], only: list[str], contenders: list[str]) -> list[Figure]:
    unknown = [name for name in contenders if name not in TITLES]
    if unknown:
        raise typer.BadParameter(f"no contender {unknown[0]!r}; there are {', '.join(TITLES)}")
    for name in only:
        if not any(_is_called(figure, name) for figure in figures):
            raise typer.BadParameter(f"no figure {name!r}; there are {', '.join(figure.name for figure in figures)}")
    chosen = []
    for figure in figures:
        entries = tuple(entry for entry in figure.entries if entry.contender in contenders)
        if entries and (not only or any(_is_called(figure, name) for name in only)):
            chosen.append(Figure(figure.name, figure.title, entries, figure.targets, figure.rounds_max))
    return chosen


def _is_called(figure: Figure, name: str) -> bool:
    # `deep` is a figure of its own, not all that begin with it.
    return figure.name == name or (figure.name.split("-")[0] == name and name not in {"deep", "shallow"})


if __name__ == "__main__":
    typer.run(main)
