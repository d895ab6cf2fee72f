"""`python -m bench.online`: Larder's lookups beside those of its peers."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.offline.report import machine
from bench.online.figures import TITLES, Case, Measurement, Memory, Verdict, verdicts
from bench.online.runner import Settings, compare_answers, measure, prepared

DATA = Path(__file__).resolve().parents[1] / ".data"
PACKAGES = ("feast", "fastapi", "uvicorn", "redis", "hiredis", "msgspec")


def main(
    contenders: Annotated[str, typer.Option(help="Who takes part, with commas between.")] = ",".join(TITLES),
    keys: Annotated[int, typer.Option(min=200, help="Keys in Redis.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of one turn.")] = 2.0,
    quick: Annotated[bool, typer.Option("--quick", help="One short round over few keys.")] = False,
    redis_binary: Annotated[Path | None, typer.Option(help="A redis-server; else the one that Larder takes.")] = None,
) -> None:
    """Compare answers, then latency, throughput and memory, of online lookups by Larder and by its peers.

    Targets that are missed do not fail the run; answers that differ do.
    """
    # A run that is told to end takes its processes with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    names = tuple(contenders.split(","))
    if unknown := [name for name in names if name not in TITLES]:
        raise typer.BadParameter(f"no contender {unknown[0]!r}; there are {', '.join(TITLES)}")
    settings = Settings(names, keys, rounds, seconds, redis_binary)
    if quick:
        settings = Settings(names, 500, 1, 0.3, redis_binary)

    def say(text: str) -> None:
        typer.echo(f"  {text}", err=True)

    with (
        tempfile.TemporaryDirectory(prefix="larder-bench-") as folder,
        prepared(settings, Path(folder), say) as (stage, memory),
    ):
        digests = compare_answers(stage, say)
        found = measure(stage, settings, say)
    facts = {**machine(), **{name: version(name) for name in PACKAGES}}
    print("# Online lookups: 30 features in 3 views, one worker each\n")
    print(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
    for case, measured in found.items():
        print(case_text(case, measured))
    print(memory_text(memory))
    data = Path(os.environ.get("LARDER_BENCH_DATA") or DATA).absolute()
    record(facts, found, memory, digests, data / "results" / "online.jsonl")


def case_text(case: Case, measured: Mapping[str, Measurement]) -> str:
    """Returns one case as Markdown: a table, then what the targets say."""
    lines = [f"## {case.name}", "", "| contender | n | p50 ms | p99 | max | requests/s | peak MB |", "|---" * 7 + "|"]
    for name, one in measured.items():
        times = [one.p50_us, one.percentile_us(99), max(one.latencies_us)]
        cells = [f"{time / 1000:.3f}" for time in times]
        peak = f"{one.peak_bytes / 1e6:.0f}" if one.peak_bytes else ""
        lines.append(f"| {TITLES[name]} | {len(one.latencies_us)} | {' | '.join(cells)} | {one.rate:,.0f} | {peak} |")
    return "\n".join([*lines, "", *_said(verdicts(case, measured)), ""])


def memory_text(memory: Memory) -> str:
    """Returns what the rows take in Redis as Markdown."""
    theirs = "" if memory.feast_bytes is None else f", Feast {memory.feast_bytes:.0f}"
    line = (
        f"Larder {memory.larder_bytes:.0f}{theirs}, payload {memory.payload_bytes} "
        f"(Redis {memory.redis_version}, {memory.allocator})"
    )
    return "\n".join(["## Redis bytes per key", "", line, "", *_said(memory.verdicts()), ""])


def _said(said: Sequence[Verdict]) -> list[str]:
    return [f"- {'met' if one.is_met else 'MISSED'}: {one.text}" for one in said]


def record(
    facts: Mapping[str, Any],
    found: Mapping[Case, Mapping[str, Measurement]],
    memory: Memory,
    digests: Mapping[str, str],
    file: Path,
) -> None:
    """Appends one JSON line per contender and case."""
    file.parent.mkdir(parents=True, exist_ok=True)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    with file.open("a") as out:
        for case, measured in found.items():
            said = [{"text": one.text, "is_met": one.is_met} for one in verdicts(case, measured)]
            for name, one in measured.items():
                line = {
                    "at": at,
                    "machine": facts,
                    "case": case.name,
                    "keys": case.keys,
                    "clients": case.clients,
                    "contender": name,
                    "n": len(one.latencies_us),
                    "p50_us": one.p50_us,
                    "p99_us": one.percentile_us(99),
                    "max_us": max(one.latencies_us),
                    "requests_per_second": one.rate,
                    "peak_bytes": one.peak_bytes,
                    "digest": digests[case.name],
                    "redis_bytes_per_key": {"larder": memory.larder_bytes, "feast": memory.feast_bytes}.get(name),
                    "redis": f"{memory.redis_version} {memory.allocator}",
                    "verdicts": said,
                }
                out.write(f"{json.dumps(line)}\n")


if __name__ == "__main__":
    typer.run(main)
