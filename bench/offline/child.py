"""The process of one contender: it prepares, then runs whenever the parent says so.

Protocol, one line each way: the task as JSON, answered by what is installed; then `run` or `run digest`, answered by
the measurement. Everything else that libraries print goes to standard error.
"""

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TextIO

import pyarrow as pa

from bench.offline.answers import digest_of
from bench.offline.contenders import Contender, prepared
from bench.offline.task import Task
from bench.usage import cpu_seconds, peak_bytes


def main() -> None:
    """Serves one parent until it closes the pipe."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        try:
            for reply in _replies(sys.stdin):
                print(json.dumps(reply), file=out, flush=True)
        except Exception as error:  # noqa: BLE001 - a process edge: the parent reports it
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=out, flush=True)


def _replies(lines: TextIO) -> Iterator[dict[str, Any]]:
    task = Task.from_json(lines.readline())
    pa.set_cpu_count(task.threads)
    contender = prepared(task)
    yield {"versions": contender.versions, "keeps_order": contender.keeps_order}
    for line in lines:
        yield _measured(contender, wants_digest="digest" in line.split())
        _give_memory_back()


def _measured(contender: Contender, *, wants_digest: bool) -> dict[str, Any]:
    cpu, start = cpu_seconds(), time.perf_counter()
    answer = contender.run()
    reply: dict[str, Any] = {"wall_s": time.perf_counter() - start, "cpu_s": cpu_seconds() - cpu}
    # Before the digest, which needs memory too.
    reply["peak_bytes"] = peak_bytes()
    if wants_digest:
        reply["digest"] = asdict(digest_of(answer, keeps_order=contender.keeps_order))
    return reply


def _give_memory_back() -> None:
    """Frees what the run left in allocators, since the other contenders' processes run beside this one."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


if __name__ == "__main__":
    main()
