"""`python -m bench.materialize`: Larder's materializations beside Feast's and beside plain commands."""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.materialize.figures import TITLES, Entry, Measurement, verdicts
from bench.materialize.runner import ROWS_PER_KEY, Settings, compare_answers, measure, prepared
from bench.offline.report import machine
from bench.offline.shapes import FEATURES, VIEWS
from bench.online.figures import Memory, Verdict

DATA = Path(__file__).resolve().parents[1] / ".data"
PACKAGES = ("feast", "duckdb", "pyarrow", "redis", "hiredis")


def main(
    contenders: Annotated[str, typer.Option(help="Who takes part, with commas between.")] = ",".join(TITLES),
    keys: Annotated[int, typer.Option(min=100, help=f"Keys of each view, {ROWS_PER_KEY} rows each.")] = 1_000_000,
    feast_keys: Annotated[str, typer.Option(help="The same of Feast, with commas between the sizes.")] = "30000,100000",
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One round over few keys.")] = False,
    redis_binary: Annotated[Path | None, typer.Option(help="A redis-server; else the one that Larder takes.")] = None,
) -> None:
    """Compare answers, then keys written per second, of materializations by Larder and by Feast.

    Feast would take minutes for Larder's number of keys, so it gets fewer. Its answers are compared at the largest of
    its sizes, its rate is the best of all. Targets that are missed do not fail the run; answers that differ do.
    The files lie in bench/.data, or where LARDER_BENCH_DATA says.
    """
    # A run that is told to end takes its processes and files with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    names = tuple(contenders.split(","))
    if unknown := [name for name in names if name not in TITLES]:
        raise typer.BadParameter(f"no contender {unknown[0]!r}; there are {', '.join(TITLES)}")
    data = Path(os.environ.get("LARDER_BENCH_DATA") or DATA).absolute()
    sizes = tuple(int(size) for size in feast_keys.split(","))
    settings = Settings(data, names, keys, sizes, rounds, redis_binary)
    if quick:
        settings = Settings(data, names, 2_000, (500,), 1, redis_binary)

    def say(text: str) -> None:
        typer.echo(f"  {text}", err=True)

    with prepared(settings) as stage:
        memory, digest = compare_answers(stage, say)
        found = measure(stage, say)
    facts = {**machine(), **{name: version(name) for name in PACKAGES}, "redis-server": memory.redis_version}
    print(f"# Materializations: {VIEWS} views of {FEATURES} features, {ROWS_PER_KEY} rows a key\n")
    print(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
    print(text_of(found, memory))
    record(facts, found, memory, digest, data / "results" / "materialize.jsonl")


def text_of(found: Mapping[Entry, Measurement], memory: Memory) -> str:
    """Returns the figures as Markdown: a table, then what the targets say."""
    lines = [
        "| contender | n | median s | min | max | CPU s | Redis CPU s | peak MB | rows written/s | rows/CPU s |",
        "|---" * 10 + "|",
    ]
    for one in found.values():
        times = [np.median(one.seconds), min(one.seconds), max(one.seconds)]
        times += [np.median(one.cpu_s), np.median(one.redis_cpu_s)]
        cells = [f"{time:.2f}" for time in times]
        cells += [f"{one.peak_bytes / 1e6:.0f}", f"{one.rate:,.0f}", f"{one.cpu_rate:,.0f}"]
        lines.append(f"| {one.entry.label} | {len(one.seconds)} | {' | '.join(cells)} |")
    theirs = "" if memory.feast_bytes is None else f", Feast {memory.feast_bytes:.0f}"
    bytes_line = (
        f"Redis bytes a key, the same rows: Larder {memory.larder_bytes:.0f}{theirs}, values alone "
        f"{memory.payload_bytes} (Redis {memory.redis_version}, {memory.allocator})"
    )
    return "\n".join([*lines, "", bytes_line, "", *_said([*verdicts(found), *memory.verdicts()]), ""])


def _said(said: Sequence[Verdict]) -> list[str]:
    return [f"- {'met' if one.is_met else 'MISSED'}: {one.text}" for one in said]


def record(
    facts: Mapping[str, Any], found: Mapping[Entry, Measurement], memory: Memory, digest: str, file: Path
) -> None:
    """Appends one JSON line per entry."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shared = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts,
        "digest": digest,
        "redis": f"{memory.redis_version} {memory.allocator}",
        "redis_bytes_per_key": {"larder": memory.larder_bytes, "feast": memory.feast_bytes},
        "verdicts": [{"text": one.text, "is_met": one.is_met} for one in (*verdicts(found), *memory.verdicts())],
    }
    with file.open("a") as out:
        for entry, one in found.items():
            own = {
                "contender": entry.contender,
                "keys": entry.keys,
                "rows_written": one.rows,
                "n": len(one.seconds),
                "rows_per_second": one.rate,
                "rows_per_cpu_second": one.cpu_rate,
                "seconds": one.seconds,
                "cpu_s": one.cpu_s,
                "redis_cpu_s": one.redis_cpu_s,
                "peak_bytes": one.peak_bytes,
            }
            out.write(f"{json.dumps({**shared, **own})}\n")


if __name__ == "__main__":
    typer.run(main)
