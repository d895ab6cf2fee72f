"""The process that materializes, as its parent has it."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from bench.offline.shapes import SPAN_US, START_US
from bench.online.servers import PROJECT

START = datetime.fromtimestamp(START_US / 1e6, UTC)
END = datetime.fromtimestamp((START_US + SPAN_US) / 1e6, UTC)


class Materializer:
    """A process that has Feast imported, and materializes a repo over the benchmark's year when it is told to."""

    def __init__(self, process: subprocess.Popen[str], errors: TextIO) -> None:
        self._process = process
        self._errors = errors
        self._read()

    def run(self) -> dict[str, Any]:
        """Returns the figures of one materialization."""
        assert self._process.stdin
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"a materialization failed:\n{self._errors.read()[-3000:]}")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def materializer(repo: Path, niceness: int = 0) -> Iterator[Materializer]:
    """Starts the process, in a session of its own as a scheduled job has it; it ends with the block.

    Args:
        niceness: how far it gives way to others.
    """
    interval = START.isoformat(), END.isoformat()
    command = [sys.executable, "-m", "bench.materialize.child", str(repo), *interval, str(niceness)]
    # What Feast prints is kept in a file, so that no full pipe holds it up.
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Materializer(process, errors)
        finally:
            process.kill()
