"""`python -m bench.beside`: online lookups alone, and beside training sets and materializations.

A lookup is asked for at fixed instants, and its latency counts from its instant. The phases take turns, so that
whatever else the machine does falls on all of them. Beside processes that only count (the baseline) lookups share the
machine with just as much work that is none of the server's.

Training sets are asked for over HTTP, so the same server makes them. What is materialized is another project in the
same Redis, 3 views of 1 M keys each, by the call of `feast materialize` in a process of its own; its rows are dropped
after each time.
"""

import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bench.beside.company import Materialization, counters, retrievals, wait
from bench.beside.figures import Phase, verdicts
from bench.beside.lookups import Lookups
from bench.beside.repo import Sizes, fill, make_repo, references
from bench.materialize import repos
from bench.materialize.process import materializer
from bench.materialize.runner import ROWS_PER_KEY
from bench.offline import dataset
from bench.offline.report import machine
from bench.offline.shapes import Shape
from bench.online.servers import larder, post, private_redis

DATA = Path(__file__).resolve().parents[1] / ".data"


class Stage:
    """Everything that is ready to be measured."""

    def __init__(self, stack: ExitStack, data: Path, sizes: Sizes, rate: float, niceness: int) -> None:
        data.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scratch-", dir=data)))
        redis_port, self.client = stack.enter_context(private_redis(folder / "redis", None))
        address = f"127.0.0.1:{redis_port}"
        self.body = make_repo(folder / "repo", address, sizes)
        self.port = stack.enter_context(larder(folder / "repo")).port
        sources = dataset.history(
            data, Shape("shallow", sizes.materialized_keys * ROWS_PER_KEY, sizes.materialized_keys)
        )
        self.bulk_repo = repos.make_repo(folder / "bulk", "larder", address, sources[0].parent)
        self.process = stack.enter_context(materializer(self.bulk_repo, niceness))
        self.lookups = Lookups(self.port, sizes, rate)
        self.empty_and_fill()

    def empty_and_fill(self) -> None:
        """Leaves nothing in Redis but what is looked up, and lets the other project know of no run."""
        self.client.flushall()
        repos.forget_runs(self.bulk_repo)
        fill(self.port)


def measure(stage: Stage, rounds: int, seconds: float) -> list[Phase]:
    """Returns the phases, which took turns so many times."""
    names = (
        "none",
        "training sets",
        "counting processes",
        "training sets alone",
        "a materialization alone",
    )
    idle, retrieving, counting, retrieval, materializing = phases = [Phase(name) for name in names]
    both = Phase("a materialization and training sets")

    def looked_up() -> list[float]:
        return stage.lookups.run(lambda due: due < seconds)

    for _ in range(rounds):
        idle.latencies_ms += looked_up()
        with retrievals(stage.port, stage.body) as told:
            retrieving.latencies_ms += looked_up()
        retrieving.retrieval_s += told.seconds
        with counters():
            counting.latencies_ms += looked_up()
        with retrievals(stage.port, stage.body) as told:
            wait(seconds)
        retrieval.retrieval_s += told.seconds
        _materialize(stage, materializing, has_lookups=False)
        stage.empty_and_fill()
        with retrievals(stage.port, stage.body) as told:
            _materialize(stage, both, has_lookups=True)
        both.retrieval_s += told.seconds
        stage.empty_and_fill()
    return [*phases, both]


def _materialize(stage: Stage, phase: Phase, *, has_lookups: bool) -> None:
    """Materializes once, and looks up as long as that takes."""
    running = Materialization(stage.process)
    if has_lookups:
        phase.latencies_ms += stage.lookups.run(lambda _: running.is_running)
    phase.materialization_s.append(running.seconds())
    phase.materialization_cpu_s.append(running.told["cpu_s"])


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often the phases take turns.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of a phase without a materialization.")] = 10.0,
    rate: Annotated[float, typer.Option(min=1, help="Lookups a second.")] = 200.0,
    scale: Annotated[int, typer.Option(min=1, help="Divide all numbers of rows and keys by this.")] = 1,
    niceness: Annotated[int, typer.Option(help="Of the process that materializes.")] = 10,
) -> None:
    """Measure the latency of online lookups alone, and beside training sets and materializations.

    The files lie in bench/.data, or where LARDER_BENCH_DATA says.
    """
    # A run that is told to end takes its processes and files with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sizes = Sizes(2_000_000 // scale, 10_000 // scale, 300_000 // scale, 1_000_000 // scale)
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    print(f"# Lookups beside training sets and materializations\n\n{facts}\n", flush=True)
    data = Path(os.environ.get("LARDER_BENCH_DATA") or DATA).absolute()
    with ExitStack() as stack:
        stage = Stage(stack, data, sizes, rate, niceness)
        # The first one waits for the warm process, which belongs to none of the phases.
        asked = "&".join(f"features={feature}" for feature in references())
        kind = "application/vnd.apache.parquet"
        post(stage.port, f"/get-historical-features?{asked}", stage.body.read_bytes(), kind, kind)
        stage.lookups.run(lambda due: due < min(seconds, 2.0))
        phases = measure(stage, rounds, seconds)
    figures = [phase.figures() for phase in phases]
    print(f"| {' | '.join(figures[0])} |\n|{'---|' * len(figures[0])}")
    for row in figures:
        print(f"| {' | '.join('' if value is None else str(value) for value in row.values())} |")
    idle, _, _, retrieval, materializing, both = phases
    said = verdicts(idle, retrieval, materializing, both)
    print("\n" + "\n".join(f"- {'met' if one.is_met else 'MISSED'}: {one.text}" for one in said))
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rate": rate,
        "niceness": niceness,
    }
    results = data / "results"
    results.mkdir(parents=True, exist_ok=True)
    with (results / "beside.jsonl").open("a") as out:
        out.writelines(json.dumps({**record, "source_rows": sizes.source_rows, **row}) + "\n" for row in figures)


if __name__ == "__main__":
    typer.run(main)
