"""The figures as Markdown for people and as JSON lines for comparing runs."""

import json
import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.offline.figures import Figure
from bench.offline.measurements import Measurement
from bench.offline.runner import Settings

HEADINGS = ("contender", "n", "median s", "min", "max", "CPU s", "peak MB", "answer")


def machine() -> dict[str, Any]:
    """Returns what the figures depend on besides the software."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def figure_text(figure: Figure, found: Sequence[Measurement]) -> str:
    """Returns one figure as Markdown: a table of what ran, then what the targets say of it."""
    timed = [pair for pair in zip(figure.entries, found, strict=True) if pair[0].is_timed or pair[1].failure]
    rows = [HEADINGS, *(_cells(measurement) for _, measurement in timed)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    verdicts = [f"- {verdict.text}: {'met' if verdict.is_met else 'NOT MET'}" for verdict in _verdicts(figure, found)]
    failures = [f"- {one.label} FAILED: {one.failure}" for one in found if one.failure]
    notes = [f"- {one.label} does not keep the order of the entity rows" for one in found if not one.keeps_order]
    heading = f"## {figure.name}: {figure.title}"
    return "\n".join([heading, "", *lines, "", *verdicts, *notes, *failures, ""])


def record(figure: Figure, found: Sequence[Measurement], settings: Settings, file: Path) -> None:
    """Appends one JSON line per entry that was timed or failed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        for line in _records(figure, found, settings):
            out.write(f"{json.dumps(line)}\n")


def _records(figure: Figure, found: Sequence[Measurement], settings: Settings) -> Iterator[dict[str, Any]]:
    shared = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": settings.threads,
        "figure": figure.name,
        "verdicts": [{"text": one.text, "is_met": one.is_met} for one in _verdicts(figure, found)],
    }
    for entry, one in zip(figure.entries, found, strict=True):
        if not entry.is_timed and not one.failure:
            continue
        times = {} if one.failure else _times(one)
        yield shared | {
            "label": entry.label,
            "contender": entry.contender,
            "versions": one.versions,
            "source_rows": entry.shape.rows,
            "keys": entry.shape.keys,
            "entity_rows": entry.entity_rows,
            "memory_limit": entry.memory_limit,
            "is_cut_by_created": entry.is_cut_by_created,
            "peak_bytes": one.peak_bytes,
            "digest": one.digest.short if one.digest else None,
            "failure": one.failure,
            **times,
        }


def _times(one: Measurement) -> dict[str, Any]:
    return {
        "n": len(one.wall_s),
        "wall_s_median": one.wall_s_median,
        "wall_s": one.wall_s,
        "cpu_s_median": one.cpu_s_median,
        "cpu_s": one.cpu_s,
    }


def _verdicts(figure: Figure, found: Sequence[Measurement]) -> Iterator[Any]:
    good = {one.label: one for one in found if one.failure is None}
    for target in figure.targets:
        yield from target.verdicts(good)


def _cells(one: Measurement) -> tuple[str, ...]:
    answer = one.digest.short if one.digest else "none"
    if one.failure:
        return (one.label, "0", *("",) * 4, "", f"{answer} FAILED")
    times = (one.wall_s_median, min(one.wall_s), max(one.wall_s), one.cpu_s_median)
    return (one.label, str(len(one.wall_s)), *(f"{time:.2f}" for time in times), f"{one.peak_bytes / 1e6:.0f}", answer)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    # Names and digests to the left, numbers to the right.
    last = len(row) - 1
    cells = [
        cell.ljust(width) if column in {0, last} else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    for line in names.read_text().splitlines() if names.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
