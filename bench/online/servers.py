"""Servers in processes of their own: started, awaited, asked for their memory, ended."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from store.online.embedded_settings import find_redis_server

PROJECT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
STOP_SECONDS = 30.0
ANSWER_SECONDS = 600.0
_BIN = Path(sys.executable).parent
LARDER = str(_BIN / "larder")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of one contender."""

    port: int
    process: subprocess.Popen[bytes]

    def peak_bytes(self) -> int:
        """Returns the sum of the peaks of resident memory of the server's processes."""
        return sum(_peak_bytes(pid) for pid in _family(self.process.pid))


def _family(pid: int) -> list[int]:
    """Returns a process and those that it has started, and so on."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return [pid, *(relative for child in found for relative in _family(child))]


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(port: int, path: str, body: bytes, content_type: str = "application/json", accept: str = "*/*") -> bytes:
    """Returns the answer to one request.

    Raises:
        RuntimeError: the answer is not 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": content_type, "Accept": accept})
        answer = connection.getresponse()
        content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {content[:500]!r}")
    return content


@contextlib.contextmanager
def private_redis(folder: Path, binary: Path | None) -> Iterator[tuple[int, redis.Redis]]:
    """Runs a Redis that keeps nothing on disk, with the setting that README asks for; gives its port and a client."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    program = binary or find_redis_server(os.environ, Path("/nonexistent"))
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    # The older name is understood by all versions.
    options += ["--hash-max-ziplist-value", "1024"]
    with _running([str(program), *options], {}), redis.Redis(port=port) as client:
        _until(lambda: client.ping() is True, "redis-server")
        yield port, client


@contextlib.contextmanager
def larder(repo: Path, command: Sequence[str] = (LARDER,)) -> Iterator[Server]:
    """Runs `larder serve` with one worker; `command` is what stands for `larder`."""
    port = free_port()
    with _serving([*command, "serve", "--repo", str(repo), "--port", str(port)], port) as server:
        yield server


@contextlib.contextmanager
def feast(repo: Path) -> Iterator[Server]:
    """Runs `feast serve` with one worker, as it comes but for its access log."""
    port = free_port()
    command = [str(_BIN / "feast"), "--chdir", str(repo), "serve", "--port", str(port), "--no-access-log"]
    with _serving(command, port) as server:
        yield server


@contextlib.contextmanager
def bare(folder: Path) -> Iterator[Server]:
    """Runs the app that returns the bytes in a folder."""
    port = free_port()
    command = [sys.executable, "-m", "bench.online.bare_app", str(port), str(folder)]
    with _serving(command, port) as server:
        yield server


@contextlib.contextmanager
def _serving(command: Sequence[str], port: int) -> Iterator[Server]:
    # Feast sets Prometheus' folder for its own server where it is not set.
    with _running(command, {"PROMETHEUS_MULTIPROC_DIR": ""}) as process:
        _until(lambda: _is_listening(port), " ".join(command), process)
        yield Server(port, process)


@contextlib.contextmanager
def _running(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    kept = {name: value for name, value in os.environ.items() if name not in environ}
    process = subprocess.Popen(command, cwd=PROJECT, env=kept, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_listening(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def _until(condition: object, what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    assert callable(condition)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what} ended at its start with status {process.returncode}")
        with contextlib.suppress(OSError, redis.RedisError):
            if condition():
                return
        time.sleep(0.05)
    raise RuntimeError(f"{what} did not start within {START_SECONDS:g} seconds")
