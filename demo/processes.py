"""The demo's child processes, none of which outlives it: signals, ports, starting, waiting, stopping."""

import atexit
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

STOP_SECONDS = 10.0
"""How long a child may take to end after SIGTERM before it is killed; the server drains its requests in it."""
READY_SECONDS = 120.0
"""How long the server may take until it is ready, once that is waited for: importing Feast is 5 s of it."""
LOG_LINES_SHOWN = 25
_POLL_SECONDS = 0.1
_SERVING = re.compile(r"larder: serving .* on http://127\.0\.0\.1:(\d+)\b")
"""What `larder serve` says once it has its port."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The person or the system told the demo to stop; not an Exception, so that no handler takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class ChildFailed(RuntimeError):
    """A child process ended with an error; the message carries the end of what it printed."""


class Refused(RuntimeError):
    """The server refused a request of the demo; the message carries its reason."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raises `Interrupted` at the first SIGINT, SIGTERM or SIGHUP; for the main thread, where Python handles signals.

    Further ones are ignored: they would only cut the cleaning up short. An error that follows a signal is taken for
    its effect: DuckDB, interrupted in a query, raises an error of its own in place of ours.
    """
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if received:
            raise Interrupted(received[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts signals off until the block ends: for starting a child before its handle is kept, and for cleaning up.

    The handlers are exchanged rather than the signals blocked: a child would inherit the blocking.
    """
    waiting: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: waiting.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            os.kill(os.getpid(), waiting[0])


class Children:
    """Starts child processes that print into log files, and ends all of them at `close`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Takes the environment that every child gets."""
        self._environ = dict(environ)
        self._running: list[subprocess.Popen[bytes]] = []
        # The owner closes this; the net below is for an interrupt in the very instant before it does.
        atexit.register(self.close)

    def start(self, command: Sequence[str], log: Path, folder: Path) -> "subprocess.Popen[bytes]":
        """Starts a child in a folder, in a session of its own so that a Ctrl-C reaches it only through us."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with uninterrupted(), log.open("wb") as output:
            child = subprocess.Popen(
                list(command),
                cwd=folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.append(child)
        return child

    def finish(self, child: "subprocess.Popen[bytes]", what: str, log: Path) -> None:
        """Waits until a child has ended.

        Raises:
            ChildFailed: it ended with an error.
        """
        code = self.ended(child)
        if code != 0:
            raise ChildFailed(f"{what} ended with exit code {code}; it printed:\n{log_tail(log)}")

    def ended(self, child: "subprocess.Popen[bytes]") -> int:
        """Waits until a child has ended, and returns its exit code."""
        code = child.wait()
        self._running.remove(child)
        return code

    def stop(self, child: "subprocess.Popen[bytes]") -> None:
        """Ends a child: SIGTERM, and SIGKILL for it and what it started if that takes too long."""
        if child in self._running:
            _stop(child)
            self._running.remove(child)

    def close(self) -> None:
        """Ends all children that still run."""
        atexit.unregister(self.close)
        for child in list(self._running):
            self.stop(child)


def _stop(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # The child leads a process group of its own (a new session), so its workers go with it.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def log_tail(log: Path) -> str:
    """Returns the last lines of a log, indented."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:] if log.exists() else []
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"


def feast_command(*arguments: str) -> list[str]:
    """Returns the command line of the `feast` CLI that belongs to this Python."""
    script = Path(sys.executable).with_name("feast")
    if script.exists():
        return [str(script), *arguments]
    return [sys.executable, "-c", "from feast.cli.cli import cli; cli()", *arguments]


def larder_command(*arguments: str) -> list[str]:
    """Returns the command line of `larder` run by this Python."""
    return [sys.executable, "-c", "from cli.main import main; main()", *arguments]


@dataclass(frozen=True, slots=True)
class StartingServer:
    """A `larder serve` that has been started and is not known to be ready yet."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def ready_port(self) -> int:
        """Returns the port once the server is ready.

        Raises:
            ChildFailed: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + READY_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            found = _SERVING.search(self.log.read_text(errors="replace"))
            if found and _answers_ready(int(found[1])):
                return int(found[1])
            time.sleep(_POLL_SECONDS)
        raise ChildFailed(f"`larder serve` was not ready within {READY_SECONDS:g} s; it printed:\n{log_tail(self.log)}")


def start_server(children: Children, repo: Path, log: Path) -> StartingServer:
    """Starts `larder serve` on a free port of its own choice."""
    command = larder_command("serve", "--repo", str(repo), "--host", "127.0.0.1", "--port", "0")
    return StartingServer(children.start(command, log, repo), log)


def _answers_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
