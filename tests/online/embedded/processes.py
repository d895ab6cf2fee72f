"""The embedded Redis seen from outside: its processes and files, and other processes that join it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

import store
from store.online.embedded import is_running, stop_if_unused
from store.online.embedded_settings import run_folder
from tests.redis_servers import poll_until

# Short, so that the end of an unused server is seen soon, and long enough for a busy machine to connect in.
IDLE = 1.0

# `import store.online` loads Feast (4 s), which a process of these tests does not need: the package's own code is
# left out, its modules are found all the same.
PREAMBLE = f"""
import sys, types
sys.path.insert(0, {str(Path(store.__file__).parent.parent)!r})
package = types.ModuleType("store.online")
package.__path__ = [{str(Path(store.__file__).parent / "online")!r}]
sys.modules["store.online"] = package
from pathlib import Path
from store.online.embedded import ensure_running, is_running, stop_if_unused
repo = Path(sys.argv[1])
"""

HOLD_A_CONNECTION = """
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect(str(ensure_running(repo)))
connection.sendall(b"PING\\r\\n")
assert connection.recv(100) == b"+PONG\\r\\n"
print("held", flush=True)
sys.stdin.read()
"""


def clean_up(repo: Path) -> None:
    """Ends what a test has left running; a test that failed may leave anything."""
    for name in ("supervisor.lock", "server.lock"):
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid = pid_of(repo, name)
            if "redis" in command_line(pid):
                os.kill(pid, signal.SIGKILL)
    poll_until(lambda: not is_running(repo), what="the embedded Redis is gone")


def pid_of(repo: Path, name: str) -> int:
    return int((repo / "data/redis" / name).read_text())


def living_pid(repo: Path, name: str) -> int:
    """Returns the id in a lock file, which the supervisor writes a moment after the server may answer."""

    def is_written() -> bool:
        with suppress(FileNotFoundError, ValueError):
            return is_alive(pid_of(repo, name))
        return False

    poll_until(is_written, what=f"{name} names a process that lives")
    return pid_of(repo, name)


def server_pid(repo: Path) -> int:
    return living_pid(repo, "server.lock")


def supervisor_pid(repo: Path) -> int:
    return living_pid(repo, "supervisor.lock")


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that its parent has not looked at has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    poll_until(lambda: not is_alive(pid), what=f"process {pid} ends")


def client_of(socket_path: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(socket_path), protocol=2)


def run(code: str, repo: Path, *, isolated: bool = False, **environ: str) -> subprocess.Popen[str]:
    flags = ["-I", "-S"] if isolated else []
    return subprocess.Popen(
        [sys.executable, *flags, "-c", PREAMBLE + code, str(repo)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


@contextmanager
def process_with_connection(repo: Path) -> Iterator[subprocess.Popen[str]]:
    with run(HOLD_A_CONNECTION, repo) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n", process.communicate()[1]
            yield process
        finally:
            process.kill()


def stop(repo: Path) -> None:
    """Stops an unused server, or sees it stop by itself: on a busy machine the idle time may pass first."""
    poll_until(lambda: stop_if_unused(repo) or not is_running(repo), what="the embedded Redis stops")


def sockets_of(repo: Path) -> list[Path]:
    record = repo / "data/redis/server.json"
    key = Path(json.loads(record.read_text())["socket"]).name.partition("-")[0]
    return list(run_folder(os.environ).glob(f"{key}-*"))
