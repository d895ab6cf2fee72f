"""What runs beside lookups: training sets over HTTP, materializations, processes that only count."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.beside.repo import references
from bench.materialize.process import Materializer
from server.limits import RETRIEVAL_NICENESS

# Asks for one training set after another, throws the answers away, and says when each began and ended.
_ASKER = """\
import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
body = open(sys.argv[3], "rb").read()
headers = {"Content-Type": "application/vnd.apache.parquet", "Accept": sys.argv[4]}
while True:
    began = time.perf_counter()
    connection.request("POST", sys.argv[2], body, headers)
    answer = connection.getresponse()
    size = 0
    while chunk := answer.read(1 << 20):
        size += len(chunk)
    print(answer.status, size, began, time.perf_counter(), flush=True)
"""
_COUNTER = "while True: pass"
# As little of the machine as a retrieval has, by niceness and by session.
_LOWERED = """\
import contextlib, os, pathlib
os.nice(NICENESS)
with contextlib.suppress(OSError):
    pathlib.Path("/proc/self/autogroup").write_text("NICENESS")
"""


class Retrievals:
    """Training sets that were made one after the other: what they took, in seconds, and the size of their answers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.answer_bytes = 0


@contextlib.contextmanager
def retrievals(port: int, body: Path) -> Iterator[Retrievals]:
    """Asks for one training set after another while the block runs; what was done by then is told after it."""
    path = f"/get-historical-features?{'&'.join(f'features={feature}' for feature in references())}"
    arguments = [str(port), path, str(body), "application/vnd.apache.arrow.stream"]
    told = Retrievals()
    with _running([_ASKER, *arguments]) as (asker,):
        yield told
        assert asker.stdout is not None
        # However short the block, one training set is waited for.
        first = asker.stdout.readline()
        asker.kill()
        lines = [first, *asker.stdout.read().splitlines()]
    for line in lines:
        status, size, began, ended = line.split()
        if status != "200":
            raise RuntimeError(f"a retrieval was answered {status}")
        told.seconds.append(float(ended) - float(began))
        told.answer_bytes += int(size)


@contextlib.contextmanager
def counters() -> Iterator[None]:
    """Keeps every core busy with processes that only count, at the priority of a retrieval."""
    with _running(*[[_COUNTER]] * (os.cpu_count() or 1)):
        yield


class Materialization:
    """A materialization that runs beside."""

    def __init__(self, process: Materializer) -> None:
        self.told: dict[str, Any] = {}
        self._failure: BaseException | None = None
        self._process = process
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.told = self._process.run()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._failure = error

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def seconds(self) -> float:
        """Returns what it took, once it has ended."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return float(self.told["seconds"])


@contextlib.contextmanager
def _running(*scripts: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    lowered = _LOWERED.replace("NICENESS", str(RETRIEVAL_NICENESS))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", lowered + script, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for script, *arguments in scripts
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def wait(seconds: float) -> None:
    """Lets what runs beside run alone."""
    time.sleep(seconds)
