"""Running a server: one process, or several workers behind one port, with an orderly end."""

import atexit
import contextlib
import ctypes
import errno
import functools
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from server.connections import BoundedHttpProtocol
from server.limits import CONNECTION_BACKLOG, KEEP_ALIVE_SECONDS, SHUTDOWN_SECONDS, WORKER_HEALTH_SECONDS
from server.settings import ServerSettings
from store.errors import ConfigError, LarderError

if TYPE_CHECKING:
    from server.app import Application

_PR_SET_PDEATHSIG = 1
# Prometheus' client reads the first name; Feast sets both for itself where they are not set.
_METRICS_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


def serve(settings: ServerSettings) -> int:
    """Serves until a signal says to stop; returns the exit code of the process.

    Raises:
        ConfigError: the port cannot be had, or the feature repo cannot be served.
    """
    listener = bound_socket(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    announcement = f"larder: serving {settings.repo_path} on http://{host}:{listener.getsockname()[1]}"
    start = _serve_alone if settings.workers == 1 else _serve_many
    return start(settings, listener, announcement)


def _announce(announcement: str, note: str) -> None:
    sys.stderr.write(f"{announcement} {note}".rstrip() + "\n")
    sys.stderr.flush()


def bound_socket(host: str, port: int) -> socket.socket:
    """Returns a socket bound to a host and port, not yet listening; port 0 takes a free one.

    Raises:
        ConfigError: the port is taken or not permitted, or the host is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is taken by another process; stop that one or choose another with --port "
                "(--port 0 takes a free one)"
            ) from error
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}; choose --host and --port") from error
    listener.set_inheritable(True)
    return listener


def _serve_alone(settings: ServerSettings, listener: socket.socket, announcement: str) -> int:
    from server.app import create_app
    from server.logs import configure_logs
    from server.threads import is_work_running

    configure_logs()
    config = _config(settings, create_app(settings, announce=functools.partial(_announce, announcement)))
    # Uvicorn raises the signal anew once it has stopped; the work is done then, so that is not a failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except SystemExit as stop:
        return 1 if stop.code else 0
    if is_work_running():
        # A materialization that outlasts the grace is cut here, which the next one makes good; waiting for its
        # thread would take as long as it does.
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no public name; files are flushed and folders removed
        os._exit(0)
    return 0


def _serve_many(settings: ServerSettings, listener: socket.socket, announcement: str) -> int:
    # A folder of this start's own, also where one is named: what an earlier one counted is none of its counts.
    folder = tempfile.mkdtemp(prefix="larder-metrics-", dir=os.environ.get(_METRICS_VARIABLES[0]) or None)
    os.environ.update(dict.fromkeys(_METRICS_VARIABLES, folder))
    # The workers tell in their own words what is wrong; the parent has nothing to add.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = _config(settings, functools.partial(make_worker_app, settings, announcement), is_factory=True)
    workers = _Workers(config, sockets=[listener])
    try:
        workers.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes) else 0


class _Workers(Multiprocess):
    """Workers of which a dead one is noticed at once, and whose port closes when they stop."""

    def keep_subprocess_alive(self) -> None:
        """Replaces workers that have died or fallen silent."""
        for process in self.processes:
            # A worker's own end of the pipe, which uvicorn leaves open here too: then one that dies in the middle of a
            # health check does not end the pipe, and is waited for like one that is busy.
            process.child_conn.close()
        super().keep_subprocess_alive()

    def terminate_all(self) -> None:
        """Tells all workers to stop."""
        # Left open here, the port would go on taking connections that nobody answers while the workers finish.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def make_worker_app(settings: ServerSettings, announcement: str) -> "Application":
    """Returns the application in a worker process; a worker that cannot start says so and stops them all.

    The first worker that serves announces them all.
    """
    from server.app import create_app
    from server.logs import configure_logs

    configure_logs()
    # Workers go when the process that started them goes, even if that was killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        return create_app(settings, announce=lambda note: _once("announced", announcement, note))
    except LarderError as error:
        # All workers fail for the same reason; the first one tells it.
        _once("refusal", f"larder: {error}", "")
        # At once: a worker that takes its time to end answers no health check, for which its parent would wait.
        os._exit(STARTUP_FAILURE)


def _once(what: str, text: str, note: str) -> None:
    """Tells something, unless another worker has told it."""
    with contextlib.suppress(FileExistsError):
        Path(os.environ[_METRICS_VARIABLES[0]], what).touch(exist_ok=False)
        _announce(text, note)


def _config(settings: ServerSettings, app: object, *, is_factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=is_factory,
        workers=settings.workers,
        loop="uvloop",
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=CONNECTION_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_worker_healthcheck=WORKER_HEALTH_SECONDS,
    )
