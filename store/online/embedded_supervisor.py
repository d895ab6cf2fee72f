"""Watches one embedded redis-server and stops it when nobody uses it; also the smallest of Redis clients.

`store.online.embedded` runs this file by its path (`python -I -S embedded_supervisor.py <orders as JSON>`), so it
imports nothing but the standard library: it costs 10 MB of memory and starts in some 20 ms. It detaches itself,
starts the server or adopts one that runs, and then asks once a second who is connected.

Two files say who lives, by an advisory lock that the kernel frees when its holder dies, however it dies: the
supervisor holds one, the server inherits the other. Both files carry the process id of the holder, for people.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

SUPERVISOR_NAME = "larder-supervisor"
"""The connection name that is not counted as a client."""

POLL_SECONDS = 0.01
"""Between two looks at something that takes milliseconds: a process that ends, a socket that opens."""

TICK_SECONDS_MAX = 1.0
"""Between two counts of the clients: two commands a second are nothing to Redis, and a stop is late by 1 s at most."""

REPLY_SECONDS = 5.0
"""A server that takes longer for a count is busy, so it is not unused; the count is repeated."""

OPEN_SECONDS = 20.0
"""For a started server to open its socket, which comes before loading its data: 5 ms, and slack for swapping."""

STOP_SECONDS = 30.0
"""For the last sync of the append-only file on a slow disk; joiners wait meanwhile, so it must end."""


class ErrorReply(Exception):
    """Redis answered with an error."""


@dataclass(frozen=True)
class Orders:
    """What the starter tells the supervisor.

    Units: `*_fd` are descriptors inherited from the starter, each holding the lock of its file. `server_fd` and
    `server_command` are None where a running server is to be adopted.
    """

    socket_path: str
    record_path: str
    start_lock_path: str
    server_lock_path: str
    supervisor_lock_path: str
    supervisor_fd: int
    idle_seconds: float
    server_fd: int | None = None
    server_command: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Returns the orders as the one argument of the supervisor's command line."""
        return json.dumps(asdict(self))


class Wire:
    """One connection to a Redis socket that speaks as much of RESP2 as simple commands need.

    Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
    """

    def __init__(self, socket_path: str, timeout_seconds: float) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(timeout_seconds)
            self.socket.connect(socket_path)
        except OSError:
            self.socket.close()
            raise
        self._reader = self.socket.makefile("rb")

    def call(self, *words: str) -> str:
        """Returns the reply to one command.

        Raises:
            ErrorReply: Redis refused the command.
            OSError: no answer in time, or the connection ended.
        """
        parts = [word.encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(request)
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("Redis closed the connection")
        kind, text = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"-":
            raise ErrorReply(text)
        if kind != b"$":
            return text
        body = self._reader.read(int(text) + 2)
        if len(body) < int(text) + 2:
            raise ConnectionResetError("Redis closed the connection")
        return body[:-2].decode(errors="replace")

    def close(self) -> None:
        """Closes the connection."""
        self._reader.close()
        self.socket.close()


def try_lock(path: str) -> int | None:
    """Returns a descriptor that holds the lock of a file, created if absent, or None while another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_free_before(path: str, deadline: float) -> bool:
    """Waits until nobody holds the lock of a file; False if that is still so at the deadline (monotonic seconds)."""
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    os.close(descriptor)
    return True


def client_count(wire: Wire) -> int:
    """Returns how many clients are connected, the supervisor and this connection (named alike) left out."""
    lines = wire.call("CLIENT", "LIST").splitlines()
    return sum(1 for line in lines if f" name={SUPERVISOR_NAME} " not in f"{line} ")


def connections_received(wire: Wire) -> int:
    """Returns how many connections the server has ever accepted: it tells of clients that came and went."""
    for line in wire.call("INFO", "stats").splitlines():
        name, _, value = line.partition(":")
        if name == "total_connections_received":
            return int(value)
    raise ErrorReply("INFO stats lacks total_connections_received")


def shut_down(wire: Wire) -> None:
    """Asks the server to sync its append-only file and end; the connection is of no use afterwards.

    Raises:
        ErrorReply: the server refused and runs on.
    """
    try:
        # NOSAVE leaves out a dump.rdb that nobody reads; the append-only file is flushed and synced all the same.
        wire.call("SHUTDOWN", "NOSAVE")
    except OSError:
        # A server that ends says so by closing the connection.
        return


def open_named(socket_path: str, timeout_seconds: float) -> Wire:
    """Returns a connection that does not count as a client."""
    wire = Wire(socket_path, timeout_seconds)
    try:
        wire.call("CLIENT", "SETNAME", SUPERVISOR_NAME)
    except (OSError, ErrorReply):
        wire.close()
        raise
    return wire


def _write_pid(descriptor: int, pid: int) -> None:
    # One write of one length: whoever reads the file meanwhile sees the old id or the new one, never a piece.
    os.pwrite(descriptor, b"%-20d\n" % pid, 0)


class Supervisor:
    """Keeps one server until it is unused, dead, or cut off from its data."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._child: int | None = None
        self._connections_seen = -1
        self._idle_since = time.monotonic()

    def run(self) -> None:
        """Starts or adopts the server, and returns when there is nothing left to watch."""
        orders = self._orders
        # Only the server inherits its own lock: a supervisor's lock that it held too would outlive the supervisor.
        os.set_inheritable(orders.supervisor_fd, False)
        _write_pid(orders.supervisor_fd, os.getpid())
        if orders.server_fd is not None:
            self._start(orders.server_fd)
        wire = self._connect(time.monotonic() + OPEN_SECONDS)
        if wire is not None:
            self._watch(wire)
        self._end_child()
        # A server that was killed leaves its socket file; no other server has ever the same name.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(orders.socket_path)  # noqa: PTH108 - pathlib would double the time to start

    def _start(self, server_fd: int) -> None:
        command = self._orders.server_command
        every_signal = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
        self._child = os.posix_spawn(command[0], command, os.environ, setsigmask=[], setsigdef=every_signal)
        _write_pid(server_fd, self._child)
        os.close(server_fd)

    def _connect(self, deadline: float) -> Wire | None:
        """Returns a connection, or None if the server ends first or does not answer before the deadline."""
        while time.monotonic() < deadline and not self._reap():
            try:
                return open_named(self._orders.socket_path, REPLY_SECONDS)
            except (OSError, ErrorReply):
                if self._child is None and not self._is_server_alive():
                    return None
                time.sleep(POLL_SECONDS)
        return None

    def _watch(self, wire: Wire) -> None:
        tick_seconds = min(TICK_SECONDS_MAX, self._orders.idle_seconds / 4)
        while True:
            # The server sends nothing unasked, so a readable socket means that it has closed the connection.
            is_closed = bool(select.select([wire.socket], [], [], tick_seconds)[0])
            try:
                if not is_closed and self._is_done(wire):
                    wire.close()
                    return
            except (OSError, ErrorReply):
                # Too busy for an answer, or dead: the next connection tells.
                is_closed = True
            if is_closed:
                wire.close()
                self._idle_since = time.monotonic()
                again = self._connect(time.monotonic() + REPLY_SECONDS) or self._insist()
                if again is None:
                    return
                wire = again

    def _insist(self) -> Wire | None:
        """Returns a connection to a server that lives but was long silent, or None once it is dead or cut off."""
        while self._is_server_alive() and not self._is_cut_off():
            wire = self._connect(time.monotonic() + REPLY_SECONDS)
            if wire is not None:
                return wire
        return None

    def _is_done(self, wire: Wire) -> bool:
        """Stops the server if it is unused or cut off, and tells whether it did."""
        if self._is_cut_off():
            # Nobody can join it and nobody will find what it writes, so no lock is needed and none may be waited for.
            shut_down(wire)
            return self._is_server_gone()
        if self._is_in_use(wire) or time.monotonic() - self._idle_since < self._orders.idle_seconds:
            return False
        start_lock = try_lock(self._orders.start_lock_path)
        if start_lock is None:
            return False  # Somebody is joining at this moment; the next look sees the new connection.
        try:
            if self._is_in_use(wire):
                return False
            shut_down(wire)
            if not self._is_server_gone():
                return False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._orders.record_path)  # noqa: PTH108 - see above
            # Joiners wait for the start lock: they must find this lock free as soon as they get that one.
            os.close(self._orders.supervisor_fd)
            return True
        finally:
            os.close(start_lock)

    def _is_in_use(self, wire: Wire) -> bool:
        """Tells whether a client is there or was there since the last look, and if so restarts the idle time."""
        count, received = client_count(wire), connections_received(wire)
        if count or received != self._connections_seen:
            self._connections_seen = received
            self._idle_since = time.monotonic()
            return True
        return False

    def _is_cut_off(self) -> bool:
        """Tells whether the data folder or the socket file was removed under the running server."""
        try:
            held = os.fstat(self._orders.supervisor_fd)
            named = os.stat(self._orders.supervisor_lock_path)  # noqa: PTH116 - see above
            os.stat(self._orders.socket_path)  # noqa: PTH116 - see above
        except (FileNotFoundError, NotADirectoryError):
            return True
        return (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino)

    def _is_server_gone(self) -> bool:
        deadline = time.monotonic() + STOP_SECONDS
        if self._child is not None:
            while not self._reap():
                if time.monotonic() > deadline:
                    return False
                time.sleep(POLL_SECONDS)
            return True
        try:
            return is_free_before(self._orders.server_lock_path, deadline)
        except (FileNotFoundError, NotADirectoryError):
            return True

    def _is_server_alive(self) -> bool:
        if self._child is not None:
            return not self._reap()
        # Looking by the lock would hold it for an instant, in which a starter would take the server for alive.
        try:
            probe = Wire(self._orders.socket_path, REPLY_SECONDS)
        except TimeoutError:
            return True
        except OSError:
            return False
        probe.close()
        return True

    def _reap(self) -> bool:
        """Tells whether the server, if it is our child, has ended, and leaves no zombie of it."""
        if self._child is None:
            return False
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self._child, os.WNOHANG)[0] == 0:
                return False
        return True

    def _end_child(self) -> None:
        """Ends a server that lives on although it is cut off or never opened its socket; it may sync its file."""
        if self._child is None or self._reap():
            return
        os.kill(self._child, signal.SIGTERM)
        if not self._is_server_gone():
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)


@contextlib.contextmanager
def _failure_in_log() -> Iterator[None]:
    """Writes an error to standard error, which is the server's log: there is nobody to raise it to."""
    try:
        yield
    except OSError as error:
        sys.stderr.write(f"{SUPERVISOR_NAME}: {error}\n")
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    """Detaches from the starter and supervises; the starter waits only for the first of two processes."""
    orders = Orders(**json.loads(sys.argv[1]))
    if os.fork():
        os._exit(0)
    # A session of its own: ^C in the starter's terminal reaches neither the supervisor nor the server.
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    with _failure_in_log():
        Supervisor(orders).run()


if __name__ == "__main__":
    main()
