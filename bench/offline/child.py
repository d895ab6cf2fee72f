"""The process of one contender: it prepares, then runs whenever the parent says so.

Protocol, one line each way: the task as JSON, answered by what is installed; then `run` or `run digest`, answered by
the measurement. Everything else that libraries print goes to standard error.
"""

import ctypes
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from bench.offline.answers import digest_of
from bench.offline.contenders import Contender, prepared
from bench.offline.task import Task


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
    cpu, start = _cpu_seconds(), time.perf_counter()
    answer = contender.run()
    reply: dict[str, Any] = {"wall_s": time.perf_counter() - start, "cpu_s": _cpu_seconds() - cpu}
    # Before the digest, which needs memory too.
    reply["peak_bytes"] = _peak_bytes()
    if wants_digest:
        reply["digest"] = asdict(digest_of(answer, keeps_order=contender.keeps_order))
    return reply


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_bytes() -> int:
    """Returns the peak of this process's resident memory.

    `ru_maxrss` would do, but a new process inherits its parent's value; Linux's VmHWM begins with the program.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _give_memory_back() -> None:
    """Frees what the run left in allocators, since the other contenders' processes run beside this one."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


if __name__ == "__main__":
    main()
