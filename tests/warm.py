"""Real commands in processes of their own, forked from one that has imported Feast: each begins with its work."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO

from tests.warm_process import NUMBER_BYTES

ROOT = Path(__file__).resolve().parent.parent


class WarmCommand:
    """A running `feast` or `larder` command, with the manners of `subprocess.Popen`.

    Args:
        stderr: what it says, if that is to be read.
    """

    def __init__(self, status: int, stderr: IO[str] | None = None) -> None:
        self._status = status
        self.stderr = stderr
        self.returncode: int | None = None
        self.pid = self._number()

    def _number(self) -> int:
        found = os.read(self._status, NUMBER_BYTES)
        assert found, "the warm process is gone"
        return int.from_bytes(found, "little", signed=True)

    def poll(self) -> int | None:
        """Returns how the command has ended, or nothing if it has not."""
        return self._ended_within(0)

    def wait(self, seconds: float | None = None) -> int:
        """Waits for the command's end and returns its exit code, or minus the signal that ended it.

        Raises:
            TimeoutExpired: it still runs.
        """
        code = self._ended_within(seconds)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), seconds or 0)
        return code

    def _ended_within(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            self.returncode = self._number()
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the command still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the command, if it still runs."""
        self.send_signal(signal.SIGKILL)


@cache
def _control() -> socket.socket:
    """Starts the warm process of this test process; it goes when the other end of the socket does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Feast has set these for this process, if it is imported here; with them the metrics of a server are kept in files.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_process", str(theirs.fileno())],
            cwd=ROOT,
            # A fork has the one thread that called for it, so there must be no others.
            env={**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def begin(
    program: str,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    output: int | None = None,
) -> WarmCommand:
    """Begins a command.

    Args:
        program: `feast` or `larder`.
        environ: its environment; ours if there is none.
        output: a descriptor for all that it says; without it `stderr` is to be read, and the rest goes nowhere.
    """
    order = {
        "program": program,
        "arguments": arguments,
        "environ": dict(os.environ if environ is None else environ),
        "folder": str(Path.cwd()),
    }
    status, status_writer = os.pipe()
    closing, stderr = [status_writer], None
    if output is None:
        reader, writer = os.pipe()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        closing += [writer, nowhere]
        descriptors = [nowhere, writer, status_writer]
        stderr = os.fdopen(reader)
    else:
        descriptors = [output, output, status_writer]
    socket.send_fds(_control(), [json.dumps(order).encode()], descriptors)
    for descriptor in closing:
        os.close(descriptor)
    return WarmCommand(status, stderr)


def run(program: str, *arguments: str, log: Path, environ: Mapping[str, str] | None = None) -> float:
    """Runs a command to its good end and returns how many seconds it took; what it says goes to the end of a file."""
    with log.open("ab") as file:
        command = begin(program, *arguments, environ=environ, output=file.fileno())
    began = time.monotonic()
    assert command.wait() == 0, log.read_text()
    return time.monotonic() - began
