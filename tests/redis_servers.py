"""Private redis-servers for tests: started in a folder, without persistence, and gone at the end of the block."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from store.online.embedded_settings import find_redis_server

START_SECONDS = 60.0


@dataclass(frozen=True)
class RedisServer:
    """A running server.

    Args:
        address: what a connection string says: `127.0.0.1:<port>`, or the URL of a unix socket.
    """

    address: str
    url: str
    process: subprocess.Popen[bytes]
    socket_path: Path | None = None
    port: int | None = None

    def client(self, **options: object) -> redis.Redis:
        """Returns a plain redis-py client."""
        return redis.Redis.from_url(self.url, **options)


def poll_until(condition: Callable[[], object], seconds: float = START_SECONDS, what: str = "") -> None:
    """Returns as soon as a condition holds; fails the test if it does not before the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.01)


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that nobody listens on, nor on the port of a cluster's bus, 10,000 above it."""
    while True:
        # Both below 32,768, from where on Linux gives ports to connections that go out.
        port = 20_000 + secrets.randbelow(2_700)
        if _is_free(port) and _is_free(port + 10_000):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def redis_binary() -> Path:
    """Returns the redis-server that the embedded Redis would use too."""
    return find_redis_server(os.environ, Path("/nonexistent"))


def installed_redis() -> Path:
    """Returns the redis-server on the PATH, newer than the embedded one and with TLS; skips the test without it."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on the PATH; on Debian: apt-get install redis-server")
    return Path(found)


def tls_redis() -> Path:
    """Returns the redis-server on the PATH if it was built with TLS; skips the test if not."""
    binary = installed_redis()
    # It names the first setting that it does not know, and goes.
    probe = [str(binary), "--port", "0", "--tls-port", "0", "--no-such-setting", "1"]
    if "tls-port" in subprocess.run(probe, capture_output=True, text=True, check=False).stderr:
        pytest.skip(f"{binary} was built without TLS; on Debian: apt-get install redis-server")
    return binary


@contextmanager
def private_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Runs a redis-server on a unix socket, without a TCP port.

    Args:
        folder: where it writes its log; of any length, since the socket lies in a short folder of its own.
        options: more of its command line, like `"--maxmemory", "2mb"`.
    """
    sockets = Path(tempfile.mkdtemp(prefix="larder-test-", dir="/tmp"))
    path = sockets / "redis.sock"
    try:
        command = [*_command(folder, port=0), "--unixsocket", str(path), "--unixsocketperm", "700", *options]
        with _running(command, folder) as process:
            server = RedisServer(f"unix://{path}", f"unix://{path}", process, socket_path=path)
            _wait_for_pong(server)
            yield server
    finally:
        shutil.rmtree(sockets)


@contextmanager
def private_redis_tcp(
    folder: Path, *options: str, port: int | None = None, binary: Path | None = None, is_tls: bool = False
) -> Iterator[RedisServer]:
    """Runs a redis-server on a port of 127.0.0.1, a free one if none is named; it may still be loading its file.

    Args:
        binary: which redis-server; that of the embedded Redis where none is named.
        is_tls: whether the port speaks TLS; `options` name the certificates.
    """
    port = free_port() if port is None else port
    plain = [*_command(folder, 0 if is_tls else port, binary), *(("--tls-port", str(port)) if is_tls else ())]
    with _running([*plain, *options], folder) as process:
        server = RedisServer(f"127.0.0.1:{port}", _url(port, is_tls=is_tls), process, port=port)
        _wait_for_pong(server)
        yield server


@contextmanager
def private_cluster(
    folder: Path,
    *more: str,
    nodes: int = 3,
    password: str | None = None,
    binary: Path | None = None,
    is_tls: bool = False,
) -> Iterator[list[RedisServer]]:
    """Runs a Redis Cluster of some masters that share all slots.

    Args:
        more: of each node's command line; the certificates, where it is to speak TLS.
    """
    login = () if password is None else ("--requirepass", password, "--masterauth", password)
    bus = ("--tls-cluster", "yes") if is_tls else ()
    with ExitStack() as stack:
        servers = []
        for number in range(nodes):
            own = folder / f"node{number}"
            own.mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--dir", str(own))
            node = private_redis_tcp(own, *options, *login, *bus, *more, binary=binary, is_tls=is_tls)
            servers.append(stack.enter_context(node))
        clients = [stack.enter_context(server.client(password=password)) for server in servers]
        bounds = [16_384 * number // nodes for number in range(nodes + 1)]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        for client in clients:
            poll_until(lambda client=client: _knows_cluster(client, nodes), what="the cluster agrees")
        yield servers


@contextmanager
def private_sentinel(
    folder: Path, master: RedisServer, name: str, *options: str, binary: Path | None = None, is_tls: bool = False
) -> Iterator[RedisServer]:
    """Runs a sentinel that watches a master under a name."""
    port = free_port()
    settings = folder / "sentinel.conf"
    ports = ("port 0", f"tls-port {port}") if is_tls else (f"port {port}",)
    lines = (*ports, f"dir {folder}", f"sentinel monitor {name} 127.0.0.1 {master.port} 1", *options)
    settings.write_text("".join(f"{line}\n" for line in lines))
    with _running([str(binary or redis_binary()), str(settings), "--sentinel"], folder) as process:
        server = RedisServer(f"127.0.0.1:{port}", _url(port, is_tls=is_tls), process, port=port)
        _wait_for_pong(server)
        yield server


def _url(port: int, *, is_tls: bool) -> str:
    # Whom the tests' own client talks to is not what they are about.
    return f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none" if is_tls else f"redis://127.0.0.1:{port}"


def _command(folder: Path, port: int, binary: Path | None = None) -> list[str]:
    options = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": "", "appendonly": "no"}
    return [str(binary or redis_binary()), *(part for name, value in options.items() for part in (f"--{name}", value))]


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for_pong(server: RedisServer) -> None:
    def answers() -> bool:
        assert server.process.poll() is None, f"redis-server ended at its start: {server.process.args}"
        try:
            with server.client() as client:
                client.execute_command("PING")
        except (redis.ResponseError, redis.AuthenticationError, redis.BusyLoadingError):
            return True
        except redis.ConnectionError:
            return False
        return True

    poll_until(answers, what=f"redis-server at {server.address} answers")


def _knows_cluster(client: redis.Redis, nodes: int) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    text = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
    return text["cluster_state"] == "ok" and int(text["cluster_known_nodes"]) == nodes
