"""The embedded Redis: a private, real redis-server that the processes of one feature repo share.

Whoever needs it calls `ensure_running`, which joins the server of the repo or starts one. It listens on a unix
socket in a folder that only its user can enter, appends to `<repo>/data/redis`, and is stopped by a small process
of its own (`embedded_supervisor`) some 30 s after its last client has gone.

Files in `<repo>/data/redis`, besides those that Redis writes:

    server.json         the socket of the server; it names the path, because the run folder depends on the
                        environment of the process that started the server (a login session or a cron job)
    server.json.lock    held while somebody starts, joins or stops the server, so that these never overlap
    server.lock         held by redis-server as long as it lives: two servers can never share the folder
    supervisor.lock     held by the supervisor as long as it lives
    redis.log           what server and supervisor print

A lock that the kernel frees at its holder's death needs no cleaning up and cannot be mistaken, unlike a process id.
"""

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from store.errors import ConfigError, OnlineStoreError, OnlineStoreUnavailable
from store.files import locked, write_atomically
from store.online.embedded_settings import find_redis_server, idle_seconds, run_folder, server_command
from store.online.embedded_supervisor import (
    POLL_SECONDS,
    REPLY_SECONDS,
    STOP_SECONDS,
    ErrorReply,
    Orders,
    Wire,
    client_count,
    is_free_before,
    open_named,
    shut_down,
    try_lock,
)

START_SECONDS = 60.0
"""For loading the append-only file: Redis reads about 100 MB/s of it, so this holds for some 5 GB."""

CLOSE_SECONDS = 0.25
"""For connections that were closed just before a stop: Redis sees their end in its next round, within milliseconds."""

LOG_BYTES_MAX = 1024 * 1024
"""redis.log is moved to redis.log.1 at a start that finds it larger; one start prints about 2 kB."""

LOG_TAIL_LINES = 5
"""Lines of redis.log quoted where a server does not start; the reason stands in the last two or three."""

LAUNCH_SECONDS = 20.0
"""For a Python without packages to start and fork: 20 ms, times a thousand for a machine that swaps."""


@dataclass(frozen=True, slots=True)
class _Home:
    """The files of one repo's server."""

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / "server.json"

    @property
    def start_lock(self) -> Path:
        return self.folder / "server.json.lock"

    @property
    def server_lock(self) -> Path:
        return self.folder / "server.lock"

    @property
    def supervisor_lock(self) -> Path:
        return self.folder / "supervisor.lock"

    @property
    def log(self) -> Path:
        return self.folder / "redis.log"

    @property
    def key(self) -> str:
        """A short name that differs between repos: 48 bits make a clash between a user's repos a fiction."""
        return hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]

    def socket(self) -> Path | None:
        """Returns the socket of the server that was started last, or None if none was or its record is torn."""
        try:
            return Path(json.loads(self.record.read_text())["socket"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def log_tail(self) -> str:
        """Returns the last lines that the server printed, on one line."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return " | ".join(lines[-LOG_TAIL_LINES:]) or "(empty log)"


def _home(repo_path: Path) -> _Home:
    # Symlinks resolved: two names of one folder are one server.
    return _Home(Path(os.path.realpath(Path(repo_path) / "data")) / "redis")


def ensure_running(
    repo_path: Path, environ: Mapping[str, str] = os.environ, start_seconds: float = START_SECONDS
) -> Path:
    """Returns the socket of the repo's embedded Redis, which has answered PING; starts the server if there is none.

    The server then stays for at least the idle time, so a caller who connects within that time finds it. A server
    or supervisor that was killed is replaced, and the data are those that the dead one had written.

    Args:
        environ: read for `LARDER_EMBEDDED_IDLE_SECONDS`, `XDG_RUNTIME_DIR`, `TMPDIR` and `PATH`, and only by the
            process that starts the server.
        start_seconds: how long the server may take to load its data.

    Raises:
        ConfigError: no redis-server to start, a run folder that others could enter, or a folder that cannot be used.
        OnlineStoreUnavailable: the server does not start, or is still loading at the deadline.
    """
    home = _home(repo_path)
    deadline = time.monotonic() + start_seconds
    with _folder_errors(home):
        home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(home.record):
            return _Joining(home, environ, deadline).join()


def is_running(repo_path: Path) -> bool:
    """Returns whether the repo's embedded Redis runs; one that is starting or stopping is waited for."""
    home = _home(repo_path)
    if not home.record.exists():
        return False
    with _folder_errors(home), locked(home.record):
        return _is_held(home.server_lock)


def stop_if_unused(repo_path: Path) -> bool:
    """Stops the repo's embedded Redis at once if no client is connected, and returns whether it did.

    Connections that this process holds itself count as clients, so close them first. Returns False where none runs.

    Raises:
        OnlineStoreError: the server refused to stop or has not ended in time.
    """
    home = _home(repo_path)
    socket_path = home.socket()
    if socket_path is None:
        return False
    with _folder_errors(home), locked(home.record):
        if not _is_held(home.server_lock):
            return False
        try:
            wire = open_named(str(socket_path), REPLY_SECONDS)
            with contextlib.closing(wire):
                if not _is_deserted(wire):
                    return False
                shut_down(wire)
        except ErrorReply as error:
            raise OnlineStoreError(f"embedded Redis in {str(home.folder)!r} refused to stop: {error}") from error
        except (TimeoutError, FileNotFoundError, ConnectionError):
            # Busy for somebody, so it is in use; or cut off from its socket, and the supervisor is about to end it.
            return False
        deadline = time.monotonic() + STOP_SECONDS
        if not is_free_before(str(home.server_lock), deadline):
            raise OnlineStoreError(
                f"embedded Redis in {str(home.folder)!r} has not ended {STOP_SECONDS:g} s after it was told to; "
                f"see {str(home.log)!r}"
            )
        home.record.unlink(missing_ok=True)
        is_free_before(str(home.supervisor_lock), deadline)
    return True


@contextlib.contextmanager
def _folder_errors(home: _Home) -> Iterator[None]:
    """Turns what the file system refuses into a sentence that names the folder."""
    try:
        yield
    except (OnlineStoreError, ConfigError):
        raise
    except OSError as error:
        raise ConfigError(
            f"embedded Redis cannot use {error.filename or str(home.folder)!r}: {error.strerror or error}; "
            f"make {str(home.folder)!r} writable for this user (one user per feature repo), or set REDIS_URL"
        ) from error


def _is_deserted(wire: Wire) -> bool:
    """Returns whether no client is connected; the server may learn of a closed connection a moment later."""
    deadline = time.monotonic() + CLOSE_SECONDS
    while client_count(wire):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _is_held(path: Path) -> bool:
    """Returns whether a process holds the lock of a file; only for holders of the start lock, who do not collide."""
    descriptor = try_lock(str(path))
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


class _Joining:
    """One attempt to join or start the server, made under the start lock."""

    def __init__(self, home: _Home, environ: Mapping[str, str], deadline: float) -> None:
        self._home = home
        self._environ = environ
        self._deadline = deadline
        self._has_started = False
        self._has_supervised = False

    def join(self) -> Path:
        """Returns the socket once the server answers."""
        while True:
            socket_path, answer = self._step()
            if socket_path is not None:
                return socket_path
            if time.monotonic() > self._deadline:
                raise OnlineStoreUnavailable(
                    f"embedded Redis in {str(self._home.folder)!r} does not answer in time (last: {answer}); "
                    f"it goes on starting if it can, so try again, and see {str(self._home.log)!r}"
                )
            time.sleep(POLL_SECONDS)

    def _step(self) -> tuple[Path | None, str]:
        """Looks who lives, starts whoever is missing, and returns the socket if it answers, else what it said."""
        with contextlib.ExitStack() as held:
            server_fd = _hold(held, self._home.server_lock)
            supervisor_fd = _hold(held, self._home.supervisor_lock)
            if server_fd is None:
                if supervisor_fd is not None and not self._has_supervised:
                    self._adopt(supervisor_fd)
                return self._ask()
            if supervisor_fd is None:
                # It notices the server's death by itself and ends; only then can it be replaced.
                return None, "the supervisor of a dead server has not ended"
            if self._has_started:
                raise OnlineStoreUnavailable(
                    f"embedded Redis in {str(self._home.folder)!r} ended while it was starting: {self._home.log_tail()}"
                    "; repair or remove the files in that folder, or set REDIS_URL"
                )
            self._start(server_fd, supervisor_fd)
            return None, "just started"

    def _ask(self) -> tuple[Path | None, str]:
        socket_path = self._home.socket()
        if socket_path is None:
            return None, f"{self._home.record.name} is missing; {_stop_hint(self._home)}"
        left_seconds = max(self._deadline - time.monotonic(), POLL_SECONDS)
        try:
            with contextlib.closing(Wire(str(socket_path), min(left_seconds, REPLY_SECONDS))) as wire:
                return socket_path, wire.call("PING")
        except ErrorReply as error:
            # Any other complaint (no room for the file, too many clients) comes from a server that is up.
            return (None if str(error).startswith("LOADING") else socket_path), str(error)
        except PermissionError as error:
            raise ConfigError(
                f"embedded Redis in {str(self._home.folder)!r} belongs to another user: {error}; "
                "run as that user, or set REDIS_URL"
            ) from error
        except OSError as error:
            return None, f"{error}; {_stop_hint(self._home)}"

    def _adopt(self, supervisor_fd: int) -> None:
        self._has_supervised = True
        socket_path = self._home.socket()
        if socket_path is not None:
            self._launch(self._orders(socket_path, supervisor_fd))

    def _start(self, server_fd: int, supervisor_fd: int) -> None:
        self._has_started = True
        binary = find_redis_server(self._environ, self._home.folder)
        folder = run_folder(self._environ)
        for stale in folder.glob(f"{self._home.key}-*.sock"):
            stale.unlink(missing_ok=True)
        # A name of its own for each start: an older server of a removed data folder cannot remove this one's socket.
        socket_path = folder / f"{self._home.key}-{secrets.token_hex(2)}.sock"
        write_atomically(self._home.record, json.dumps({"socket": str(socket_path)}).encode())
        orders = self._orders(socket_path, supervisor_fd)
        command = server_command(binary, self._home.folder, socket_path)
        self._launch(replace(orders, server_fd=server_fd, server_command=command))

    def _orders(self, socket_path: Path, supervisor_fd: int) -> Orders:
        return Orders(
            socket_path=str(socket_path),
            record_path=str(self._home.record),
            start_lock_path=str(self._home.start_lock),
            server_lock_path=str(self._home.server_lock),
            supervisor_lock_path=str(self._home.supervisor_lock),
            supervisor_fd=supervisor_fd,
            idle_seconds=idle_seconds(self._environ),
        )

    def _launch(self, orders: Orders) -> None:
        """Runs the supervisor's first process, which forks and ends, so that no zombie of ours is left."""
        program = Path(__file__).with_name("embedded_supervisor.py")
        inherited = [fd for fd in (orders.server_fd, orders.supervisor_fd) if fd is not None]
        if self._home.log.exists() and self._home.log.stat().st_size > LOG_BYTES_MAX:
            self._home.log.replace(self._home.log.with_name(f"{self._home.log.name}.1"))
        with self._home.log.open("ab") as log:
            try:
                # Every other descriptor is closed (close_fds is the default): no lock of ours may live on in there.
                subprocess.run(
                    [sys.executable, "-I", "-S", str(program), orders.to_json()],
                    pass_fds=inherited,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    timeout=LAUNCH_SECONDS,
                    check=True,
                )
            except subprocess.SubprocessError as error:
                raise OnlineStoreUnavailable(
                    f"embedded Redis in {str(self._home.folder)!r}: its supervisor did not start: "
                    f"{self._home.log_tail()}"
                ) from error


def _hold(held: contextlib.ExitStack, path: Path) -> int | None:
    """Takes the lock of a file until the stack ends; a process that inherited the descriptor holds it further."""
    descriptor = try_lock(str(path))
    if descriptor is not None:
        held.callback(os.close, descriptor)
    return descriptor


def _stop_hint(home: _Home) -> str:
    pid = home.server_lock.read_text().strip()
    return f"if this lasts, stop the server with `kill {pid}`"
